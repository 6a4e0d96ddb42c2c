//! What the demo prints: 80 columns, colour and signs only where the terminal has them.

use std::env;
use std::io::{IsTerminal, Write, stdout};

/// Cells of a progress bar.
const BAR: usize = 24;

/// Where the demo is shown.
#[derive(Debug)]
pub(crate) struct Screen {
    /// True if lines can be drawn again.
    pub(crate) live: bool,
    unicode: bool,
}

impl Screen {
    /// Looks at where stdout goes and at the locale.
    pub(crate) fn new() -> Self {
        let live = stdout().is_terminal() && env::var("TERM").is_ok_and(|term| term != "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| env::var(name).ok());
        let unicode = locale.is_some_and(|locale| locale.to_lowercase().replace('-', "").contains("utf8"));
        Self { live, unicode }
    }

    /// A line as it is.
    #[allow(clippy::print_stdout, reason = "the demo's output")]
    pub(crate) fn line(&self, text: &str) {
        println!("{text}");
        let _ = stdout().flush();
    }

    /// The start of a part.
    pub(crate) fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.paint("1", text)));
    }

    /// A step that is done: what, and something about it.
    pub(crate) fn done(&self, what: &str, about: &str) {
        self.line(&format!("  {} {what:<14} {about}", self.paint("32", self.tick())));
    }

    /// A failure.
    pub(crate) fn bad(&self, text: &str) {
        self.line(&self.paint("31", text));
    }

    /// The sign of what went well.
    pub(crate) fn tick(&self) -> &'static str {
        if self.unicode { "✓" } else { "+" }
    }

    /// Text in an ANSI colour, where there are colours.
    pub(crate) fn paint(&self, colour: &str, text: &str) -> String {
        if self.live { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A progress bar for a fraction of 0 to 1.
    pub(crate) fn bar(&self, fraction: f64) -> String {
        let (full, empty) = if self.unicode { ("█", "░") } else { ("#", ".") };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and BAR")]
        let cells = (fraction.clamp(0.0, 1.0) * BAR as f64).round() as usize;
        format!("{}{}", full.repeat(cells), empty.repeat(BAR - cells))
    }
}

/// Bytes for people: `1.5 MiB`.
pub(crate) fn bytes(count: i64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A number with its noun: `1 file`, `2 files`.
pub(crate) fn count(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Lines of a table whose columns are as wide as their widest cell; those named in `right` are numbers.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(column, text): (usize, &String)| {
            let width = widths[column];
            if right.contains(&column) { format!("{text:>width$}") } else { format!("{text:<width$}") }
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        format!("  {}", cells.join("  ")).trim_end().to_owned()
    };
    all.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1 << 30), "1.0 GiB");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["long".to_owned(), "9".to_owned()]];
        assert_eq!(table(&["name", "n"], &rows, &[1]), ["  name   n", "  a     10", "  long   9"]);
    }

    #[test]
    fn bars_have_one_width() {
        let screen = Screen { live: false, unicode: false };
        assert!([-1.0, 0.0, 0.5, 1.0, 7.0].iter().all(|fraction| screen.bar(*fraction).len() == BAR));
    }
}
