//! Lists that come in pages. A cursor names the place behind the last item, so that a page neither repeats nor misses
//! what stays in the list while others come and go.

use super::params::{Params, bad_param};
use super::problem::Problem;
use chrono::DateTime;
use fleet_wire::Timestamp;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How many items a page has at most, and unless the client says.
const MOST: i64 = 500;
const USUAL: i64 = 100;

/// The names of the parameters that pages take.
pub const LIMIT: &str = "limit";
/// See [`LIMIT`].
pub const CURSOR: &str = "cursor";

/// What the document says of the pages of a list whose cursors are like that.
macro_rules! page_params {
    ($($(#[$about:meta])* $name:ident: $cursor:literal;)+) => {
        $(
            $(#[$about])*
            #[derive(IntoParams)]
            #[into_params(parameter_in = Query)]
            #[allow(dead_code, reason = "only for the document")]
            pub struct $name {
                /// How many items the page has at most; 100 unless it is said.
                #[param(minimum = 1, maximum = 500)]
                limit: Option<i64>,
                /// `next_cursor` of the page before.
                #[param(pattern = $cursor)]
                cursor: Option<String>,
            }
        )+
    };
}

page_params! {
    /// Pages of what is sorted by a time and an id.
    PageOfTimes: "^([0-9a-f]{48})?$";
    /// Pages of what is sorted by a name.
    PageOfNames: "^([0-9a-f]{2})*$";
    /// Pages of what is sorted by an id.
    PageOfIds: "^([0-9a-f]{32})?$";
    /// Pages of what is numbered.
    PageOfNumbers: "^([0-9a-f]{16})?$";
    /// Pages of what is sorted by a time that may be missing, and a name.
    PageOfSnapshots: "^(00([0-9a-f]{2})*|01[0-9a-f]{16}([0-9a-f]{2})*)?$";
    /// Pages of what is sorted by a time, an id and a name.
    PageOfOverdue: "^([0-9a-f]{48}([0-9a-f]{2})*)?$";
}

/// Which page a client asks for; `K` is what the list is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<K> {
    limit: i64,
    /// The place behind which it begins.
    pub after: Option<K>,
}

/// A page as clients see it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The cursor of the next page; `null` on the last.
    pub next_cursor: Option<String>,
}

impl<K: Key> Page<K> {
    /// Reads `limit` and `cursor`.
    ///
    /// # Errors
    /// 400 if one of them is wrong.
    pub fn of(params: &Params) -> Result<Self, Problem> {
        let limit = params.number(LIMIT, 1..=MOST)?.unwrap_or(USUAL);
        let after = match params.one(CURSOR)? {
            None | Some("") => None,
            Some(cursor) => Some(decode(cursor).ok_or_else(|| {
                bad_param(CURSOR, "is none of this list's: take next_cursor of the page before, or leave it out")
            })?),
        };
        Ok(Self { limit, after })
    }

    /// How many rows to read: one more than the page has, to know whether another follows.
    pub fn rows(&self) -> i64 {
        self.limit + 1
    }

    /// The page, of the rows that were read.
    pub fn list<R, T>(&self, mut rows: Vec<R>, key: impl FnOnce(&R) -> K, item: impl FnMut(R) -> T) -> List<T> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&key(last)));
        List { items: rows.into_iter().map(item).collect(), next_cursor }
    }
}

/// What a list is sorted by, as bytes. Any bytes of the right number are a place in the list, so that a cursor is good or bad
/// by its form alone.
pub trait Key: Sized {
    /// Adds itself to `bytes`.
    fn write(&self, bytes: &mut Vec<u8>);

    /// Takes one off the front of `bytes`, if there are enough.
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

impl Key for Uuid {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.as_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_bytes)
    }
}

impl Key for i64 {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_be_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(Self::from_be_bytes)
    }
}

/// As the database keeps it: to the microsecond, from the year 1 to the year 9999.
impl Key for Timestamp {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.timestamp_micros().write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        const FIRST: i64 = -62_135_596_800_000_000;
        const LAST: i64 = 253_402_300_799_999_999;
        DateTime::from_timestamp_micros(i64::read(bytes)?.clamp(FIRST, LAST))
    }
}

/// All that is left. A NUL can't be in the database, so no cursor of ours holds one.
impl Key for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.as_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self::from_utf8_lossy(std::mem::take(bytes)).replace('\0', ""))
    }
}

impl<K: Key> Key for Option<K> {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(self.is_some().into());
        self.iter().for_each(|key| key.write(bytes));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        match take(bytes)? {
            [0] => Some(None),
            [1] => K::read(bytes).map(Some),
            _ => None,
        }
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }
}

impl<A: Key, B: Key, C: Key> Key for (A, B, C) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
        self.2.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?, C::read(bytes)?))
    }
}

/// Hexadecimal, so that it needs no escaping in a URL.
fn encode(key: &impl Key) -> String {
    let mut bytes = Vec::new();
    key.write(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode<K: Key>(cursor: &str) -> Option<K> {
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if !cursor.len().is_multiple_of(2) || !cursor.as_bytes().iter().all(is_digit) {
        return None;
    }
    let digits = (0..cursor.len()).step_by(2).map(|at| u8::from_str_radix(&cursor[at..at + 2], 16).ok());
    let bytes: Vec<u8> = digits.collect::<Option<_>>()?;
    let mut rest = &bytes[..];
    K::read(&mut rest).filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Place = (i64, String);

    fn page(limit: i64, after: Option<Place>) -> Page<Place> {
        Page { limit, after }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let place: Place = (-3, "ä/\"".to_owned());
        assert_eq!(decode::<Place>(&encode(&place)), Some(place));
        let (at, id) = (Timestamp::from_timestamp_micros(1_790_000_000_123_456).expect("a time"), Uuid::from_u128(7));
        let key = ((at, id), Some(at));
        assert_eq!(decode(&encode(&key)), Some(key));
        assert_eq!(decode(&encode(&((None::<Timestamp>), "x".to_owned()))), Some((None::<Timestamp>, "x".to_owned())));
        for bad in ["x", "zz", "é", "7b7d", "5B5D5B5D5B5D5B5D", "+1+1+1+1+1+1+1+1"] {
            assert_eq!(decode::<Place>(bad), None, "{bad}");
        }
        assert_eq!(decode::<Uuid>(&"0".repeat(34)), None, "longer than it can be");
    }

    #[test]
    fn any_bytes_are_a_place() {
        for digit in ["00", "7f", "80", "ff"] {
            let (at, _): (Timestamp, Uuid) = decode(&digit.repeat(24)).expect("a place");
            assert!((1..=9999).contains(&chrono::Datelike::year(&at)), "{at}");
            assert!(decode::<String>(&digit.repeat(3)).is_some_and(|name| !name.contains('\0')));
        }
    }

    #[test]
    fn a_page_has_a_cursor_only_if_another_follows() {
        let key = |number: &i64| (*number, String::new());
        let list = page(2, None).list(vec![1, 2, 3], key, |number| number);
        assert_eq!(list.items, [1, 2]);
        assert_eq!(list.next_cursor.as_deref().and_then(decode::<Place>), Some((2, String::new())));
        let list = page(2, None).list(vec![1, 2], key, |number| number);
        assert_eq!((list.items.len(), list.next_cursor), (2, None));
    }
}
