//! `Idempotency-Key` on every POST under `/v1`: what is asked again under a key is not done again, and answered as it was.
//!
//! A key's name is made of whose it is, the path and the key. What is asked gets a claim, of which all ids, secrets and times are
//! made that it writes, and the claim is written in the transaction that does it. So the ledger knows: no row, nothing was done;
//! a row with an answer, that is the answer; a row without one, it was done, and a crash came before the answer was kept. Then the
//! answer is made anew with the same claim: of what is there by now, for what was changed or deleted since stays so. The answer is kept after
//! it was given: it costs nobody a commit.
//!
//! Memory knows only what is under way, for as long as anybody is at work on it (a write that waits for its turn, too), and
//! not a moment longer: who is refused leaves nothing behind.

use super::body::collect;
use super::clock;
use super::failures::read;
use super::problem::{FieldError, Problem};
use crate::db::idempotency::{Known, find};
use crate::persistence::SaveAnswer;
use crate::request::{self, Claim, Request};
use crate::services::Services;
use crate::vault::{Place, Vault};
use actix_web::body::{BoxBody, EitherBody, MessageBody, to_bytes};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, LOCATION};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpResponse, ResponseError, web};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use uuid::Uuid;

/// The header that holds the key.
pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// How long an answer is kept.
pub const KEPT: TimeDelta = TimeDelta::hours(24);
/// The longest key.
const LONGEST: usize = 255;
/// For how long it is tried to learn whether an end was asked for before.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// The headers that belong to an answer.
const HEADERS: [HeaderName; 4] = [CONTENT_TYPE, LOCATION, CACHE_CONTROL, ETAG];

/// A name of a key, and what is asked under it, as hashes.
#[derive(Clone, Debug)]
struct Asked {
    name: Vec<u8>,
    asked: Vec<u8>,
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// What is under way.
#[derive(Debug)]
struct UnderWay {
    asked: Vec<u8>,
    request: Weak<Request>,
    /// It is answered, and the answer is being kept.
    answer: Option<Answer>,
}

impl UnderWay {
    /// Whether it is answered, or anybody is at work on it.
    fn is_known(&self) -> bool {
        self.answer.is_some() || self.request.strong_count() > 0
    }
}

/// What is under way, by the names of the keys. Its lock is held for a look-up, never across an await.
#[derive(Debug, Default)]
pub struct Keys(Mutex<HashMap<Vec<u8>, UnderWay>>);

impl Keys {
    fn all(&self) -> MutexGuard<'_, HashMap<Vec<u8>, UnderWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what is asked, unless the same is under way: then its answer, if there is one already.
    fn begin(
        self: &Arc<Self>,
        Asked { name, asked }: &Asked,
        request: &Arc<Request>,
    ) -> Result<Option<Answer>, Problem> {
        let mut all = self.all();
        if let Some(there) = all.get(name).filter(|there| there.is_known()) {
            if there.asked != *asked {
                return Err(Problem::key_reused());
            }
            return there.answer.clone().map(Some).ok_or_else(Problem::in_progress);
        }
        all.insert(name.clone(), UnderWay { asked: asked.clone(), request: Arc::downgrade(request), answer: None });
        drop(all);
        request.hold(Leaving { keys: Arc::clone(self), name: name.clone() });
        Ok(None)
    }

    fn set_answer(&self, name: &[u8], answer: Answer) {
        if let Some(under_way) = self.all().get_mut(name) {
            under_way.answer = Some(answer);
        }
    }

    fn forget(&self, name: &[u8]) {
        self.all().remove(name);
    }

    /// Forgets what nobody is at work on any more. Another request may have begun under the key meanwhile.
    fn left(&self, name: &[u8]) {
        let mut all = self.all();
        if all.get(name).is_some_and(|there| !there.is_known()) {
            all.remove(name);
        }
    }
}

/// Goes with the last who is at work on what was asked under a key.
struct Leaving {
    keys: Arc<Keys>,
    name: Vec<u8>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.keys.left(&self.name);
    }
}

/// 404 for what was made under the key, in an answer that was lost, and has been deleted since.
pub(super) fn gone_since() -> Problem {
    Problem::not_found("what was made under this Idempotency-Key is gone since")
}

/// Whose a key is.
#[derive(Clone, Copy, Debug)]
enum Owner {
    /// Of the token that asks.
    Token,
    /// Of who knows the body, which holds a token.
    Body,
}

impl Owner {
    fn id(self, body: &[u8]) -> Vec<u8> {
        let token = || request::current().and_then(|current| current.token()?.id).unwrap_or_default();
        match self {
            Self::Token => token().as_bytes().to_vec(),
            Self::Body => Sha256::digest(body).to_vec(),
        }
    }

    /// Whether an answer is kept. What fails for a reason of ours is tried again; and strangers get no place in the ledger.
    fn keeps(self, status: StatusCode) -> bool {
        match self {
            Self::Token => !status.is_server_error(),
            Self::Body => status.is_success(),
        }
    }
}

/// Middleware for what is asked with a token.
///
/// # Errors
/// Those of the handlers.
pub(super) async fn of_token<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    keyed(request, next, Owner::Token).await
}

/// Middleware for enrolment, which has no other token than that in its body.
///
/// # Errors
/// Those of the handlers.
pub(super) async fn of_body<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    keyed(request, next, Owner::Body).await
}

async fn keyed<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
    owner: Owner,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let begun = begin(&mut request, owner).await;
    match begun {
        Ok(Begun::Run(keeper)) => {
            let response = next.call(request).await?;
            Ok(keeper.keep(response).await?.map_into_right_body())
        }
        Ok(Begun::Answered(answer)) => Ok(request.into_response(answer.into_response()).map_into_right_body()),
        Err(problem) => Ok(request.into_response(problem.error_response()).map_into_right_body()),
    }
}

enum Begun {
    Run(Keeper),
    Answered(Answer),
}

/// Finds out whether what is asked is to be done.
async fn begin(request: &mut ServiceRequest, owner: Owner) -> Result<Begun, Problem> {
    let services = request.app_data::<web::Data<Services>>().cloned();
    let services = services.ok_or_else(|| Problem::internal("the application has no services"))?;
    let current = request::current().ok_or_else(|| Problem::internal("the request has no name"))?;
    let key = key(request.headers())?.to_owned();
    let body = collect(request.take_payload()).await?;
    let parts = [&owner.id(&body)[..], request.match_info().as_str().as_bytes(), key.as_bytes()];
    let asked = Asked { name: hash(&parts), asked: hash(&[request.query_string().as_bytes(), &body]) };
    request.set_payload(Payload::from(body));
    if let Some(answer) = services.keys.begin(&asked, &current)? {
        return Ok(Begun::Answered(answer));
    }
    let now = clock::real();
    let looking = read(&services, async |reader| find(reader, &asked.name, now - KEPT).await);
    let known = match ends_a_job(request.match_info().as_str()) {
        true => Ok(tokio::time::timeout(LOOK_LIMIT, looking).await.ok().and_then(Result::ok).flatten()),
        false => looking.await,
    };
    let looked = known.and_then(|known| look(&services.vault, &asked, known));
    match looked {
        Ok(Looked::Run { id, at, repeated }) => {
            let Asked { name, asked } = asked;
            let claim = Claim { name, asked, id, at: at.unwrap_or(now), repeated };
            current.set_claim(claim.clone());
            Ok(Begun::Run(Keeper { services, owner, claim, request: current }))
        }
        Ok(Looked::Answered(answer)) => {
            services.keys.forget(&asked.name);
            Ok(Begun::Answered(answer))
        }
        Err(problem) => {
            services.keys.forget(&asked.name);
            Err(problem)
        }
    }
}

/// Whether a path asks for the end of a job. That works while the database is away, with a key too: it does no harm to ask
/// for it twice.
fn ends_a_job(path: &str) -> bool {
    matches!(path.split('/').collect::<Vec<_>>()[..], ["", "v1", "jobs", _, "cancel"])
}

/// What the ledger means.
#[derive(Debug, PartialEq)]
enum Looked {
    Run { id: Uuid, at: Option<fleet_wire::Timestamp>, repeated: bool },
    Answered(Answer),
}

fn look(vault: &Vault, asked: &Asked, known: Option<Known>) -> Result<Looked, Problem> {
    let Some(known) = known else { return Ok(Looked::Run { id: Uuid::now_v7(), at: None, repeated: false }) };
    if known.asked != asked.asked {
        return Err(Problem::key_reused());
    }
    let again = Looked::Run { id: known.claim, at: Some(known.claimed_at), repeated: true };
    let Some(sealed) = known.answer else { return Ok(again) };
    let answer = vault.unseal(place(known.claim), &sealed).map_err(Problem::internal)?;
    serde_json::from_slice(&answer).map(Looked::Answered).map_err(Problem::internal)
}

/// The key of a request.
fn key(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(HEADER);
    let wrong = |detail: &str| Err(Problem::malformed(vec![FieldError::new("Idempotency-Key", detail)]));
    let (Some(value), None) = (values.next(), values.next()) else { return wrong("may be given once") };
    match value.to_str() {
        Ok(key) if (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(key),
        _ => wrong("must be 1 to 255 visible ASCII characters"),
    }
}

/// A hash of all parts and of where each ends.
fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let length = |part: &[u8]| u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes();
    let add = |hash: Sha256, part: &&[u8]| hash.chain_update(length(part)).chain_update(part);
    parts.iter().fold(Sha256::new(), add).finalize().to_vec()
}

fn place(claim: Uuid) -> Place<'static> {
    Place { table: "idempotency_keys", row: claim, column: "answer" }
}

/// Keeps the answer to what is under way.
struct Keeper {
    services: web::Data<Services>,
    owner: Owner,
    claim: Claim,
    /// While this is there it is under way.
    request: Arc<Request>,
}

impl Keeper {
    /// Gives the answer on, and has it kept: for those who ask again in memory at once, in the ledger soon.
    async fn keep<B: MessageBody + 'static>(
        self,
        response: ServiceResponse<B>,
    ) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
        let (request, response) = response.into_parts();
        let (head, body) = response.into_parts();
        let body = to_bytes(body).await.map_err(|_| Problem::internal("an answer breaks off"))?;
        if self.owner.keeps(head.status()) {
            let answer = Answer::of(head.status(), head.headers(), &body);
            self.services.keys.set_answer(&self.claim.name, answer.clone());
            actix_web::rt::spawn(self.write(answer));
        }
        Ok(ServiceResponse::new(request, head.set_body(BoxBody::new(body))))
    }

    async fn write(self, answer: Answer) {
        let Self { services, claim, request, .. } = self;
        let name = claim.name.clone();
        let json = serde_json::to_vec(&answer).unwrap_or_default(); // texts and numbers always have a JSON form
        match services.vault.seal(place(claim.id), &json) {
            Ok(answer) => {
                if !matches!(services.persistence.send(SaveAnswer { claim, answer }).await, Ok(Ok(()))) {
                    log::warn!("an answer could not be kept: who repeats the request gets it anew");
                }
            }
            Err(error) => log::error!("an answer can't be sealed: {error}"),
        }
        drop(request);
        services.keys.forget(&name);
    }
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let kept = |name: HeaderName| Some((name.to_string(), headers.get(name)?.to_str().ok()?.to_owned()));
        let headers = HEADERS.into_iter().filter_map(kept).collect();
        Self { status: status.as_u16(), headers, body: String::from_utf8_lossy(body).into_owned() }
    }

    fn into_response(self) -> HttpResponse {
        let mut answer = HttpResponse::build(StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK));
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                answer.insert_header((name, value));
            }
        }
        answer.body(self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(what: &str) -> Asked {
        Asked { name: b"name".to_vec(), asked: what.as_bytes().to_vec() }
    }

    fn status<T: std::fmt::Debug>(outcome: Result<T, Problem>) -> u16 {
        outcome.expect_err("a problem").status_code().as_u16()
    }

    fn answer() -> Answer {
        Answer { status: 202, headers: vec![("location".to_owned(), "/v1/jobs/1".to_owned())], body: "{}".to_owned() }
    }

    #[test]
    fn what_is_under_way_is_so_for_as_long_as_anybody_is_at_work() {
        let keys = Arc::new(Keys::default());
        let first = Arc::new(Request::new("1".to_owned(), None));
        assert_eq!(keys.begin(&asked("a"), &first), Ok(None));
        let second = Arc::new(Request::new("2".to_owned(), None));
        assert_eq!(status(keys.begin(&asked("a"), &second)), 409);
        assert_eq!(status(keys.begin(&asked("b"), &second)), 422);
        assert_eq!(keys.all().len(), 1);
        drop(first);
        assert!(keys.all().is_empty(), "whoever was at work has gone");
        assert_eq!(keys.begin(&asked("b"), &second), Ok(None));
        keys.set_answer(b"name", answer());
        drop(second);
        let third = Arc::new(Request::new("3".to_owned(), None));
        assert_eq!(keys.begin(&asked("b"), &third), Ok(Some(answer())));
        assert_eq!(status(keys.begin(&asked("a"), &third)), 422);
        keys.forget(b"name");
        assert_eq!(keys.begin(&asked("a"), &third), Ok(None));
    }

    #[test]
    fn who_leaves_takes_nobody_elses_place() {
        let keys = Arc::new(Keys::default());
        let first = Arc::new(Request::new("1".to_owned(), None));
        assert_eq!(keys.begin(&asked("a"), &first), Ok(None));
        keys.forget(b"name"); // it is answered, and the answer is in the ledger
        let second = Arc::new(Request::new("2".to_owned(), None));
        assert_eq!(keys.begin(&asked("b"), &second), Ok(None));
        drop(first);
        assert_eq!(keys.all().len(), 1);
        drop(second);
        assert!(keys.all().is_empty());
    }

    #[test]
    fn only_the_end_of_a_job_is_asked_for_without_the_ledger() {
        assert!(ends_a_job("/v1/jobs/1/cancel"));
        for other in ["/v1/jobs/1/release", "/v1/operations/1/cancel", "/v1/jobs/1/cancel/x", "/jobs/1/cancel"] {
            assert!(!ends_a_job(other), "{other}");
        }
    }

    #[test]
    fn the_ledger_says_what_is_to_be_done() {
        let vault = Vault::with_key([1; 32]);
        let (claim, at) = (Uuid::from_u128(1), clock::real());
        let known = |answer: Option<&[u8]>| {
            let answer = answer.map(|answer| vault.seal(place(claim), answer).expect("sealed"));
            Some(Known { asked: b"a".to_vec(), claim, claimed_at: at, answer })
        };
        assert!(matches!(look(&vault, &asked("a"), None), Ok(Looked::Run { repeated: false, .. })));
        let again = Looked::Run { id: claim, at: Some(at), repeated: true };
        assert_eq!(look(&vault, &asked("a"), known(None)), Ok(again));
        let kept = serde_json::to_vec(&answer()).expect("JSON");
        assert_eq!(look(&vault, &asked("a"), known(Some(&kept))), Ok(Looked::Answered(answer())));
        assert_eq!(status(look(&vault, &asked("b"), known(None))), 422);
        assert_eq!(status(look(&vault, &asked("b"), known(Some(&kept)))), 422);
    }

    #[test]
    fn a_key_is_visible_ascii_and_not_too_long() {
        let of = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(value).expect("a header"));
            key(&headers).map(str::to_owned)
        };
        assert_eq!(of(b"a-1"), Ok("a-1".to_owned()));
        assert!(of(&[b'x'; LONGEST]).is_ok());
        for wrong in [&b""[..], b"a b", &[b'x'; LONGEST + 1], b"\xc3\xa9"] {
            assert_eq!(status(of(wrong)), 400, "{wrong:?}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(hash(&[b"a", b"bc"]), hash(&[b"ab", b"c"]));
    }
}
