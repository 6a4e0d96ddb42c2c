//! Where output goes: results to stdout, what is said on the way to stderr, bars only where there is a terminal.

use crate::failure::Failure;
use crate::human::printable;
use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::value::RawValue;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;
use std::{env, fmt};

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// The API's own JSON, one object a line; of a list, one line for each item.
    Json,
    /// Only the id (or the name, of what has none), one a line.
    Id,
}

/// The two streams.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    /// How results are shown.
    pub(crate) format: Format,
    /// Columns of the terminal that results go to; `None` if they go elsewhere.
    pub(crate) width: Option<usize>,
    /// Whether stderr is a terminal that can redraw lines.
    pub(crate) live: bool,
    colour: bool,
    bars: MultiProgress,
}

impl Screen {
    /// Looks at where the streams go.
    pub(crate) fn new(format: Format) -> Self {
        let smart = env::var("TERM").is_ok_and(|term| term != "dumb");
        let plain = env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        let width = stdout().is_terminal().then(|| usize::from(Term::stdout().size().1)).filter(|width| *width > 0);
        let live = stderr().is_terminal() && smart;
        Self { format, width, live, colour: width.is_some() && smart && !plain, bars: MultiProgress::new() }
    }

    /// One whose results go to a terminal of this width, or to a file.
    #[cfg(test)]
    pub(crate) fn of_width(width: Option<usize>) -> Self {
        Self { width, ..Self::default() }
    }

    /// Whether results are for people.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// A line of results.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(crate) fn line(&self, text: impl fmt::Display) -> Result<(), Failure> {
        let written = self.bars.suspend(|| {
            let mut out = stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        });
        Ok(written?)
    }

    /// JSON as the API gave it, on one line.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(crate) fn json(&self, text: &RawValue) -> Result<(), Failure> {
        self.line(text.get())
    }

    /// Something about what goes on.
    pub(crate) fn note(&self, text: &str) {
        // Nobody to hear it is no reason to stop.
        self.bars.suspend(|| drop(writeln!(stderr(), "fleet: {}", printable(text))));
    }

    /// Text in an ANSI colour, where results have colours.
    pub(crate) fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour && !colour.is_empty() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A word that says how something is, in the colour of that.
    pub(crate) fn word(&self, padded: &str) -> String {
        let colour = match padded.trim() {
            "succeeded" | "online" | "done" | "create" => "32",
            "failed" | "offline" | "halted" | "missed" | "lost" | "delete" => "31",
            "partial" | "cancelled" | "halting" | "cancelling" | "retrying" | "paused" | "refused" | "change" => "33",
            "running" => "36",
            _ => "",
        };
        self.paint(colour, padded)
    }

    /// A bar at the end of stderr; hidden where that is no terminal.
    pub(crate) fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.bars.add(ProgressBar::new(length)).with_style(style.progress_chars("=> "));
        if self.live {
            bar.enable_steady_tick(Duration::from_millis(125));
        }
        bar
    }
}
