//! Look-ups by key that share a query: while one is under way, the keys that are asked for are gathered, and the next
//! takes all of them. One alone is sent at once; many at a time cost the database little more than one.

use super::{Database, DatabaseError, READ_LIMIT};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Keys in one query.
const MOST_KEYS: usize = 512;

/// What can be looked up.
pub trait Source: 'static {
    /// By what.
    type Key: Clone + Eq + Hash + Send + 'static;
    /// What is found.
    type Value: Clone + Send + 'static;

    /// What there is for `keys`; those for which there is nothing are missing in the answer.
    fn find(
        connection: &AsyncPgConnection,
        keys: &[Self::Key],
    ) -> impl Future<Output = QueryResult<HashMap<Self::Key, Self::Value>>>;
}

type Asked<S> = (<S as Source>::Key, oneshot::Sender<Option<<S as Source>::Value>>);

struct State<S: Source> {
    asked: Vec<Asked<S>>,
    under_way: bool,
}

impl<S: Source> State<S> {
    /// Forgets those who have stopped waiting: while the database hangs they would gather.
    fn forget_gone(&mut self) {
        self.asked.retain(|(_, reply)| !reply.is_closed());
    }
}

/// See the module's text.
pub struct Lookup<S: Source> {
    database: Database,
    state: Mutex<State<S>>,
}

impl<S: Source> fmt::Debug for Lookup<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup(…)")
    }
}

impl<S: Source> Lookup<S> {
    /// Look-ups in `database`.
    pub fn new(database: Database) -> Arc<Self> {
        Arc::new(Self { database, state: Mutex::new(State { asked: Vec::new(), under_way: false }) })
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is for `key`.
    ///
    /// # Errors
    /// The database does not answer in time, or the query fails.
    pub async fn get(self: &Arc<Self>, key: S::Key) -> Result<Option<S::Value>, DatabaseError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.state();
            state.asked.push((key.clone(), reply));
            if !state.under_way {
                state.under_way = true;
                actix::spawn(UnderWay { lookup: Arc::clone(self), ended: false }.run());
            }
        }
        match tokio::time::timeout(READ_LIMIT, answer).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(_)) => self.alone(key).await,
            Err(_) => Err(DatabaseError::no_answer(READ_LIMIT)),
        }
    }

    /// After a query of many that failed: an error that is one's own.
    async fn alone(&self, key: S::Key) -> Result<Option<S::Value>, DatabaseError> {
        let keys = [key];
        let mut found = self.database.read(async |reader| S::find(reader, &keys).await).await?;
        Ok(found.remove(&keys[0]))
    }
}

/// Asks for what was gathered until nothing is left.
struct UnderWay<S: Source> {
    lookup: Arc<Lookup<S>>,
    /// Nothing was left, and whoever asks next begins anew.
    ended: bool,
}

impl<S: Source> Drop for UnderWay<S> {
    /// A thread that stops takes its tasks with it: those who asked must not wait for it, nor those who come.
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.lookup.state();
            state.under_way = false;
            state.asked.clear(); // which tells them
        }
    }
}

impl<S: Source> UnderWay<S> {
    async fn run(mut self) {
        while let Some(asked) = self.next() {
            let keys: Vec<S::Key> = asked.iter().map(|(key, _)| key.clone()).collect();
            let found = self.lookup.database.read(async |reader| S::find(reader, &keys).await).await;
            if let Ok(found) = found {
                for (key, reply) in asked {
                    let _ = reply.send(found.get(&key).cloned()); // it may have stopped waiting
                }
            }
        }
    }

    /// What to ask for next; `None` is the end.
    fn next(&mut self) -> Option<Vec<Asked<S>>> {
        let mut state = self.lookup.state();
        state.forget_gone();
        let now = state.asked.len().min(MOST_KEYS);
        self.ended = now == 0;
        state.under_way = !self.ended;
        let later = state.asked.split_off(now);
        let now = std::mem::replace(&mut state.asked, later);
        (!now.is_empty()).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Source for Nothing {
        type Key = u8;
        type Value = ();

        async fn find(_: &AsyncPgConnection, _: &[u8]) -> QueryResult<HashMap<u8, ()>> {
            Ok(HashMap::new())
        }
    }

    #[test]
    fn who_has_stopped_waiting_is_forgotten() {
        let (gone, _) = oneshot::channel();
        let (waits, _answer) = oneshot::channel();
        let mut state = State::<Nothing> { asked: vec![(1, gone), (2, waits)], under_way: true };
        state.forget_gone();
        assert_eq!(state.asked.iter().map(|(key, _)| *key).collect::<Vec<_>>(), [2]);
    }
}
