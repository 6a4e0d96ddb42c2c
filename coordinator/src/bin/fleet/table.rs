//! Tables for people.

use crate::human::printable;
use crate::names::Names;
use crate::screen::Screen;
use serde_json::Value;

/// What is between two columns.
const GAP: usize = 2;
/// A column is not made narrower than this.
const NARROWEST: usize = 16;

/// How a column is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// As it is.
    Text,
    /// To the right.
    Number,
    /// Coloured by what it says.
    Word,
    /// Cut where the terminal is too narrow.
    Long,
}

/// A column: what stands above it, and what stands in it of an item.
pub(crate) struct Column {
    head: &'static str,
    look: Look,
    cell: fn(&Value, &Names) -> String,
}

impl Column {
    /// A column of text.
    pub(crate) const fn text(head: &'static str, cell: fn(&Value, &Names) -> String) -> Self {
        Self { head, look: Look::Text, cell }
    }

    /// A column of numbers.
    pub(crate) const fn number(head: &'static str, cell: fn(&Value, &Names) -> String) -> Self {
        Self { head, look: Look::Number, cell }
    }

    /// A column of words such as `succeeded`.
    pub(crate) const fn word(head: &'static str, cell: fn(&Value, &Names) -> String) -> Self {
        Self { head, look: Look::Word, cell }
    }

    /// A column of text of any length.
    pub(crate) const fn long(head: &'static str, cell: fn(&Value, &Names) -> String) -> Self {
        Self { head, look: Look::Long, cell }
    }
}

/// The lines of a table, its head first.
pub(crate) fn lines(columns: &[Column], items: &[Value], names: &Names, screen: &Screen) -> Vec<String> {
    let one_line = |text: String| printable(&text).replace(['\n', '\t'], " ");
    let row = |item: &Value| columns.iter().map(|column| one_line((column.cell)(item, names))).collect();
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    let widths = widths(columns, &rows, screen.width);
    let looks: Vec<Look> = columns.iter().map(|column| column.look).collect();
    let heads: Vec<String> = columns.iter().map(|column| column.head.to_owned()).collect();
    let plain: Vec<Look> = looks.iter().map(|look| if *look == Look::Word { Look::Text } else { *look }).collect();
    let head = screen.paint("1", &line(&heads, &plain, &widths, screen));
    std::iter::once(head).chain(rows.iter().map(|row| line(row, &looks, &widths, screen))).collect()
}

/// As wide as the widest cell; within `limit` as far as long columns can give way.
fn widths(columns: &[Column], rows: &[Vec<String>], limit: Option<usize>) -> Vec<usize> {
    let widest = |(at, column): (usize, &Column)| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([column.head.chars().count()]).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = columns.iter().enumerate().map(widest).collect();
    let Some(limit) = limit else { return widths };
    loop {
        let whole: usize = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let long = (0..widths.len()).filter(|at| columns[*at].look == Look::Long && widths[*at] > NARROWEST);
        match long.max_by_key(|at| widths[*at]) {
            Some(at) if whole > limit => widths[at] = widths[at].saturating_sub(whole - limit).max(NARROWEST),
            _ => return widths,
        }
    }
}

fn line(cells: &[String], looks: &[Look], widths: &[usize], screen: &Screen) -> String {
    let cell = |at: usize| {
        let (text, width) = (&cells[at], widths[at]);
        let length = text.chars().count();
        let pad = " ".repeat(width.saturating_sub(length));
        // No blanks behind the last column.
        let after = if at + 1 == cells.len() { "" } else { &pad };
        match looks[at] {
            Look::Number => format!("{pad}{text}"),
            Look::Word => screen.word(&format!("{text}{after}")),
            Look::Long if length > width => format!("{}…", text.chars().take(width - 1).collect::<String>()),
            Look::Text | Look::Long => format!("{text}{after}"),
        }
    };
    let cells: Vec<String> = (0..cells.len()).map(cell).collect();
    cells.join(&" ".repeat(GAP)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{number, text};
    use serde_json::json;

    const COLUMNS: &[Column] = &[
        Column::text("NAME", |item, _| text(item, "name").to_owned()),
        Column::number("FILES", |item, _| number(item, "files").to_string()),
        Column::long("ERROR", |item, _| text(item, "error").to_owned()),
        Column::text("ID", |item, _| text(item, "id").to_owned()),
    ];

    fn shown(width: Option<usize>, items: &[Value]) -> Vec<String> {
        lines(COLUMNS, items, &Names::default(), &Screen::of_width(width))
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let items = [json!({"name": "a", "files": 10, "id": "x1"}), json!({"name": "longer", "files": 9})];
        assert_eq!(shown(None, &items), ["NAME    FILES  ERROR  ID", "a          10         x1", "longer      9"]);
    }

    #[test]
    fn only_long_columns_give_way_to_the_terminal() {
        let items = [json!({"name": "a", "files": 1, "error": "e".repeat(100), "id": "0123456789"})];
        let lines = shown(Some(60), &items);
        assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
        assert!(lines[1].ends_with("0123456789") && lines[1].contains('…'), "{lines:#?}");
        // Nothing is cut that goes into a file, and nothing to less than can be read.
        assert!(shown(None, &items)[1].contains(&"e".repeat(100)));
        assert!(shown(Some(5), &items)[1].contains(&"e".repeat(NARROWEST - 1)));
    }

    #[test]
    fn a_cell_is_one_line_whatever_is_in_it() {
        let items = [json!({"name": "a\nb\x1b[2J", "error": "c\td"})];
        assert_eq!(shown(None, &items)[1], "a b\u{fffd}[2J      0  c d");
    }
}
