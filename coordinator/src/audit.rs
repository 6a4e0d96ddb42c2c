//! What changed nothing and is yet to be recorded: refusals most of all. They are gathered and written together, and bounded:
//! nobody fills the disk by being refused. Requests that are alike share a row, of those whose asker is not known the path does
//! not count, and beyond so many rows a minute all others share one. What was changed does not come here.

use crate::db::audit::Record;
use crate::persistence::{Persistence, SaveRecords, WriteError};
use actix::Addr;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Rows a minute of those who have a token, and of all others.
const ROWS_OF_KNOWN: usize = 600;
const ROWS_OF_UNKNOWN: usize = 60;
const MINUTE: Duration = Duration::from_secs(60);
/// Rows that wait while the database is away.
const MOST_WAITING: usize = 5_000;
/// Stands for what is not told apart.
const ANY: &str = "*";

/// What makes requests alike.
type Alike = (Option<String>, Option<String>, String, String, String, Option<i64>);

fn alike(row: &Record) -> Alike {
    let Record { token_name, remote_address, method, route, target, status, .. } = row.clone();
    (token_name, remote_address, method, route, target, status)
}

#[derive(Debug, Default)]
struct Waiting {
    rows: HashMap<Alike, Record>,
    /// Since when rows are counted, and how many there were of known and of unknown askers.
    since: Option<Instant>,
    known: usize,
    unknown: usize,
}

impl Waiting {
    fn add(&mut self, mut row: Record, now: Instant) {
        if self.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            (self.since, self.known, self.unknown) = (Some(now), 0, 0);
        }
        let is_known = row.token_name.is_some();
        if !is_known {
            row.target = ANY.to_owned();
        }
        if self.merge(&row) {
            return;
        }
        let (rows, most) = match is_known {
            true => (&mut self.known, ROWS_OF_KNOWN),
            false => (&mut self.unknown, ROWS_OF_UNKNOWN),
        };
        if *rows < most && self.rows.len() < MOST_WAITING {
            *rows += 1;
        } else {
            row = others(row);
        }
        self.put(row);
    }

    /// Takes back what could not be written: it was counted when it was added.
    fn take_back(&mut self, mut row: Record) {
        if self.rows.len() >= MOST_WAITING && !self.rows.contains_key(&alike(&row)) {
            row = others(row);
        }
        self.put(row);
    }

    fn put(&mut self, row: Record) {
        if !self.merge(&row) {
            self.rows.insert(alike(&row), row);
        }
    }

    /// Counts the requests of `row` with those that are alike, if there are any.
    fn merge(&mut self, row: &Record) -> bool {
        let found = self.rows.get_mut(&alike(row));
        found.map(|found| found.times += row.times).is_some()
    }
}

/// The row of all that go beyond the bound.
fn others(row: Record) -> Record {
    let (route, target) = (ANY.to_owned(), ANY.to_owned());
    let detail = Some("more than are recorded one by one".to_owned());
    Record { remote_address: None, method: ANY.to_owned(), route, target, status: None, detail, ..row }
}

/// See the module's text. Its lock is held for a look-up, never across an await.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<Waiting>);

impl Unrecorded {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub fn add(&self, row: Record) {
        self.waiting().add(row, Instant::now());
    }

    /// Has all of them written.
    ///
    /// # Errors
    /// They are not, and wait on, unless the outcome is not known.
    pub async fn write(&self, persistence: &Addr<Persistence>) -> Result<(), WriteError> {
        let rows = std::mem::take(&mut self.waiting().rows);
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<Record> = rows.into_values().collect();
        let outcome = persistence.send(SaveRecords(rows.clone())).await.unwrap_or(Err(WriteError::Unknown));
        if matches!(outcome, Err(WriteError::NotDone(_))) {
            let mut waiting = self.waiting();
            rows.into_iter().for_each(|row| waiting.take_back(row));
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use uuid::Uuid;

    fn refused(token: Option<&str>, address: &str, target: &str) -> Record {
        Record {
            id: Uuid::now_v7(),
            at: Utc::now(),
            request_id: String::new(),
            token_id: None,
            token_name: token.map(str::to_owned),
            remote_address: Some(address.to_owned()),
            method: "POST".to_owned(),
            route: "/v1/things/{id}".to_owned(),
            target: target.to_owned(),
            outcome: "refused".to_owned(),
            status: Some(403),
            detail: None,
            times: 1,
        }
    }

    fn times(waiting: &Waiting) -> i64 {
        waiting.rows.values().map(|row| row.times).sum()
    }

    #[test]
    fn requests_that_are_alike_share_a_row() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for number in 0..10 {
            waiting.add(refused(None, "::1", &format!("things/{number}")), now);
            waiting.add(refused(Some("one"), "::1", "things/1"), now);
        }
        waiting.add(refused(Some("two"), "::1", "things/1"), now);
        assert_eq!((waiting.rows.len(), times(&waiting)), (3, 21));
    }

    #[test]
    fn nobody_fills_the_disk_by_being_refused() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let flood = |waiting: &mut Waiting, now| {
            for number in 0..5_000 {
                waiting.add(refused(None, &number.to_string(), "things"), now);
                waiting.add(refused(Some("one"), "::1", &number.to_string()), now);
            }
        };
        flood(&mut waiting, now);
        assert_eq!((waiting.rows.len(), times(&waiting)), (ROWS_OF_KNOWN + ROWS_OF_UNKNOWN + 2, 10_000));
        // Written meanwhile: the bound holds on.
        waiting.rows.clear();
        flood(&mut waiting, now);
        assert_eq!((waiting.rows.len(), times(&waiting)), (2, 10_000));
        // What could not be written is not counted again.
        let (mut waiting, least) = (Waiting::default(), ROWS_OF_KNOWN / 2);
        for number in 0..least {
            waiting.add(refused(Some("one"), "::1", &number.to_string()), now);
        }
        for row in std::mem::take(&mut waiting.rows).into_values() {
            waiting.take_back(row);
        }
        for number in least..ROWS_OF_KNOWN {
            waiting.add(refused(Some("one"), "::1", &number.to_string()), now);
        }
        assert_eq!((waiting.rows.len(), times(&waiting)), (ROWS_OF_KNOWN, 600));
        // The next minute, and the database is away.
        for minute in 1..100 {
            flood(&mut waiting, now + MINUTE * minute);
        }
        assert!(waiting.rows.len() <= MOST_WAITING + 2);
    }
}
