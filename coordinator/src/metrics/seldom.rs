//! Something that is worked out for whoever asks, but by one at a time and no more often than one can easily bear, however many
//! ask: no token is needed to ask.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A value is good for so many times as long as it took to work it out: that takes a twentieth of the time at most.
const GOOD_FOR: u32 = 20;
/// And never longer than this: about as often as one asks.
const LONGEST: Duration = Duration::from_secs(10);

/// See the module's text.
#[derive(Debug)]
pub struct Seldom<T> {
    last: Mutex<Option<Outcome<T>>>,
}

/// What came of working it out: the value, or why there is none.
#[derive(Debug)]
struct Outcome<T> {
    value: Result<Arc<T>, String>,
    good_until: Instant,
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self { last: Mutex::new(None) }
    }
}

impl<T> Seldom<T> {
    /// The value, which is worked out unless there is one that is still good.
    ///
    /// # Errors
    /// It can't be worked out, or could not be a moment ago: those who have waited for a try do not all try again.
    pub async fn get<E: Display>(&self, work_out: impl AsyncFnOnce() -> Result<T, E>) -> Result<Arc<T>, String> {
        let mut last = self.last.lock().await;
        let began = Instant::now();
        if let Some(Outcome { value, good_until }) = &*last
            && began < *good_until
        {
            return value.clone();
        }
        let value = work_out().await.map(Arc::new).map_err(|error| error.to_string());
        let good_until = Instant::now() + good_for(began.elapsed());
        *last = Some(Outcome { value: value.clone(), good_until });
        value
    }
}

fn good_for(took: Duration) -> Duration {
    took.saturating_mul(GOOD_FOR).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn what_is_quickly_worked_out_is_soon_worked_out_anew() {
        assert_eq!(good_for(Duration::from_millis(2)), Duration::from_millis(40));
        assert_eq!(good_for(Duration::from_secs(3)), LONGEST);
    }

    #[actix_web::test]
    async fn those_who_ask_together_share_what_comes_of_it() {
        let (seldom, tries) = (Seldom::default(), AtomicU32::new(0));
        let ask = || {
            seldom.get(async || {
                // Long enough to be good for a second.
                tokio::time::sleep(Duration::from_millis(50)).await;
                match tries.fetch_add(1, Ordering::Relaxed) {
                    0 => Err("away"),
                    tries => Ok(tries),
                }
            })
        };
        let all = async || {
            let answers = join_all((0..3).map(|_| ask())).await;
            answers.into_iter().map(|answer| answer.map(|value| *value)).collect::<Vec<_>>()
        };
        assert_eq!(all().await, vec![Err("away".to_owned()); 3]);
        let good_until = seldom.last.lock().await.as_ref().map(|outcome| outcome.good_until);
        tokio::time::sleep_until(good_until.expect("an outcome").into()).await;
        assert_eq!(all().await, [Ok(1), Ok(1), Ok(1)]);
    }
}
