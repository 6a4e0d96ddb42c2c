//! Waiting for a condition instead of for a time.

use crate::Failure;
use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(25);

/// Looks again and again until `look` gives a value, at most for `limit`; `look`'s error says what it saw instead.
///
/// # Errors
/// The time is over. The failure names `what` was waited for and what was last seen.
pub fn eventually<T, E: Display>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, Failure> {
    let began = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if began.elapsed() >= limit => {
                return Err(Failure::new(format!("{what}: not within {limit:?}; last seen: {seen}")));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_first_value() {
        let mut looks = 0;
        let found = eventually("three looks", Duration::from_secs(10), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks.to_string()) }
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn it_says_what_it_waited_for_and_saw() {
        let failure = eventually::<(), _>("an egg", Duration::ZERO, || Err("a hen")).unwrap_err();
        assert_eq!(failure.to_string(), "an egg: not within 0ns; last seen: a hen");
    }
}
