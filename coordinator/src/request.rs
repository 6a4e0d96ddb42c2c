//! The request that is being answered, for whoever is at work on it: who asks, what for, and what goes with the write that does
//! it. It follows the work from task to task ([`carried_on`]), and goes along in messages to other threads.
//!
//! A change that is asked for over REST has a record for the audit log, which is written in the transaction that makes the
//! change ([`to_record`]), or afterwards with the answer if nothing was changed. What is asked under an `Idempotency-Key`
//! has a [`Claim`], of which its ids, its secrets and its time are made: work that is repeated after a crash meets its own.

use crate::access::Labels;
use crate::tokens::{ADMIN, Token};
use crate::vault::{self, Vault};
use fleet_wire::{Secret, Timestamp};
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use uuid::Uuid;

/// The longest text that is recorded of each part, in bytes.
const LONGEST: usize = 1024;

tokio::task_local! {
    static CURRENT: Arc<Request>;
}

/// What a request under an `Idempotency-Key` is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The name of the key in the ledger.
    pub name: Vec<u8>,
    /// The hash of what is asked.
    pub asked: Vec<u8>,
    /// The id of what is made.
    pub id: Uuid,
    /// When it was first asked.
    pub at: Timestamp,
    /// It is in the ledger: what is asked was done, and its answer got lost.
    pub repeated: bool,
}

/// What the audit log says of a request, whatever becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The peer's address.
    pub remote_address: Option<String>,
    /// The method.
    pub method: String,
    /// The pattern of the URL.
    pub route: String,
    /// The path behind `/v1/`.
    pub target: String,
}

/// See the module's text.
#[derive(Debug)]
pub struct Request {
    /// Its id, which is in its answer and in the log.
    pub id: String,
    /// Its id in the audit log: ordered by time.
    pub record_id: Uuid,
    /// When it came: the time in that id, so that one finds the other.
    pub at: Timestamp,
    /// What is recorded of it. A request that only reads has none.
    pub subject: Option<Subject>,
    token: OnceLock<Arc<Token>>,
    claim: OnceLock<Claim>,
    made: OnceLock<Uuid>,
    detail: Mutex<Option<String>>,
    /// What is dropped with it, when the last who is at work on it lets go.
    held: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Its record is written, or on its way with a write whose outcome is not known.
    recorded: AtomicBool,
}

impl Request {
    /// A request that has just come.
    pub fn new(id: String, subject: Option<Subject>) -> Self {
        let record_id = Uuid::now_v7();
        Self {
            id,
            record_id,
            at: time_of(record_id),
            subject,
            token: OnceLock::new(),
            claim: OnceLock::new(),
            made: OnceLock::new(),
            detail: Mutex::default(),
            held: OnceLock::new(),
            recorded: AtomicBool::new(false),
        }
    }

    /// Who asks.
    pub fn token(&self) -> Option<&Arc<Token>> {
        self.token.get()
    }

    /// Notes who asks; the first counts.
    pub fn set_token(&self, token: Arc<Token>) {
        let _ = self.token.set(token);
    }

    /// What is asked under an `Idempotency-Key`.
    pub fn claim(&self) -> Option<&Claim> {
        self.claim.get()
    }

    /// Notes under which claim it is carried out; the first counts.
    pub fn set_claim(&self, claim: Claim) {
        let _ = self.claim.set(claim);
    }

    /// Has `guard` dropped when nobody is at work on it any more; the first counts.
    pub fn hold(&self, guard: impl Any + Send + Sync) {
        let _ = self.held.set(Box::new(guard));
    }

    /// What it was about: the path, and what it makes.
    pub fn target(&self, Subject { target, .. }: &Subject) -> String {
        self.made.get().map_or_else(|| target.clone(), |id| format!("{target}/{id}"))
    }

    /// What is worth knowing of it beside that.
    pub fn detail(&self) -> Option<String> {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the change that it asks for is recorded with that, or may be.
    pub fn is_recorded(&self) -> bool {
        self.recorded.load(Ordering::Acquire)
    }

    /// What has become of the write with which it was to be recorded.
    pub fn settled(&self, recorded: bool) {
        self.recorded.store(recorded, Ordering::Release);
    }
}

/// When an id of version 7 was made, to the millisecond.
fn time_of(id: Uuid) -> Timestamp {
    let made = id.get_timestamp().map(|made| made.to_unix());
    made.and_then(|(seconds, nanos)| Timestamp::from_timestamp(i64::try_from(seconds).ok()?, nanos)).unwrap_or_default()
}

/// A text as it is recorded: of a bounded length.
pub fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// The request that is being answered.
pub fn current() -> Option<Arc<Request>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Does `work` for `request`.
pub async fn within<T>(request: Arc<Request>, work: impl Future<Output = T>) -> T {
    CURRENT.scope(request, work).await
}

/// Does `work`, in whatever task, for the request that is being answered now.
pub fn carried_on<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let request = current();
    async move {
        match request {
            Some(request) => within(request, work).await,
            None => work.await,
        }
    }
}

/// The current request, to be recorded with the write that does what it asks. Nothing if it asks for no change, or if that is
/// recorded: what is repeated after a crash was so the first time. What becomes of the write is to be told by [`Request::settled`].
pub fn to_record() -> Option<Arc<Request>> {
    let asks =
        |request: &Arc<Request>| request.subject.is_some() && !request.claim().is_some_and(|claim| claim.repeated);
    current().filter(|request| asks(request) && !request.recorded.swap(true, Ordering::AcqRel))
}

/// The name of who asks.
pub fn caller_name() -> String {
    current()
        .and_then(|request| request.token.get().map(|token| token.name.clone()))
        .unwrap_or_else(|| ADMIN.to_owned())
}

/// The labels of the hosts that the current request may see and touch, if it may not see all.
pub fn host_limit() -> Option<Labels> {
    current()?.token.get()?.labels.clone()
}

/// The id of what the current request makes.
pub fn new_id() -> Uuid {
    let Some(request) = current() else { return Uuid::now_v7() };
    *request.made.get_or_init(|| request.claim.get().map_or_else(Uuid::now_v7, |claim| claim.id))
}

/// The id of what the current request has made before a crash, or before its client went away.
pub fn made_before() -> Option<Uuid> {
    let request = current()?;
    let claim = request.claim.get().filter(|claim| claim.repeated)?;
    Some(*request.made.get_or_init(|| claim.id))
}

/// Whether what the current request asks was done before a crash, or before its client went away: it must not be done again, for it
/// may have been changed or deleted since.
pub fn was_done() -> bool {
    current().is_some_and(|request| request.claim.get().is_some_and(|claim| claim.repeated))
}

/// When what is asked was first asked, if it is asked under a claim.
pub fn claimed_at() -> Option<Timestamp> {
    Some(current()?.claim.get()?.at)
}

/// Notes what is worth knowing of the current request; the latest counts. It must hold no secret.
pub fn note(detail: &str) {
    if let Some(request) = current() {
        *request.detail.lock().unwrap_or_else(PoisonError::into_inner) = Some(bounded(detail).to_owned());
    }
}

/// A token that the current request makes: random, or the same again if the work is repeated.
///
/// # Errors
/// The operating system has no random numbers.
pub fn new_token(vault: &Vault, prefix: &str) -> Result<Secret, getrandom::Error> {
    match current().as_ref().and_then(|request| request.claim.get()) {
        Some(claim) => Ok(vault.derive_token(prefix, claim.id)),
        None => vault::new_token(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::clock;

    fn change() -> Arc<Request> {
        let subject = Subject {
            remote_address: None,
            method: "POST".to_owned(),
            route: "/v1/things".to_owned(),
            target: "things".to_owned(),
        };
        Arc::new(Request::new("request".to_owned(), Some(subject)))
    }

    #[actix::test]
    async fn a_change_is_recorded_with_one_write() {
        let request = change();
        within(Arc::clone(&request), async {
            assert!(to_record().is_some() && to_record().is_none());
            request.settled(false);
            let elsewhere = actix::spawn(carried_on(async { to_record().is_some() }));
            assert!(elsewhere.await.expect("no panic"));
            let id = new_id();
            let subject = request.subject.as_ref().expect("a change");
            assert_eq!((new_id(), request.target(subject)), (id, format!("things/{id}")));
        })
        .await;
        assert!(to_record().is_none(), "outside of any");
    }

    #[actix::test]
    async fn what_is_repeated_meets_its_own() {
        let vault = Vault::with_key([1; 32]);
        let claim = |id| Claim { name: vec![1], asked: vec![2], id, at: clock::real(), repeated: true };
        let make = async |id| {
            let request = change();
            request.set_claim(claim(id));
            within(request, async { (made_before(), new_id(), new_token(&vault, "rft").expect("derived")) }).await
        };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (first, again) = (make(one).await, make(one).await);
        assert_eq!((first.0, first.1), (Some(one), one));
        assert_eq!(first.2.expose(), again.2.expose());
        assert_ne!(first.2.expose(), make(other).await.2.expose());
    }

    #[test]
    fn what_is_recorded_is_bounded() {
        assert_eq!(bounded(&"é".repeat(LONGEST)).len(), LONGEST);
        assert_eq!(bounded("short"), "short");
    }
}
