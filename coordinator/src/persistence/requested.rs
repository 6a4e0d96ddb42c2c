//! A write that a REST request asks for. If it changes anything the request is recorded in the same transaction, behind all
//! changes: there is no change without its record, nor a record without its change.

use super::{Write, WriteError};
use crate::request::{self, Request};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use std::sync::Arc;

/// See the module's text.
#[derive(Debug)]
pub struct Requested<W> {
    write: W,
    request: Option<Arc<Request>>,
}

impl<W: Write> Requested<W> {
    /// `write`, for `request` if there is one.
    pub fn of(request: Option<Arc<Request>>, write: W) -> Self {
        Self { write, request }
    }
}

/// The request of a write whose outcome is to come.
#[derive(Debug)]
pub struct Outcome(Option<Arc<Request>>);

impl Outcome {
    /// The request that is being answered, if it is to be recorded with a write, and who is told what came of that.
    pub fn of_now() -> (Option<Arc<Request>>, Self) {
        let request = request::to_record();
        (request.clone(), Self(request))
    }

    /// Tells it. A request that is certainly not recorded will be with its answer.
    pub fn is<T>(self, outcome: &Result<T, WriteError>, is_change: impl FnOnce(&T) -> bool) {
        let Some(request) = self.0 else { return };
        match outcome {
            Ok(output) => request.settled(is_change(output)),
            Err(WriteError::Rejected(_) | WriteError::NotDone(_)) => request.settled(false),
            Err(WriteError::Unknown) => {}
        }
    }
}

impl<W: Write> Write for Requested<W> {
    type Output = W::Output;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<W::Output> {
        self.write.apply(connection).await
    }

    fn to_record(&self, output: &W::Output) -> Option<&Request> {
        self.request.as_deref().filter(|_| W::is_change(output))
    }
}
