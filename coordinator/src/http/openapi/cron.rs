//! Crontab expressions as a regular expression: what a schedule takes, said in the document. It is made of the fields' bounds
//! and names, so that only what `fleet_wire::crontab` takes fits. That some dates never come, it can't say.

use fleet_wire::crontab::{Field, nicknames};
use std::ops::RangeInclusive;

/// The pattern of a whole expression.
pub(super) fn pattern() -> String {
    let names: Vec<String> = nicknames().map(any_case).collect();
    let fields: Vec<String> = Field::ALL.into_iter().map(field).collect();
    format!("^[ \\t]*({}|{})[ \\t]*$", names.join("|"), fields.join("[ \\t]+"))
}

/// One field: a list of items.
fn field(field: Field) -> String {
    let (low, high) = field.bounds();
    let step = "(/0*[1-9][0-9]*)?";
    let ranges: Vec<String> =
        (low..=high).map(|first| format!("{}-{}", value(field, first..=first), value(field, first..=high))).collect();
    let item = format!("(\\*{step}|{}|({}){step})", value(field, low..=high), ranges.join("|"));
    format!("{item}(,{item})*")
}

/// A number of `range`, or a name for one.
fn value(field: Field, range: RangeInclusive<u32>) -> String {
    let (low, _) = field.bounds();
    let place = |number: u32| usize::try_from(number - low).ok();
    let names = range.clone().filter_map(|number| field.names().get(place(number)?));
    let names: Vec<String> = names.map(|name| any_case(name)).collect();
    let numbers = format!("0*{}", number(range));
    if names.is_empty() { numbers } else { format!("({numbers}|{})", names.join("|")) }
}

/// A decimal number of `range`, which ends below 100, without zeros in front: digit by digit of the tens.
fn number(range: RangeInclusive<u32>) -> String {
    let (first, last) = range.into_inner();
    let of_tens = |tens: u32| {
        let low = if tens == first / 10 { first % 10 } else { 0 };
        let high = if tens == last / 10 { last % 10 } else { 9 };
        let tens = if tens == 0 { String::new() } else { tens.to_string() };
        if low == high { format!("{tens}{low}") } else { format!("{tens}[{low}-{high}]") }
    };
    let all: Vec<String> = (first / 10..=last / 10).map(of_tens).collect();
    format!("({})", all.join("|"))
}

/// A word in upper or lower case, or both.
fn any_case(word: &str) -> String {
    let letter = |letter: char| match letter.is_ascii_alphabetic() {
        true => format!("[{}{}]", letter.to_ascii_uppercase(), letter.to_ascii_lowercase()),
        false => letter.to_string(),
    };
    word.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_digit_by_digit() {
        assert_eq!(number(0..=7), "([0-7])");
        assert_eq!(number(5..=5), "(5)");
        assert_eq!(number(17..=31), "(1[7-9]|2[0-9]|3[0-1])");
        assert_eq!(number(8..=12), "([8-9]|1[0-2])");
    }

    #[test]
    fn names_stand_beside_their_numbers() {
        assert_eq!(value(Field::DayOfWeek, 6..=7), "(0*([6-7])|[Ss][Aa][Tt])");
        assert_eq!(value(Field::Month, 1..=1), "(0*(1)|[Jj][Aa][Nn])");
        assert_eq!(value(Field::Hour, 23..=23), "0*(23)");
    }
}
