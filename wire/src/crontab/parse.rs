//! From the text of five fields to sets of numbers, by the grammar of Debian's crontab(5).
//!
//! ```text
//! field = item { "," item }        item = value | ( "*" | value "-" value ) [ "/" step ]
//! ```
//! A value is a number or, for months and weekdays, a name; Debian's cron takes names in lists and ranges too, whatever
//! its manual says. Where that cron shrugs (characters behind a value that it does not understand, ranges that run
//! backwards), the expression is refused here: it does not mean what was meant.

use super::calendar::Calendar;
use super::error::{Field, ParseError, Reason};

/// The names for whole expressions, and what they stand for.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// The names for whole expressions.
pub fn nicknames() -> impl Iterator<Item = &'static str> {
    NICKNAMES.into_iter().map(|(nickname, _)| nickname)
}

/// What an expression says.
pub(super) struct Parsed {
    pub(super) calendar: Calendar,
    /// Minute or hour begin with `*`.
    pub(super) keeps_rhythm: bool,
}

/// Reads a whole expression.
pub(super) fn parse(expression: &str) -> Result<Parsed, ParseError> {
    let words: Vec<_> = words(expression).collect();
    let Some(&(position, first)) = words.first() else {
        return Err(ParseError { position: 0, field: None, reason: Reason::Empty });
    };
    if !first.starts_with('@') {
        return fields(&words);
    }
    let refused = |position, reason| Err(ParseError { position, field: None, reason });
    match NICKNAMES.into_iter().find(|(nickname, _)| nickname.eq_ignore_ascii_case(first)) {
        None if first.eq_ignore_ascii_case("@reboot") => refused(position, Reason::Reboot),
        None => refused(position, Reason::UnknownNickname),
        Some(_) if words.len() > 1 => refused(words[1].0, Reason::TooManyFields),
        Some((_, meaning)) => parse(meaning),
    }
}

/// The words between blanks, each with its place.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut position = 0;
    text.split([' ', '\t']).filter_map(move |word| {
        let start = position;
        position += word.len() + 1;
        (!word.is_empty()).then_some((start, word))
    })
}

fn fields(words: &[(usize, &str)]) -> Result<Parsed, ParseError> {
    let mut sets = [0; 5];
    for ((set, field), &(position, word)) in sets.iter_mut().zip(Field::ALL).zip(words) {
        *set = Cursor { rest: word, position, field }.list()?;
    }
    let word = |field: Field| words.get(field as usize).copied();
    let begins_with_star = |field| word(field).is_some_and(|(_, word)| word.starts_with('*'));
    let refused = |(position, _): (usize, &str), field, reason| Err(ParseError { position, field, reason });
    if let Some(&sixth) = words.get(Field::ALL.len()) {
        return refused(sixth, None, Reason::TooManyFields);
    }
    let Some(&missing) = Field::ALL.get(words.len()) else {
        let [minutes, hours, days, months, weekdays] = sets;
        let either_day = !begins_with_star(Field::DayOfMonth) && !begins_with_star(Field::DayOfWeek);
        let calendar = Calendar::new(minutes, hours, days, months, weekdays, either_day);
        return match word(Field::DayOfMonth) {
            Some(days) if !calendar.ever() => refused(days, Some(Field::DayOfMonth), Reason::NeverFires),
            _ => {
                Ok(Parsed { calendar, keeps_rhythm: begins_with_star(Field::Minute) || begins_with_star(Field::Hour) })
            }
        };
    };
    let end = words.last().map_or(0, |(position, word)| position + word.len());
    refused((end, ""), Some(missing), Reason::TooFewFields { found: words.len() })
}

/// The rest of a field's text.
struct Cursor<'a> {
    rest: &'a str,
    /// The place of `rest` in the expression.
    position: usize,
    field: Field,
}

impl<'a> Cursor<'a> {
    /// The whole field, as a set with one bit a number.
    fn list(&mut self) -> Result<u64, ParseError> {
        let mut set = self.item()?;
        while self.eat(',') {
            set |= self.item()?;
        }
        if self.rest.is_empty() { Ok(set) } else { Err(self.stuck()) }
    }

    fn item(&mut self) -> Result<u64, ParseError> {
        let (low, high) = self.field.bounds();
        let (first, last) = if self.eat('*') {
            (low, high)
        } else {
            let first = self.value()?;
            if self.rest.starts_with('/') {
                return Err(self.refused(self.position, Reason::StepWithoutRange { first, high }));
            }
            if !self.eat('-') {
                return Ok(1 << first);
            }
            (first, self.end_of_range(first)?)
        };
        let step = if self.eat('/') { self.step()? } else { 1 };
        Ok((first..=last).step_by(step).fold(0, |set, number| set | 1 << number))
    }

    fn value(&mut self) -> Result<u32, ParseError> {
        let (low, high) = self.field.bounds();
        let start = self.position;
        let word = self.word()?;
        if let Some(place) = self.field.names().iter().position(|name| name.eq_ignore_ascii_case(word)) {
            return Ok(low + place as u32);
        }
        match number(word) {
            Some(number) if (low..=high).contains(&number) => Ok(number),
            Some(_) => Err(self.refused(start, Reason::OutOfRange { low, high })),
            None => Err(self.refused(start, Reason::UnknownName(self.field))),
        }
    }

    fn end_of_range(&mut self, first: u32) -> Result<u32, ParseError> {
        let start = self.position;
        let last = self.value()?;
        if first <= last { Ok(last) } else { Err(self.refused(start, Reason::Backwards { first, last })) }
    }

    fn step(&mut self) -> Result<usize, ParseError> {
        let start = self.position;
        match number(self.word()?) {
            Some(0) => Err(self.refused(start, Reason::ZeroStep)),
            Some(step) => Ok(step as usize),
            None => Err(self.refused(start, Reason::StepNotANumber)),
        }
    }

    /// The letters and digits that come next, at least one.
    fn word(&mut self) -> Result<&'a str, ParseError> {
        let length = self.rest.find(|next: char| !next.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        if length == 0 {
            return Err(self.stuck());
        }
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.position += length;
        Ok(word)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(wanted) else { return false };
        self.rest = rest;
        self.position += wanted.len_utf8();
        true
    }

    /// Nothing can be made of what comes next.
    fn stuck(&self) -> ParseError {
        self.refused(self.position, self.rest.chars().next().map_or(Reason::Missing, Reason::Unexpected))
    }

    fn refused(&self, position: usize, reason: Reason) -> ParseError {
        ParseError { position, field: Some(self.field), reason }
    }
}

/// A decimal number; the highest there is for one that is higher still.
fn number(word: &str) -> Option<u32> {
    word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::*;

    fn sets(expression: &str) -> Calendar {
        parse(expression).unwrap_or_else(|error| panic!("{expression}: {error}")).calendar
    }

    fn refusal(expression: &str) -> (usize, Option<Field>, Reason) {
        let error = parse(expression).err().unwrap_or_else(|| panic!("{expression} is taken"));
        (error.position, error.field, error.reason)
    }

    #[test]
    fn different_ways_to_say_the_same() {
        for (one, other) in [
            ("*/15 * * * *", "0,15,30,45 * * * *"),
            ("*/1 * * * *", "* * * * *"),
            ("0-10/20 * * * *", "0 * * * *"),
            ("*/90 * * * *", "0 * * * *"),
            ("1-9/2 * * * *", "1,3,5,7,9 * * * *"),
            ("05 007 * * *", "5 7 * * *"),
            ("*,5 * * * *", "* * * * *"),
            ("  0\t2  * *  * ", "0 2 * * *"),
            ("0 2 * * 7", "0 2 * * 0"),
            ("0 2 * * SUN", "0 2 * * 0"),
            ("0 2 * * 5-7", "0 2 * * 0,5,6"),
            ("0 2 * * 0-7", "0 2 * * *"),
            ("0 2 * * */7", "0 2 * * 0-0"),
            ("0 2 * jan,Mar-MAY/2 mon-fri", "0 2 * 1,3,5 1-5"),
            ("0 2 * jan-3 *", "0 2 * 1-3 *"),
            ("@hourly", "0 * * * *"),
            ("@Daily", "0 0 * * *"),
            (" @midnight ", "@daily"),
            ("@weekly", "0 0 * * sun"),
            ("@monthly", "0 0 1 * *"),
            ("@yearly", "0 0 1 jan *"),
            ("@annually", "@yearly"),
        ] {
            // Which fields begin with `*` is another matter: the first of a pair may, the second not.
            assert!(sets(one).has_same_times(&sets(other)), "{one} and {other}");
        }
    }

    #[test]
    fn minutes_or_hours_that_begin_with_a_star_keep_their_rhythm() {
        for (expression, keeps_rhythm) in [
            ("* 2 * * *", true),
            ("*/15 2 * * *", true),
            ("*/30,5 2 * * *", true),
            ("0 * * * *", true),
            ("0 */2 * * *", true),
            ("@hourly", true),
            ("0-59 0-23 * * *", false),
            ("5,*/30 2 * * *", false),
            ("0 2 * * *", false),
            ("@daily", false),
        ] {
            assert_eq!(parse(expression).expect(expression).keeps_rhythm, keeps_rhythm, "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        use Field::*;
        let minute = OutOfRange { low: 0, high: 59 };
        for (expression, position, field, reason) in [
            ("", 0, None, Empty),
            (" \t ", 0, None, Empty),
            ("0 2 * *", 7, Some(DayOfWeek), TooFewFields { found: 4 }),
            (" 5  ", 2, Some(Hour), TooFewFields { found: 1 }),
            ("0 0 2 * * *", 10, None, TooManyFields),
            ("0 2 * * * /bin/true", 10, None, TooManyFields),
            ("@daily *", 7, None, TooManyFields),
            ("@often", 0, None, UnknownNickname),
            ("@", 0, None, UnknownNickname),
            (" @reboot", 1, None, Reboot),
            ("60 2 * * *", 0, Some(Minute), minute),
            ("99999999999999999999 2 * * *", 0, Some(Minute), minute),
            ("0 24 * * *", 2, Some(Hour), OutOfRange { low: 0, high: 23 }),
            ("0 2 0 * *", 4, Some(DayOfMonth), OutOfRange { low: 1, high: 31 }),
            ("0 2 1-32 * *", 6, Some(DayOfMonth), OutOfRange { low: 1, high: 31 }),
            ("0 2 * 13 *", 6, Some(Month), OutOfRange { low: 1, high: 12 }),
            ("0 2 * * 8", 8, Some(DayOfWeek), OutOfRange { low: 0, high: 7 }),
            ("0, 2 * * *", 2, Some(Minute), Missing),
            (",0 2 * * *", 0, Some(Minute), Unexpected(',')),
            ("0,,1 2 * * *", 2, Some(Minute), Unexpected(',')),
            ("1- 2 * * *", 2, Some(Minute), Missing),
            ("*/ 2 * * *", 2, Some(Minute), Missing),
            ("-5 2 * * *", 0, Some(Minute), Unexpected('-')),
            ("5-7-9 2 * * *", 3, Some(Minute), Unexpected('-')),
            ("*/2/3 2 * * *", 3, Some(Minute), Unexpected('/')),
            ("*5 2 * * *", 1, Some(Minute), Unexpected('5')),
            ("*-5 2 * * *", 1, Some(Minute), Unexpected('-')),
            ("0 2 ? * *", 4, Some(DayOfMonth), Unexpected('?')),
            ("0 2 * * 5#3", 9, Some(DayOfWeek), Unexpected('#')),
            ("0 2 ½ * *", 4, Some(DayOfMonth), Unexpected('½')),
            ("0 2 * * *\n", 9, Some(DayOfWeek), Unexpected('\n')),
            ("0 2 L * *", 4, Some(DayOfMonth), UnknownName(DayOfMonth)),
            ("0 2 * january *", 6, Some(Month), UnknownName(Month)),
            ("0 2 * mon *", 6, Some(Month), UnknownName(Month)),
            ("0 2 * * mon-x", 12, Some(DayOfWeek), UnknownName(DayOfWeek)),
            ("0 2 * * 5L", 8, Some(DayOfWeek), UnknownName(DayOfWeek)),
            ("*/0 2 * * *", 2, Some(Minute), ZeroStep),
            ("*/5m 2 * * *", 2, Some(Minute), StepNotANumber),
            ("0 2 * */mar *", 8, Some(Month), StepNotANumber),
            ("5/10 2 * * *", 1, Some(Minute), StepWithoutRange { first: 5, high: 59 }),
            ("0 22-4 * * *", 5, Some(Hour), Backwards { first: 22, last: 4 }),
            ("0 2 * * sat-sun", 12, Some(DayOfWeek), Backwards { first: 6, last: 0 }),
        ] {
            assert_eq!(refusal(expression), (position, field, reason), "{expression:?}");
        }
    }

    #[test]
    fn dates_that_never_come_are_refused() {
        for never in ["0 2 30 2 *", "0 2 31 4,jun,9,11 *", "0 2 30,31 feb */2", "0 2 30-31 2 *,1"] {
            assert_eq!(refusal(never), (4, Some(Field::DayOfMonth), NeverFires), "{never}");
        }
        for sometimes in ["0 2 29 2 *", "0 2 29 2 */7", "0 2 30 2 1", "0 2 31 2-3 *", "0 2 */30,30 2 *"] {
            assert!(parse(sometimes).is_ok(), "{sometimes}");
        }
    }

    #[test]
    fn errors_are_sentences() {
        let said = |expression: &str| parse(expression).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(said("0 25 * * *"), "position 2 (hour): out of range, 0 to 23 are allowed");
        assert_eq!(
            said("0 2 * * sat-sun"),
            "position 12 (day of week): the range runs backwards from 6 to 0: write it as two \
             (a Sunday that ends a range is 7)"
        );
        assert_eq!(said("5/10 * * * *"), "position 1 (minute): a step needs a range or *: write 5-59/… or */…");
        assert_eq!(said("@reboot"), "position 0: @reboot is no time that could be computed");
    }
}
