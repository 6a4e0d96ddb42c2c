//! What the log says of agents that connect: a line each, until so many come within a second that nobody could read
//! them. Then one line says how many more there were; which, the list of hosts knows.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Lines within a [`SPAN`].
const MOST_LINES: usize = 50;
const SPAN: Duration = Duration::from_secs(1);

static ARRIVALS: Mutex<Arrivals> = Mutex::new(Arrivals { began: None, said: 0, unsaid: 0 });

/// Those of the current span.
#[derive(Debug, PartialEq)]
struct Arrivals {
    /// When the span began.
    began: Option<Instant>,
    said: usize,
    unsaid: usize,
}

/// What is to be done about one that has come.
#[derive(Debug, PartialEq)]
enum Mention {
    Line,
    /// Its line is left out, the first in this span: how many were is to be said when that ends.
    SumUp,
    Nothing,
}

impl Arrivals {
    fn one_more(&mut self, now: Instant) -> Mention {
        // A span with a sum to say ends when that is said.
        if self.unsaid == 0 && self.began.is_none_or(|began| now.duration_since(began) >= SPAN) {
            *self = Self { began: Some(now), said: 0, unsaid: 0 };
        }
        if self.said < MOST_LINES {
            self.said += 1;
            return Mention::Line;
        }
        self.unsaid += 1;
        if self.unsaid == 1 { Mention::SumUp } else { Mention::Nothing }
    }

    /// Ends the span; how many had no line.
    fn sum_up(&mut self) -> usize {
        let unsaid = self.unsaid;
        *self = Self { began: None, said: 0, unsaid: 0 };
        unsaid
    }
}

fn with_arrivals<T>(what: impl FnOnce(&mut Arrivals) -> T) -> T {
    what(&mut ARRIVALS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Says that the agent of a host is connected, or sees to it that it is counted.
pub(super) fn say(host_id: Uuid, hostname: &str) {
    match with_arrivals(|arrivals| arrivals.one_more(Instant::now())) {
        Mention::Line => log::info!(host:% = host_id, hostname; "agent connected"),
        Mention::SumUp => drop(actix::spawn(async {
            actix::clock::sleep(SPAN).await;
            log::info!(agents = with_arrivals(Arrivals::sum_up); "more agents connected");
        })),
        Mention::Nothing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_has_a_line_or_is_in_a_sum() {
        let mut arrivals = Arrivals { began: None, said: 0, unsaid: 0 };
        let start = Instant::now();
        let mentions: Vec<Mention> = (0..120).map(|_| arrivals.one_more(start)).collect();
        assert!(mentions[..MOST_LINES].iter().all(|mention| *mention == Mention::Line));
        assert_eq!(mentions[MOST_LINES], Mention::SumUp);
        assert!(mentions[MOST_LINES + 1..].iter().all(|mention| *mention == Mention::Nothing));
        // Who comes before the sum is said is in it, however late that is.
        assert_eq!(arrivals.one_more(start + 3 * SPAN), Mention::Nothing);
        assert_eq!(arrivals.sum_up(), 121 - MOST_LINES);
        assert_eq!(arrivals.one_more(start + 3 * SPAN), Mention::Line);
    }

    #[test]
    fn few_at_a_time_have_a_line_each() {
        let mut arrivals = Arrivals { began: None, said: 0, unsaid: 0 };
        let start = Instant::now();
        let pace = SPAN / MOST_LINES as u32;
        assert!((0..500).all(|number| arrivals.one_more(start + pace * number) == Mention::Line));
    }
}
