//! Knows whose token it is, for many agents with one query: after a break all of them come at once. While a query is under
//! way, who comes is gathered for the next. Nothing is remembered, so a token that was revoked opens nothing.

use super::failures::read;
use super::problem::Problem;
use crate::db::hosts;
use crate::services::Services;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::sync::oneshot;
use uuid::Uuid;

type Answer = Result<Option<Uuid>, Problem>;

#[derive(Default)]
struct State {
    asking: bool,
    waiting: Vec<(Vec<u8>, oneshot::Sender<Answer>)>,
}

/// One a thread. See the module's text.
#[derive(Clone, Default)]
pub(super) struct Doorman(Rc<RefCell<State>>);

impl Doorman {
    /// The host whose agent has the token with this hash.
    ///
    /// # Errors
    /// 503 if the database can't be read in time.
    pub(super) async fn host_of(&self, token_hash: Vec<u8>, services: &Services) -> Answer {
        let (answer, receiver) = oneshot::channel();
        let asking = {
            let mut state = self.0.borrow_mut();
            state.waiting.push((token_hash, answer));
            std::mem::replace(&mut state.asking, true)
        };
        if !asking {
            // On its own: whoever waits may go away.
            actix::spawn(self.clone().ask(services.clone()));
        }
        receiver.await.unwrap_or_else(|_| Err(Problem::internal("a token was not looked up")))
    }

    /// Asks until nobody waits.
    async fn ask(self, services: Services) {
        while let Some(waiting) = self.gathered() {
            let (hashes, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            let found = read(&services, async |reader| hosts::by_tokens(reader, &hashes).await).await;
            let found = found.map(|rows| rows.into_iter().collect::<HashMap<_, _>>());
            for (hash, answer) in hashes.iter().zip(answers) {
                let host = found.as_ref().map(|hosts| hosts.get(hash).copied()).map_err(Clone::clone);
                let _ = answer.send(host); // it may have gone
            }
        }
    }

    fn gathered(&self) -> Option<Vec<(Vec<u8>, oneshot::Sender<Answer>)>> {
        let mut state = self.0.borrow_mut();
        state.asking = !state.waiting.is_empty();
        state.asking.then(|| std::mem::take(&mut state.waiting))
    }
}
