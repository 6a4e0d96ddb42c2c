//! Checks of single values, which gather all that is wrong before anything is answered.

use super::problem::{FieldError, Problem};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The longest name of anything, in characters of up to four bytes: names stand in indexes, which take 2,700 bytes.
pub const NAME: usize = 255;
/// The longest single line, in characters.
pub const LINE: usize = 4096;
/// The longest hook, in characters.
pub const HOOK: usize = 64 * 1024;
/// How many labels a host may have.
pub const LABELS: usize = 64;
/// The highest bandwidth cap, in KiB a second: restic counts bytes in 64 bits.
pub const HIGHEST_CAP: i64 = 1 << 40;

/// What is wrong with a body, field by field.
#[derive(Debug, Default)]
pub struct Check {
    errors: Vec<FieldError>,
    /// Where in the body that stands which is looked at.
    under: String,
}

impl Check {
    /// Notes that something is wrong at `pointer`.
    pub fn wrong(&mut self, pointer: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(self.place(pointer), detail));
    }

    /// A pointer from the top of the body.
    pub fn place(&self, pointer: &str) -> String {
        format!("{}{pointer}", self.under)
    }

    /// Has `check` look at a part of the body: its pointers are those behind `pointer`.
    pub fn within<T>(&mut self, pointer: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.under.len();
        self.under.push_str(pointer);
        let found = check(self);
        self.under.truncate(outer);
        found
    }

    /// Nothing, if nothing was wrong.
    ///
    /// # Errors
    /// 422 with everything that was.
    pub fn done(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::invalid(self.errors)) }
    }

    /// A text of 1 to `longest` characters.
    pub fn filled(&mut self, pointer: &str, text: &str, longest: usize) {
        if text.is_empty() {
            self.wrong(pointer, "can't be empty");
        } else {
            self.short(pointer, text, longest);
        }
    }

    /// A text of up to `longest` characters, as JSON Schema counts.
    pub fn short(&mut self, pointer: &str, text: &str, longest: usize) {
        if text.chars().nth(longest).is_some() {
            self.wrong(pointer, format!("may have {longest} characters"));
        }
    }

    /// A text that fits on one line and has no white space around it.
    pub fn line(&mut self, pointer: &str, text: &str, longest: usize) {
        self.filled(pointer, text, longest);
        if text.chars().any(char::is_control) {
            self.wrong(pointer, "can't hold control characters");
        } else if text.trim() != text {
            self.wrong(pointer, "can't begin or end with white space");
        }
    }

    /// A whole number within `range`.
    pub fn number(&mut self, pointer: &str, number: i64, range: std::ops::RangeInclusive<i64>) {
        if !range.contains(&number) {
            self.wrong(pointer, format!("must be from {} to {}", range.start(), range.end()));
        }
    }

    /// A bandwidth cap in KiB a second; 0 is none.
    pub fn cap(&mut self, pointer: &str, cap: i64) {
        self.number(pointer, cap, 0..=HIGHEST_CAP);
    }

    /// Labels: a name can't hold `=`, which ends it in a filter.
    pub fn labels(&mut self, pointer: &str, labels: &BTreeMap<String, String>) {
        if labels.len() > LABELS {
            self.wrong(pointer, format!("may have {LABELS} labels"));
        }
        for (name, value) in labels {
            let pointer = format!("{pointer}/{}", super::body::escaped(name));
            self.line(&pointer, name, NAME);
            self.short(&pointer, value, NAME);
            if name.contains('=') {
                self.wrong(&pointer, "a label's name can't hold =");
            }
        }
    }

    /// An id that a body refers to.
    pub fn id(&mut self, pointer: &str, what: &str, text: &str) -> Option<Uuid> {
        let id = parse_id(text);
        if id.is_none() {
            self.wrong(pointer, format!("there is no {what} with this id"));
        }
        id
    }
}

/// Ids are opaque: one that we can't have made is simply not there.
fn parse_id(text: &str) -> Option<Uuid> {
    Uuid::parse_str(text).ok().filter(|id| id.to_string() == text)
}

/// The id in a path.
///
/// # Errors
/// 404.
pub fn path_id(what: &str, text: &str) -> Result<Uuid, Problem> {
    parse_id(text).ok_or_else(|| no(what))
}

/// 404: there is no such `what`.
pub fn no(what: &str) -> Problem {
    Problem::not_found(format!("there is no {what} with this id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_gathered() {
        let mut check = Check::default();
        check.line("/a", "", NAME);
        check.line("/b", " x", NAME);
        check.line("/c", "x\ny", NAME);
        check.cap("/d", -1);
        check.labels("/e", &BTreeMap::from([("a=b".to_owned(), String::new())]));
        check.line("/fine", "x y", NAME);
        check.cap("/fine", 0);
        let problem = check.done().expect_err("wrong");
        let pointers: Vec<_> = problem.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a", "/b", "/c", "/d", "/e/a=b"]);
    }

    #[test]
    fn parts_of_a_body_are_pointed_at_from_its_top() {
        let mut check = Check::default();
        check.within("/a", |check| {
            check.within("/0", |check| check.wrong("/b", "is bad"));
            check.wrong("/c", "is bad");
        });
        check.wrong("/d", "is bad");
        let problem = check.done().expect_err("wrong");
        let pointers: Vec<_> = problem.errors().iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a/0/b", "/a/c", "/d"]);
    }

    #[test]
    fn only_the_spelling_that_we_give_out_is_an_id() {
        let id = Uuid::new_v4();
        assert_eq!(path_id("host", &id.to_string()), Ok(id));
        for other in [id.simple().to_string(), id.to_string().to_uppercase() + " ", "x".to_owned(), String::new()] {
            assert!(path_id("host", &other).is_err(), "{other}");
        }
    }
}
