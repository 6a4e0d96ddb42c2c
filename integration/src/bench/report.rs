//! What a benchmark found: figures beside their floors, and the table and JSON of them.

use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// The ratio of figure and floor must not be less.
    RatioAtLeast(f64),
    /// The ratio must not be more.
    RatioAtMost(f64),
    /// The figure itself must not be more.
    FigureAtMost(f64),
    /// For information.
    None,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// The unit of figure and floor.
    pub unit: &'static str,
    /// The median over the rounds.
    pub figure: f64,
    /// What it is compared with.
    pub floor_is: String,
    /// The median of that.
    pub floor: Option<f64>,
    /// The median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// The smallest and the largest of them.
    pub spread: Option<(f64, f64)>,
    /// Every round as it was measured: the figure, and the floor if there is one.
    pub rounds: Vec<(f64, Option<f64>)>,
    /// What is wanted.
    pub goal: Goal,
    /// Whether it was reached; nothing where there is no goal.
    pub met: Option<bool>,
}

/// Figure and floor of one round, measured one right after the other.
pub(super) type Round = (f64, f64);

impl Row {
    /// A figure beside its floor, from interleaved rounds.
    pub(super) fn beside(
        what: impl Into<String>,
        unit: &'static str,
        rounds: &[Round],
        floor_is: &str,
        goal: Goal,
    ) -> Self {
        let ratios: Vec<f64> = rounds.iter().map(|(figure, floor)| figure / floor).collect();
        let figure = median(rounds.iter().map(|round| round.0));
        let ratio = median(ratios.iter().copied());
        let ends = ratios.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), at| (low.min(*at), high.max(*at)));
        Self {
            what: what.into(),
            unit,
            figure,
            floor_is: floor_is.to_owned(),
            floor: Some(median(rounds.iter().map(|round| round.1))),
            ratio: Some(ratio),
            spread: Some(ends),
            rounds: rounds.iter().map(|(figure, floor)| (*figure, Some(*floor))).collect(),
            goal,
            met: goal.met(figure, Some(ratio)),
        }
    }

    /// A figure by itself.
    pub(super) fn alone(what: impl Into<String>, unit: &'static str, figures: &[f64], goal: Goal) -> Self {
        let figure = median(figures.iter().copied());
        Self {
            what: what.into(),
            unit,
            figure,
            floor_is: String::new(),
            floor: None,
            ratio: None,
            spread: None,
            rounds: figures.iter().map(|figure| (*figure, None)).collect(),
            goal,
            met: goal.met(figure, None),
        }
    }
}

impl Goal {
    fn met(self, figure: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::RatioAtLeast(least) => ratio.map(|ratio| ratio >= least),
            Self::RatioAtMost(most) => ratio.map(|ratio| ratio <= most),
            Self::FigureAtMost(most) => Some(figure <= most),
            Self::None => None,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::RatioAtLeast(least) => format!("≥ {least} ×"),
            Self::RatioAtMost(most) => format!("≤ {most} ×"),
            Self::FigureAtMost(most) => format!("≤ {most} {unit}"),
            Self::None => String::new(),
        }
    }
}

/// The middle value; of two middle ones the mean.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Durations of the same thing, to take percentiles of.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Adds one.
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// Adds those of another run.
    pub(super) fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// The one that `share` of them do not exceed, in milliseconds.
    pub(super) fn millis(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// A number with three significant digits, and thousands set apart.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

/// The rows as a table in Markdown, which is readable as it stands.
pub fn table(rows: &[Row]) -> String {
    let head = ["what", "figure", "floor", "ratio", "spread", "goal", "met"].map(str::to_owned);
    let mut lines = vec![head];
    for row in rows {
        let floor = row.floor.map(|floor| format!("{} {} ({})", short(floor), row.unit, row.floor_is));
        let spread = row.spread.filter(|_| row.rounds.len() > 1);
        lines.push([
            row.what.clone(),
            format!("{} {}", short(row.figure), row.unit),
            floor.unwrap_or_default(),
            row.ratio.map(short).unwrap_or_default(),
            spread.map(|(low, high)| format!("{}–{}", short(low), short(high))).unwrap_or_default(),
            row.goal.text(row.unit),
            row.met.map(|met| if met { "yes" } else { "NO" }).unwrap_or_default().to_owned(),
        ]);
    }
    let widths: Vec<usize> =
        (0..7).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} "); // a String takes everything
        }
        text.push_str("|\n");
        if index == 0 {
            widths.iter().for_each(|width| text.push_str(&format!("|{}", "-".repeat(width + 2))));
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_and_not_of_the_medians() {
        let rounds = [(10.0, 100.0), (40.0, 100.0), (90.0, 300.0)];
        let row = Row::beside("x", "/s", &rounds, "y", Goal::RatioAtLeast(0.3));
        assert_eq!((row.ratio, row.spread, row.met), (Some(0.3), Some((0.1, 0.4)), Some(true)));
        assert_eq!(Row::alone("x", "ms", &[3.0, 1.0], Goal::FigureAtMost(1.9)).met, Some(false));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|millis| latencies.add(Duration::from_millis(millis)));
        assert_eq!([0.5, 0.99, 1.0].map(|share| latencies.millis(share)), [50.0, 99.0, 100.0]);
        assert!(Latencies::default().millis(0.5).is_nan());
    }

    #[test]
    fn numbers_are_short_and_columns_align() {
        let said = [0.01234, 1.5, 12.345, 999.6, 1_234_567.0].map(short);
        assert_eq!(said, ["0.012", "1.50", "12.3", "1 000", "1 234 567"]);
        let rows = [Row::alone("a", "ms", &[1.0], Goal::None), Row::alone("longer", "ms", &[1.0], Goal::None)];
        let text = table(&rows);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
