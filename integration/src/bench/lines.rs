//! Log lines as restic's `backup --verbose=2` writes them, about 120 bytes each. No two are the same: paths, sizes and
//! times vary as in a real tree, so that they compress as real ones do and not as one repeated line does.

use crate::swarm::put_text;
use chrono::{DateTime, TimeDelta, Utc};
use fleet_wire::{JobId, LogLine, LogStream, ToCoordinator, encode};
use std::sync::Arc;

const FOLDERS: [&str; 12] =
    ["home", "projects", "photos", "mail", "archive", "node_modules", "src", "lib", "dist", "assets", "cache", "www"];
const NAMES: [&str; 10] =
    ["index", "invoice", "IMG", "report", "message", "backup", "config", "module", "thumbnail", "session"];
const ENDS: [&str; 8] = ["js", "pdf", "jpg", "txt", "eml", "json", "ts", "db"];

/// A line before it is anybody's.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) seq: i64,
    pub(super) ts: DateTime<Utc>,
    pub(super) payload: String,
}

/// A small generator of numbers (xorshift), the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// `count` lines from `seq` 0 on; another `salt` gives other lines.
pub(super) fn lines(count: usize, salt: u64) -> Vec<Line> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ salt.wrapping_mul(0xff51_afd7_ed55_8ccd));
    let mut ts = Utc::now();
    (0..count)
        .map(|seq| {
            ts += TimeDelta::microseconds(dice.below(3_000).cast_signed());
            Line { seq: seq as i64, ts, payload: payload(&mut dice) }
        })
        .collect()
}

fn payload(dice: &mut Dice) -> String {
    let action = if dice.below(8) == 0 { "modified " } else { "new      " };
    let (user, top, folder) = (dice.below(40), dice.pick(&FOLDERS), dice.pick(&FOLDERS));
    let (name, number, end) = (dice.pick(&NAMES), dice.below(100_000), dice.pick(&ENDS));
    let (millis, size, stored) = (dice.below(400), dice.below(99_999), dice.below(9_999));
    format!(
        "{action} /srv/exports/shared/user{user:02}/{top}/{folder}/{name}-{number:05}.{end}, saved in 0.{millis:03}s \
         ({}.{:03} KiB added, {}.{:03} KiB stored)",
        size / 1000,
        size % 1000,
        stored / 1000,
        stored % 1000
    )
}

/// The frames of `lines` as an agent with a journal sends them, numbered from `first_id` on.
pub(super) fn frames(job_id: &JobId, lines: &[Line], first_id: u64) -> Arc<[u8]> {
    let mut frames = Vec::with_capacity(lines.len() * 300);
    for (id, line) in (first_id..).zip(lines) {
        let message = LogLine {
            job_id: job_id.clone(),
            seq: line.seq,
            ts: Some(line.ts),
            stream: LogStream::Stdout,
            payload: line.payload.clone(),
        };
        put_text(&mut frames, &encode(Some(&id.into()), &ToCoordinator::from(message)));
    }
    frames.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn lines_are_of_the_wanted_length_and_differ() {
        let lines = lines(5_000, 1);
        let mean = lines.iter().map(|line| line.payload.len()).sum::<usize>() / lines.len();
        assert!((110..=130).contains(&mean), "{mean} bytes");
        let distinct: HashSet<&str> = lines.iter().map(|line| line.payload.as_str()).collect();
        assert!(distinct.len() > 4_990);
        assert_ne!(lines[0].payload, super::lines(1, 2)[0].payload);
    }
}
