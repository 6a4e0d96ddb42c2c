//! Why the database can't be used, and whether that passes by itself.

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use std::error::Error as _;
use std::io;
use std::time::Duration;
use thiserror::Error;

/// Why the database can't be used.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// `DATABASE_URL` is none. The parser's words never hold the password.
    #[error("DATABASE_URL can't be read: {0}. Give it as postgresql://user:password@host:port/database")]
    Url(String),
    /// No connection, or no answer.
    #[error("can't reach the database: {0}. Is the server running, and is DATABASE_URL right?")]
    Unreachable(String),
    /// The server answers, and does not let us in.
    #[error("the database can't be used: {0}. Is DATABASE_URL right?")]
    Refused(String),
    /// An older PostgreSQL.
    #[error("the database server is version {}, at least 15 is needed", .0 / 10_000)]
    TooOld(i32),
    /// The schema can't be brought up to date.
    #[error("migrating the database failed: {0}")]
    Migration(String),
    /// A query failed.
    #[error("a query failed: {0}")]
    Query(#[from] QueryError),
}

/// What may become of a failure without anybody's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The server is away, starts, stops or is full: it passes.
    Passes,
    /// Only a person can mend it.
    Stays,
    /// A server that goes down fails queries in many ways. If it is there, the same failure comes again.
    Unclear,
}

impl DatabaseError {
    /// Nothing came within a limit.
    pub(super) fn no_answer(limit: Duration) -> Self {
        Self::Unreachable(format!("no answer for {} s", limit.as_secs()))
    }

    /// Why there is no connection.
    pub(super) fn of_connecting(error: &tokio_postgres::Error) -> Self {
        let code = error.code().map(tokio_postgres::error::SqlState::code);
        let broken = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        match outlook(code, error.is_closed(), broken) {
            Outlook::Passes => Self::Unreachable(with_cause(error)),
            Outlook::Stays | Outlook::Unclear => Self::Refused(with_cause(error)),
        }
    }

    /// Whether it passes.
    pub fn outlook(&self) -> Outlook {
        match self {
            Self::Unreachable(_) => Outlook::Passes,
            Self::Url(_) | Self::Refused(_) | Self::TooOld(_) => Outlook::Stays,
            Self::Migration(_) => Outlook::Unclear,
            Self::Query(error) => outlook_of_query(error),
        }
    }
}

/// Whether a failure of a query passes: diesel does not hand on the server's code, only that there was none.
pub fn outlook_of_query(error: &QueryError) -> Outlook {
    match error {
        QueryError::DatabaseError(DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection, _) => {
            Outlook::Passes
        }
        _ => Outlook::Unclear,
    }
}

/// Whether what is in the way of a connection passes: the server's code (PostgreSQL, appendix A) if it has answered,
/// whether the connection was closed, and what went wrong in reading or writing.
fn outlook(code: Option<&str>, closed: bool, broken: Option<io::ErrorKind>) -> Outlook {
    match (code, broken) {
        // 57P0x: it starts or stops; class 53: out of connections, memory or space; class 08: a pooler has no server.
        (Some(code), _) if ["57P0", "53", "08"].iter().any(|class| code.starts_with(class)) => Outlook::Passes,
        (Some(_), _) => Outlook::Stays,
        (None, _) if closed => Outlook::Passes,
        // Whatever answers there is no PostgreSQL.
        (None, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) | None) => Outlook::Stays,
        (None, Some(_)) => Outlook::Passes,
    }
}

/// An error's text with that of its cause, which says what really happened.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_a_person_must_mend() {
        let by_code = |code| outlook(Some(code), false, None);
        for passes in ["57P01", "57P02", "57P03", "53300", "53100", "08006", "08P01"] {
            assert_eq!(by_code(passes), Outlook::Passes, "{passes}");
        }
        // A wrong password, a wrong role, a database that is not there, no right to it, a plain error.
        for stays in ["28P01", "28000", "3D000", "42501", "XX000", "57014"] {
            assert_eq!(by_code(stays), Outlook::Stays, "{stays}");
        }
        use io::ErrorKind as Broken;
        for passes in [Broken::ConnectionRefused, Broken::NotFound, Broken::UnexpectedEof, Broken::TimedOut] {
            assert_eq!(outlook(None, false, Some(passes)), Outlook::Passes, "{passes}");
        }
        assert_eq!(outlook(None, true, None), Outlook::Passes);
        assert_eq!(outlook(None, false, Some(Broken::InvalidInput)), Outlook::Stays);
        assert_eq!(outlook(None, false, None), Outlook::Stays);
    }
}
