//! How failures inside the coordinator become problems, and how long a request may wait for its parts.

use super::if_match::IfMatch;
use super::problem::Problem;
use crate::db::DatabaseError;
use crate::db::tags::Thing;
use crate::dispatcher::Dispatcher;
use crate::job::NotWritten;
use crate::persistence::{HasChanged, Matched, Outcome, Patience, Requested, Save, Write, WriteError};
use crate::registry::{Evict, SettingsChanged};
use crate::request::{self, Request};
use crate::services::Services;
use actix::{Handler, MailboxError, Message};
use actix_web::web;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel_async::AsyncPgConnection;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a request waits for a read, or for an actor. Longer than [`Patience::REST`], so that a write mostly comes
/// back with a certain answer.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Rejected(QueryError::NotFound) => Self::not_found("it is gone"),
            WriteError::Rejected(QueryError::DatabaseError(
                DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::ForeignKeyViolation,
                _,
            )) => Self::conflict("something else has this name, or something that it refers to is gone"),
            WriteError::Rejected(error) => Self::internal(error),
            WriteError::NotDone(why) => {
                log::warn!("a write was not done: {why}");
                Self::unavailable("the database can't be reached; nothing was changed")
            }
            WriteError::Unknown => Self::outcome_unknown(),
        }
    }
}

impl From<NotWritten> for Problem {
    fn from(error: NotWritten) -> Self {
        match error {
            NotWritten::Refused(_) => Self::internal(error),
            NotWritten::Stopping => Self::outcome_unknown(),
        }
    }
}

impl From<DatabaseError> for Problem {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Query(error) => error.into(),
            error => {
                log::warn!("a read failed: {error}");
                Self::unavailable("the database can't be reached")
            }
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            // A broken connection or a server that stops; a fault of ours would be another kind.
            QueryError::DatabaseError(
                DatabaseErrorKind::ClosedConnection
                | DatabaseErrorKind::UnableToSendCommand
                | DatabaseErrorKind::SerializationFailure
                | DatabaseErrorKind::Unknown,
                _,
            ) => {
                log::warn!("a read failed: {error}");
                Self::unavailable("the database does not answer as it should")
            }
            error => Self::internal(error),
        }
    }
}

impl From<MailboxError> for Problem {
    fn from(error: MailboxError) -> Self {
        match error {
            MailboxError::Closed => Self::unavailable("the coordinator is about to stop"),
            MailboxError::Timeout => Self::unavailable("the coordinator is too busy at the moment"),
        }
    }
}

/// What `work` comes to, if it does so in time.
///
/// # Errors
/// Its own, or 503.
pub async fn in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    match tokio::time::timeout(WAIT_LIMIT, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::unavailable("no answer in time")),
    }
}

/// As [`in_time`], for what is done all the same once it was asked for, and is only not known to be done.
///
/// # Errors
/// Its own, or 503 with an unknown outcome.
pub async fn told_in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::time::timeout(WAIT_LIMIT, work).await.unwrap_or_else(|_| Err(Problem::outcome_unknown()))
}

/// Runs `work` to its end even if the request does not come to its own: what follows a write must follow it.
///
/// # Errors
/// Its own, or 503 with an unknown outcome.
pub async fn to_the_end<T: 'static>(work: impl Future<Output = Result<T, Problem>> + 'static) -> Result<T, Problem> {
    let work = actix_web::rt::spawn(request::carried_on(work));
    told_in_time(async { work.await.unwrap_or_else(|_| Err(Problem::outcome_unknown())) }).await
}

/// Reads from the database.
///
/// # Errors
/// 503 if that is not possible in time.
pub async fn read<T>(
    services: &Services,
    query: impl AsyncFnOnce(&mut AsyncPgConnection) -> diesel::QueryResult<T>,
) -> Result<T, Problem> {
    Ok(services.database.read(query).await?)
}

/// Writes to the database. The outer error is a problem whatever was written; the inner one may be a constraint that
/// means something to the asker.
///
/// # Errors
/// 503 if it is not done, or not known to be done.
pub async fn try_write<W: Write>(services: &Services, write: W) -> Result<Result<W::Output, WriteError>, Problem> {
    match tokio::time::timeout(WAIT_LIMIT, write_for_sure(services, write)).await {
        Ok(outcome) => outcome,
        // The write is on its way: it may still be done.
        Err(_) => Err(Problem::outcome_unknown()),
    }
}

/// As [`try_write`], however long it takes to know; for [`to_the_end`].
///
/// # Errors
/// 503 if the coordinator stops.
pub async fn write_for_sure<W: Write>(services: &Services, write: W) -> Result<Result<W::Output, WriteError>, Problem> {
    let (request, told) = Outcome::of_now();
    let save = Save { write: Requested::of(request, write), patience: Patience::REST };
    let save = services.persistence.send(save);
    let outcome = save.await.map_err(|_| Problem::outcome_unknown())?;
    told.is(&outcome, W::is_change);
    Ok(outcome)
}

/// As [`write_for_sure`], for what changes `thing`, if that is as the request has seen it.
///
/// # Errors
/// 412, or 503 if the coordinator stops.
pub async fn write_if<W: Write>(
    services: &Services,
    IfMatch(condition): IfMatch,
    thing: Thing,
    write: W,
) -> Result<Result<W::Output, WriteError>, Problem> {
    match write_for_sure(services, Matched::new(condition, thing, write)).await? {
        Ok(Ok(output)) => Ok(Ok(output)),
        Ok(Err(HasChanged)) => Err(Problem::has_changed("it has changed since: read it again, and decide anew")),
        Err(error) => Ok(Err(error)),
    }
}

/// Asks the dispatcher for what is to be written for the current request.
///
/// # Errors
/// 503 if it is not known to be done.
pub async fn dispatched<M, T>(
    services: &Services,
    message: impl FnOnce(Option<Arc<Request>>) -> M,
) -> Result<Result<T, WriteError>, Problem>
where
    M: Message<Result = Result<T, WriteError>> + Send + 'static,
    T: Send + 'static,
    Dispatcher: Handler<M>,
{
    let (request, told) = Outcome::of_now();
    let asked = services.dispatcher.send(message(request));
    let Ok(Ok(outcome)) = tokio::time::timeout(WAIT_LIMIT, asked).await else {
        // It is on its way: it may still be stored.
        return Err(Problem::outcome_unknown());
    };
    told.is(&outcome, |_| true);
    Ok(outcome)
}

/// Writes to the database what no constraint can be in the way of.
///
/// # Errors
/// 503 if it is not done, or not known to be done.
pub async fn write<W: Write>(services: &Services, write: W) -> Result<W::Output, Problem> {
    Ok(try_write(services, write).await??)
}

/// Tells the sessions of these hosts that settings have changed. What is committed stays so even if nobody listens.
pub async fn settings_changed(services: &Services, hosts: Vec<Uuid>) {
    if hosts.is_empty() {
        return;
    }
    let told = services.registry.send(SettingsChanged { hosts });
    if tokio::time::timeout(WAIT_LIMIT, told).await.is_err() {
        log::warn!("the registry does not listen: agents learn of new settings when they connect again");
    }
}

/// Writes what settings are made of, if `thing` is as the request has seen it, and tells the sessions of the hosts that this
/// `changes`, even if the client has gone.
///
/// # Errors
/// 412, or 503 if it is not done, or not known to be done.
pub async fn settled_settings<W: Write>(
    services: web::Data<Services>,
    if_match: IfMatch,
    thing: Thing,
    write: W,
    changes: impl FnOnce(&W::Output) -> Option<Uuid> + 'static,
) -> Result<W::Output, Problem> {
    to_the_end(async move {
        let output = write_if(&services, if_match, thing, write).await??;
        settings_changed(&services, changes(&output).into_iter().collect()).await;
        Ok(output)
    })
    .await
}

/// Ends the session of a host whose token is no longer good.
pub async fn evict(services: &Services, host_id: Uuid) {
    let told = services.registry.send(Evict { host_id });
    if tokio::time::timeout(WAIT_LIMIT, told).await.is_err() {
        log::warn!(host:% = host_id; "the registry does not listen: the host's session may still be open");
    }
}
