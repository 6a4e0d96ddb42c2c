//! How a write can end when it does not succeed.

use thiserror::Error;

/// Why a write has no result. The three cases ask for different answers, so they are different types of news.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The database refuses it (a name taken, a row gone): no part is done, and trying again would not help.
    #[error("the database refuses the write: {0}")]
    Rejected(#[source] diesel::result::Error),
    /// Certainly not done: the database could not be reached in time.
    #[error("not done: {0}")]
    NotDone(String),
    /// The coordinator stops and did not learn whether it was done.
    #[error("the coordinator stopped before the outcome was known")]
    Unknown,
}

impl WriteError {
    /// The name of the unique or foreign-key constraint that was in the way, if that is what happened.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Rejected(diesel::result::Error::DatabaseError(_, info)) => info.constraint_name(),
            _ => None,
        }
    }
}

/// How a transaction failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Rolled back, because of something in the batch itself.
    Constraint(diesel::result::Error),
    /// Rolled back, or never begun: the database is away, full or shutting down.
    NotDone(String),
    /// Not done, and the connection is in the middle of a transaction: it can't be used any more.
    Broken(String),
    /// The commit was sent and not answered.
    Unknown(String),
}

impl Failure {
    /// Reads an error that came before the commit was sent.
    pub(super) fn before_commit(error: diesel::result::Error) -> Self {
        if is_constraint(&error) { Self::Constraint(error) } else { Self::NotDone(error.to_string()) }
    }
}

/// True for an error that the server answered with: the transaction that it came in is rolled back.
pub(super) fn is_from_server(error: &diesel::result::Error) -> bool {
    use diesel::result::{DatabaseErrorKind as Kind, Error};
    matches!(error, Error::DatabaseError(kind, _) if !matches!(kind, Kind::UnableToSendCommand | Kind::ClosedConnection))
}

/// True for an error that lies in the written data and would come again.
pub(super) fn is_constraint(error: &diesel::result::Error) -> bool {
    use diesel::result::{DatabaseErrorKind as Kind, Error};
    matches!(
        error,
        Error::DatabaseError(
            Kind::UniqueViolation
                | Kind::ForeignKeyViolation
                | Kind::NotNullViolation
                | Kind::CheckViolation
                | Kind::ExclusionViolation,
            _
        ) | Error::SerializationError(_)
            | Error::QueryBuilderError(_)
            | Error::NotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::result::{DatabaseErrorKind as Kind, Error};

    fn of(kind: Kind) -> Error {
        Error::DatabaseError(kind, Box::new("an error".to_owned()))
    }

    #[test]
    fn only_what_the_server_said_proves_that_it_rolled_back() {
        assert!(is_from_server(&of(Kind::Unknown)) && is_from_server(&of(Kind::UniqueViolation)));
        assert!(!is_from_server(&of(Kind::UnableToSendCommand)));
        assert!(!is_from_server(&Error::SerializationError("too long".into())));
    }
}
