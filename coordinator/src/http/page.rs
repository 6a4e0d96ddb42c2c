//! Lists that come in pages. A cursor names the place behind the last item, so that a page neither repeats nor misses
//! what stays in the list while others come and go.

use super::params::{Params, bad_param};
use super::problem::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many items a page has at most, and unless the client says.
const MOST: i64 = 500;
const USUAL: i64 = 100;

/// The names of the parameters that pages take.
pub const LIMIT: &str = "limit";
/// See [`LIMIT`].
pub const CURSOR: &str = "cursor";

/// Which page a client asks for; `K` is what the list is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<K> {
    limit: i64,
    /// The place behind which it begins.
    pub after: Option<K>,
}

/// A page as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct List<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The cursor of the next page; `null` on the last.
    pub next_cursor: Option<String>,
}

impl<K: Serialize + DeserializeOwned> Page<K> {
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

/// Hexadecimal, so that it needs no escaping in a URL.
fn encode(key: &impl Serialize) -> String {
    // Keys are tuples of strings, ids and times, all of which have a JSON form.
    let json = serde_json::to_vec(key).unwrap_or_default();
    json.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode<K: DeserializeOwned>(cursor: &str) -> Option<K> {
    if !cursor.is_ascii() || !cursor.len().is_multiple_of(2) {
        return None;
    }
    let digits = (0..cursor.len()).step_by(2).map(|at| u8::from_str_radix(&cursor[at..at + 2], 16).ok());
    let bytes: Vec<u8> = digits.collect::<Option<_>>()?;
    // A NUL can't be in the database, so no cursor of ours holds one.
    serde_json::from_slice(&bytes).ok().filter(|_| !String::from_utf8_lossy(&bytes).contains("\\u0000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Key = (String, i64);

    fn page(limit: i64, after: Option<Key>) -> Page<Key> {
        Page { limit, after }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let key: Key = ("ä/\"".to_owned(), -3);
        assert_eq!(decode::<Key>(&encode(&key)), Some(key));
        for bad in ["x", "zz", "é", "7b7d", "5b5d", "+1+1"] {
            assert_eq!(decode::<Key>(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_has_a_cursor_only_if_another_follows() {
        let key = |number: &i64| (String::new(), *number);
        let list = page(2, None).list(vec![1, 2, 3], key, |number| number);
        assert_eq!(list.items, [1, 2]);
        assert_eq!(list.next_cursor.as_deref().and_then(decode::<Key>), Some((String::new(), 2)));
        let list = page(2, None).list(vec![1, 2], key, |number| number);
        assert_eq!((list.items.len(), list.next_cursor), (2, None));
    }
}
