//! Why an expression is refused, and where.

use std::fmt;
use thiserror::Error;

/// One of the five fields, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the field of that name in crontab(5)")]
pub enum Field {
    Minute,
    Hour,
    DayOfMonth,
    Month,
    DayOfWeek,
}

impl Field {
    /// All five, in their order.
    pub const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::DayOfMonth, Self::Month, Self::DayOfWeek];

    /// The lowest and the highest number that may stand in it. Sunday is both 0 and 7.
    pub fn bounds(self) -> (u32, u32) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    /// The names that stand for its numbers, from the lowest on.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
            Self::DayOfWeek => &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
            Self::Minute | Self::Hour | Self::DayOfMonth => &[],
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of month",
            Self::Month => "month",
            Self::DayOfWeek => "day of week",
        })
    }
}

/// Why an expression is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("position {position}{}: {reason}", InField(*.field))]
pub struct ParseError {
    /// Where, as the number of characters (which are bytes: all before it was understood) in front of it.
    pub position: usize,
    /// In which field, if it is about one.
    pub field: Option<Field>,
    /// What is wrong there.
    pub reason: Reason,
}

struct InField(Option<Field>);

impl fmt::Display for InField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |field| write!(f, " ({field})"))
    }
}

/// What is wrong with an expression.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Reason {
    /// Nothing but blanks.
    #[error("the expression is empty: give five fields, or a name such as @daily")]
    Empty,
    /// Fields are missing at the end.
    #[error("five fields are needed (minute, hour, day of month, month, day of week), there are {found}")]
    TooFewFields {
        /// How many there are.
        found: usize,
    },
    /// Something stands behind the fifth field, or behind a name such as `@daily`.
    #[error("the expression ends before this: there is no field for seconds, years or a command")]
    TooManyFields,
    /// A word with `@` that means nothing.
    #[error("there are only @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually")]
    UnknownNickname,
    /// `@reboot`, which says nothing about time.
    #[error("@reboot is no time that could be computed")]
    Reboot,
    /// A list, range or step ends too early.
    #[error("something is missing here")]
    Missing,
    /// A character that can't stand there.
    #[error("{0:?} can't stand here")]
    Unexpected(char),
    /// A word that is neither a number nor, where there are some, a name.
    #[error("{}", name_hint(*.0))]
    UnknownName(Field),
    /// A number that the field does not have.
    #[error("out of range, {low} to {high} are allowed")]
    OutOfRange {
        /// The lowest number of the field.
        low: u32,
        /// The highest.
        high: u32,
    },
    /// A range that ends before it begins. Debian's cron takes it and never fires.
    #[error("the range runs backwards from {first} to {last}: write it as two{}", sunday_hint(*.last))]
    Backwards {
        /// Where it begins.
        first: u32,
        /// Where it ends.
        last: u32,
    },
    /// `5/10`. Debian's cron refuses it too; others differ in what it means.
    #[error("a step needs a range or *: write {first}-{high}/… or */…")]
    StepWithoutRange {
        /// The single number in front of the step.
        first: u32,
        /// The highest number of the field.
        high: u32,
    },
    /// `*/0`.
    #[error("a step must be 1 or more")]
    ZeroStep,
    /// `*/5m`, `*/mon`.
    #[error("a step must be a number")]
    StepNotANumber,
    /// Such as 30 February.
    #[error("never fires: none of the months has such a day")]
    NeverFires,
}

fn name_hint(field: Field) -> &'static str {
    match field {
        Field::Month => "no month: write 1 to 12, or jan to dec (three letters)",
        Field::DayOfWeek => "no day of the week: write 0 to 7, or sun to sat (three letters)",
        Field::Minute | Field::Hour | Field::DayOfMonth => "no number",
    }
}

fn sunday_hint(last: u32) -> &'static str {
    if last == 0 { " (a Sunday that ends a range is 7)" } else { "" }
}
