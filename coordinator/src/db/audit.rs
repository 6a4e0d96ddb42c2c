//! The audit log: rows are added and read; when they are old they go (`aged`).

use super::history::first_id_of;
use super::schema::{api_tokens, audit};
use super::statement::statement;
use super::storable;
use crate::request::{Request, Subject, bounded};
use diesel::dsl::{AsSelect, SqlTypeOf, sql};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

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

/// A row and its number in the order of commits.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = audit)]
#[allow(missing_docs, reason = "said above")]
pub struct Numbered {
    #[diesel(embed)]
    pub record: Record,
    pub seq: i64,
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
}

type Query = audit::BoxedQuery<'static, Pg, SqlTypeOf<AsSelect<Numbered, Pg>>>;

/// The indexes in which a thing is found by its id: behind its kind, or at the end of a longer path.
const BY_THING: &str = "split_part(audit.target, '/', 2) = ";
const BY_END: &str = "split_part(audit.target, '/', 3) <> '' AND split_part(audit.target, '/', -1) = ";

/// At most `limit` rows from behind the id `after`, newest first. A token, a thing by its id, and what was not done are found by
/// an index; other filters are looked at row by row.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    after: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<Numbered>> {
    let token = token_of(connection, filter).await?;
    let page = || {
        let query = filtered(filter, token.as_ref()).limit(limit);
        match after {
            Some(after) => query.filter(audit::id.lt(after)),
            None => query,
        }
    };
    // In the indexes' own order, which the key does not have.
    let by_index = |query: Query| query.order(sql::<SqlUuid>("audit.id DESC NULLS LAST"));
    match filter.target.as_ref().filter(|target| target.parse::<Uuid>().is_ok()) {
        Some(thing) => {
            let mut rows = Vec::new();
            for place in [BY_THING, BY_END] {
                let here = sql::<Bool>(place).bind::<Text, _>(thing.clone());
                rows.extend(by_index(page().filter(here)).load::<Numbered>(connection).await?);
            }
            rows.sort_unstable_by_key(|row| Reverse(row.record.id));
            rows.dedup_by_key(|row| row.record.id);
            rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            Ok(rows)
        }
        None if token.is_some() || filter.outcome.is_some_and(|outcome| outcome != Outcome::Done) => {
            by_index(page()).load(connection).await
        }
        None => page().order(audit::id.desc()).load(connection).await,
    }
}

/// At most `limit` rows behind the number `after_seq`, and behind the row with the id `after` if there is one, in the order in
/// which they were committed. Filters are looked at row by row.
///
/// # Errors
/// The database's.
pub async fn list_on(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    after_seq: i64,
    after: Option<Uuid>,
    limit: i64,
) -> QueryResult<Vec<Numbered>> {
    let token = token_of(connection, filter).await?;
    let place = match after {
        Some(id) => audit::table.find(id).select(audit::seq).first(connection).await.optional()?,
        None => None,
    };
    let after = place.unwrap_or(after_seq).max(after_seq);
    let query = filtered(filter, token.as_ref()).filter(audit::seq.gt(after));
    query.order(audit::seq).limit(limit).load(connection).await
}

/// The name of the token that is looked for, and its id if it is looked for by that.
async fn token_of(connection: &mut AsyncPgConnection, filter: &Filter) -> QueryResult<Option<(String, Option<Uuid>)>> {
    let Some(token) = &filter.token else { return Ok(None) };
    let id: Option<Uuid> = token.parse().ok();
    let name = match id {
        Some(id) => api_tokens::table.find(id).select(api_tokens::name).first(connection).await.optional()?,
        None => None,
    };
    Ok(Some(name.map_or_else(|| (token.clone(), None), |name| (name, id))))
}

/// The rows that pass.
fn filtered(filter: &Filter, token: Option<&(String, Option<Uuid>)>) -> Query {
    let mut query = audit::table.select(Numbered::as_select()).into_boxed();
    // Times are bounds of the ids, so that the index is entered there, and are then looked at exactly.
    if let Some(since) = filter.since {
        query = query.filter(audit::id.ge(first_id_of(since))).filter(audit::at.ge(since));
    }
    if let Some(until) = filter.until {
        let above = first_id_of(until + chrono::TimeDelta::milliseconds(1));
        query = query.filter(audit::id.lt(above)).filter(audit::at.lt(until));
    }
    if let Some((name, id)) = token {
        query = query.filter(audit::token_name.eq(name.clone()).assume_not_null());
        if let Some(id) = *id {
            query = query.filter(audit::token_id.eq(id).assume_not_null());
        }
    }
    if let Some(target) = &filter.target {
        let part = sql::<Bool>("position('/' || ").bind::<Text, _>(target.clone());
        query = query.filter(part.sql(" || '/' IN '/' || audit.target || '/') > 0"));
    }
    if let Some(outcome) = filter.outcome {
        // In the statement's text, so that a plan is made for this outcome: the index has some of them only.
        query = query.filter(sql::<Bool>(match outcome {
            Outcome::Done => "audit.outcome = 'done'",
            Outcome::Unchanged => "audit.outcome = 'unchanged'",
            Outcome::Refused => "audit.outcome = 'refused'",
            Outcome::Failed => "audit.outcome = 'failed'",
        }));
    }
    query
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
