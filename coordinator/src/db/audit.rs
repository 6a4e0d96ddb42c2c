//! The audit log: rows are added, read, and deleted when they are old.

use super::history::first_id_of;
use super::schema::audit;
use super::statement::statement;
use super::storable;
use crate::persistence::Write;
use crate::request::{Request, Subject, bounded};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use fleet_wire::Timestamp;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Rows that are deleted at once.
const FORGOTTEN_AT_ONCE: i64 = 200;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was answered with success, and there was nothing to change.
    Unchanged,
    /// It was refused.
    Refused,
    /// It could not be done at the time.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Done, Self::Unchanged, Self::Refused, Self::Failed];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    /// Of a request that has changed nothing, by the status of its answer.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Unchanged,
            400..500 => Self::Refused,
            _ => Self::Failed,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::as_str).join(", ");
        let found = Self::ALL.into_iter().find(|outcome| outcome.as_str() == text);
        found.ok_or_else(|| format!("must be one of {}", known()))
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = audit)]
#[allow(missing_docs, reason = "the columns; the migration says what needs saying")]
pub struct Record {
    pub id: Uuid,
    pub at: Timestamp,
    pub request_id: String,
    pub token_id: Option<Uuid>,
    pub token_name: Option<String>,
    pub remote_address: Option<String>,
    pub method: String,
    pub route: String,
    pub target: String,
    pub outcome: String,
    pub status: Option<i64>,
    pub detail: Option<String>,
    pub times: i64,
}

impl Record {
    /// What is recorded of a request that was about `subject`.
    pub fn of(request: &Request, subject: &Subject, outcome: Outcome, status: Option<u16>) -> Self {
        let token = request.token();
        Self {
            id: request.record_id,
            at: request.at,
            request_id: request.id.clone(),
            token_id: token.and_then(|token| token.id),
            token_name: token.map(|token| token.name.clone()),
            remote_address: subject.remote_address.clone(),
            method: subject.method.clone(),
            route: subject.route.clone(),
            target: storable(bounded(&request.target(subject))),
            outcome: outcome.as_str().to_owned(),
            status: status.map(i64::from),
            detail: request.detail().as_deref().map(storable),
            times: 1,
        }
    }
}

/// Adds rows; one that is there is left alone. A row that stands for the making of a job is added only if the job is there.
///
/// # Errors
/// The database's.
pub async fn insert_many(mut connection: &AsyncPgConnection, rows: &[(Record, Option<Uuid>)]) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // A join, for the plan of an EXISTS may read all jobs into memory: one that is made while they are few is kept.
    let query = statement(
        "INSERT INTO audit (id, at, request_id, token_id, token_name, remote_address, method, route, target, outcome,
             status, detail, times)
         SELECT news.id, news.at, news.request_id, news.token_id, news.token_name, news.remote_address, news.method,
             news.route, news.target, news.outcome, news.status, news.detail, news.times
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
             AS news (id, at, request_id, token_id, token_name, remote_address, method, route, target, outcome,
                 status, detail, times, job_id)
         LEFT JOIN jobs ON jobs.id = news.job_id
         WHERE news.job_id IS NULL OR jobs.id IS NOT NULL
         ON CONFLICT DO NOTHING",
    );
    fn column<'a, T>(rows: &'a [(Record, Option<Uuid>)], of: impl Fn(&'a Record) -> T) -> Vec<T> {
        rows.iter().map(|(row, _)| of(row)).collect()
    }
    query
        .bind::<Array<SqlUuid>, _>(column(rows, |row| row.id))
        .bind::<Array<Timestamptz>, _>(column(rows, |row| row.at))
        .bind::<Array<Text>, _>(column(rows, |row| &row.request_id))
        .bind::<Array<Nullable<SqlUuid>>, _>(column(rows, |row| row.token_id))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.token_name.as_deref()))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.remote_address.as_deref()))
        .bind::<Array<Text>, _>(column(rows, |row| &row.method))
        .bind::<Array<Text>, _>(column(rows, |row| &row.route))
        .bind::<Array<Text>, _>(column(rows, |row| &row.target))
        .bind::<Array<Text>, _>(column(rows, |row| &row.outcome))
        .bind::<Array<Nullable<BigInt>>, _>(column(rows, |row| row.status))
        .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.detail.as_deref()))
        .bind::<Array<BigInt>, _>(column(rows, |row| row.times))
        .bind::<Array<Nullable<SqlUuid>>, _>(rows.iter().map(|(_, job)| *job).collect::<Vec<_>>())
        .execute(&mut connection)
        .await?;
    Ok(())
}

/// Adds what was refused, and what else has changed nothing.
#[derive(Clone, Debug)]
pub struct Note(pub Vec<Record>);

impl Write for Note {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let rows: Vec<_> = self.0.iter().map(|row| (row.clone(), None)).collect();
        insert_many(connection, &rows).await
    }
}

/// Deletes the next rows from before a time.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// The time.
    pub before: Timestamp,
}

impl Write for Forget {
    /// Nothing if there is none left.
    type Output = Option<()>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        // For this statement alone: other writes share the transaction.
        connection.batch_execute("SET LOCAL fleet.audit_retention = 'on'").await?;
        let gone = statement(
            "DELETE FROM audit USING (SELECT id FROM audit WHERE id < $1 ORDER BY id LIMIT $2) AS old
             WHERE audit.id = old.id",
        );
        let gone = gone.bind::<SqlUuid, _>(first_id_of(self.before)).bind::<BigInt, _>(FORGOTTEN_AT_ONCE);
        let gone = gone.execute(connection).await?;
        connection.batch_execute("SET LOCAL fleet.audit_retention = 'off'").await?;
        Ok(i64::try_from(gone).is_ok_and(|gone| gone >= FORGOTTEN_AT_ONCE).then_some(()))
    }
}

/// Which rows a list holds. Absent means any.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the filters of the REST API")]
pub struct Filter {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// A token's name or id.
    pub token: Option<String>,
    /// A part of the target: an id or a name.
    pub target: Option<String>,
    pub outcome: Option<Outcome>,
    /// Only what comes after this id in the list.
    pub after: Option<Uuid>,
}

/// At most `limit` rows, newest first. What filters beside times is looked at row by row.
///
/// # Errors
/// The database's.
pub async fn list(connection: &mut AsyncPgConnection, filter: &Filter, limit: i64) -> QueryResult<Vec<Record>> {
    let mut query = audit::table.select(Record::as_select()).into_boxed();
    // Times are bounds of the ids, so that the index is entered there, and are then looked at exactly.
    if let Some(since) = filter.since {
        query = query.filter(audit::id.ge(first_id_of(since))).filter(audit::at.ge(since));
    }
    if let Some(until) = filter.until {
        let above = first_id_of(until + chrono::TimeDelta::milliseconds(1));
        query = query.filter(audit::id.lt(above)).filter(audit::at.lt(until));
    }
    if let Some(token) = &filter.token {
        let id: Option<Uuid> = token.parse().ok();
        query = query.filter(audit::token_name.eq(token.clone()).or(audit::token_id.eq(id)).assume_not_null());
    }
    if let Some(target) = &filter.target {
        let part = sql::<Bool>("position('/' || ").bind::<Text, _>(target.clone());
        query = query.filter(part.sql(" || '/' IN '/' || audit.target || '/') > 0"));
    }
    if let Some(outcome) = filter.outcome {
        query = query.filter(audit::outcome.eq(outcome.as_str()));
    }
    if let Some(after) = filter.after {
        query = query.filter(audit::id.lt(after));
    }
    query.order(audit::id.desc()).limit(limit).load(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_nothing_is_judged_by_its_answer() {
        let cases = [(200, "unchanged"), (304, "unchanged"), (401, "refused"), (422, "refused"), (503, "failed")];
        for (status, word) in cases {
            assert_eq!(Outcome::of_status(status).as_str(), word, "{status}");
            assert_eq!(word.parse(), Ok(Outcome::of_status(status)));
        }
        assert!("other".parse::<Outcome>().is_err());
    }
}
