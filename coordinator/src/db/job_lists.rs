//! Lists of jobs, newest first, at the same cost however many old jobs there are.
//!
//! An index that is in the order of the list is read until the page is full. A filter that few jobs pass would have it
//! read on and on. So what a host's jobs are filtered by stands in the index of hosts. And kind, origin and outcome
//! have few values: an index has the newest jobs of each combination side by side, the newest of each combination that
//! the filter allows are taken from it, and the newest of those make the page. That holds for any mixture of jobs, where
//! an index of what is rare would have to know what that is. Who may see some hosts only gets the newest of each of those,
//! found in the index of hosts. Jobs that are not over have an index of their own, and so have those of operations, which are
//! not that many.

use super::jobs::{Columns, Job, NewJob, OPEN_OUTCOME, Origin, StateRow, columns, is_open};
use super::newest::{Place, PlaceRow, newest};
use super::schema::jobs;
use super::statement::{Statement, statement};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Kind, Status, Timestamp};
use uuid::Uuid;

/// Which jobs a list holds. Absent means any.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the filters of the REST API")]
pub struct Filter {
    pub operation_id: Option<Uuid>,
    pub host_id: Option<Uuid>,
    pub kind: Option<Kind>,
    pub status: Option<Status>,
    pub origin: Option<Origin>,
    pub since: Option<Timestamp>,
    /// Only those that were made earlier.
    pub until: Option<Timestamp>,
    pub repository_id: Option<Uuid>,
    /// It is looked for among the jobs of hosts: who asks names them.
    pub source_group: Option<String>,
    /// Of one host only.
    pub schedule_id: Option<Uuid>,
    pub partial: Option<bool>,
    /// The hosts whose jobs may be seen.
    pub within: Option<Vec<Uuid>>,
    /// Only what comes after this (creation time, id) in the list.
    pub after: Option<(Timestamp, Uuid)>,
}

type Query = jobs::BoxedQuery<'static, Pg, diesel::dsl::SqlTypeOf<Columns>>;

/// At most `limit` jobs, newest first.
///
/// # Errors
/// The database's.
pub async fn list(connection: &mut AsyncPgConnection, filter: &Filter, limit: i64) -> QueryResult<Vec<Job>> {
    let words =
        filter.kind.is_some() || filter.status.is_some() || filter.origin.is_some() || filter.repository_id.is_some();
    let open = filter.status.is_some_and(|status| !status.is_terminal());
    let of_one = filter.host_id.is_some() || filter.operation_id.is_some();
    let query = if let Some(hosts) = filter.within.as_ref().filter(|_| !of_one && !open) {
        by_hosts(connection, filter, hosts, limit).await?
    } else if words && !open && !of_one && filter.partial != Some(true) {
        by_words(filter, limit)
    } else {
        in_order(filter)
    };
    let rows = query
        .order((jobs::created_at.desc(), jobs::id.desc()))
        .limit(limit)
        .load::<(NewJob, StateRow)>(connection)
        .await?;
    Ok(rows.into_iter().map(Job::from).collect())
}

/// Reads the jobs of a host, those that are not over, or all, in the order of the list.
fn in_order(filter: &Filter) -> Query {
    let mut query = jobs::table.select(columns()).into_boxed();
    if let Some(operation_id) = filter.operation_id {
        query = query.filter(jobs::operation_id.eq(operation_id));
    }
    if let Some(host_id) = filter.host_id {
        query = query.filter(jobs::host_id.eq(host_id));
    }
    if let Some(hosts) = &filter.within {
        query = query.filter(jobs::host_id.eq_any(hosts.clone()));
    }
    if let Some(kind) = filter.kind {
        query = query.filter(jobs::kind.eq(kind.as_str()));
    }
    if let Some(status) = filter.status {
        query = match status.is_terminal() {
            true => query.filter(jobs::outcome.eq(status.as_str())),
            false => query.filter(is_open()).filter(jobs::status.eq(status.as_str())),
        };
    }
    if let Some(origin) = filter.origin {
        query = query.filter(jobs::origin.eq(origin.as_str()));
    }
    if let Some(since) = filter.since {
        query = query.filter(jobs::created_at.ge(since));
    }
    if let Some(until) = filter.until {
        query = query.filter(jobs::created_at.lt(until));
    }
    if let Some(repository_id) = filter.repository_id {
        query = query.filter(jobs::repository_id.eq(repository_id));
    }
    if let Some(group) = &filter.source_group {
        query = query.filter(jobs::source_group.eq(group.clone()));
    }
    if let Some(schedule_id) = filter.schedule_id {
        query = query.filter(jobs::schedule_id.eq(schedule_id));
    }
    match filter.partial {
        // As the index has it.
        Some(true) => query = query.filter(sql::<Bool>("jobs.partial")),
        Some(false) => query = query.filter(diesel::dsl::not(jobs::partial)),
        None => {}
    }
    if let Some((created_at, id)) = filter.after {
        // Of rows, so that the index is entered there.
        let place = sql::<Bool>("(jobs.created_at, jobs.id) < (").bind::<Timestamptz, _>(created_at);
        query = query.filter(place.sql(", ").bind::<SqlUuid, _>(id).sql(")"));
    }
    query
}

/// The newest jobs of hosts, each host's from its own index. Conditions stand in the statement only if they are wanted: so
/// what is looked for is found in the index, and no row is read that does not pass.
async fn by_hosts(
    connection: &mut AsyncPgConnection,
    filter: &Filter,
    hosts: &[Uuid],
    limit: i64,
) -> QueryResult<Query> {
    let places = newest(hosts, limit, async |hosts: &[Uuid], floor| {
        let rows: Vec<PlaceRow> = places(filter, hosts, floor, limit).load(connection).await?;
        Ok(rows.into_iter().map(|row| (row.created_at, row.id)).collect())
    });
    let ids: Vec<Uuid> = places.await?.into_iter().map(|(_, id)| id).collect();
    Ok(jobs::table.select(columns()).into_boxed().filter(jobs::id.eq_any(ids)))
}

/// What a column must be.
enum Operand {
    Word(String),
    Id(Uuid),
    Flag(bool),
}

fn places<'a>(filter: &Filter, hosts: &'a [Uuid], floor: Option<Place>, limit: i64) -> Statement<'a> {
    let word = |word: &str| Operand::Word(word.to_owned());
    let wanted = [
        ("kind", filter.kind.map(|kind| word(kind.as_str()))),
        ("outcome", filter.status.map(|status| word(status.as_str()))),
        ("origin", filter.origin.map(|origin| word(origin.as_str()))),
        ("repository_id", filter.repository_id.map(Operand::Id)),
        ("source_group", filter.source_group.as_deref().map(word)),
        ("schedule_id", filter.schedule_id.map(Operand::Id)),
        ("partial", filter.partial.map(Operand::Flag)),
    ];
    let wanted: Vec<_> = wanted.into_iter().filter_map(|(column, operand)| Some((column, operand?))).collect();
    let mut text = "SELECT newest.created_at, newest.id
         FROM unnest($1) AS seen (host_id),
             LATERAL (
                 SELECT one.created_at, one.id FROM jobs AS one
                 WHERE one.host_id = seen.host_id AND (one.created_at, one.id) < (coalesce($2, 'infinity'), $3)
                     AND (one.created_at, one.id) >= (coalesce($4, '-infinity'), $5)"
        .to_owned();
    let mut number = 5;
    for (column, _) in &wanted {
        number += 1;
        text += &format!(" AND one.{column} = ${number}");
    }
    let (of_each, of_all) = (number + 1, number + 2);
    text += &format!(
        " ORDER BY one.created_at DESC, one.id DESC LIMIT ${of_each}
             ) AS newest ORDER BY newest.created_at DESC, newest.id DESC LIMIT ${of_all}"
    );
    let until = filter.until.map(|until| (until, Uuid::nil()));
    let (before, id) = filter.after.into_iter().chain(until).min().unzip();
    let (since, first) = floor.max(filter.since.map(|since| (since, Uuid::nil()))).unzip();
    let query = statement(text)
        .bind::<Array<SqlUuid>, _>(hosts)
        .bind::<Nullable<Timestamptz>, _>(before)
        .bind::<SqlUuid, _>(id.unwrap_or(Uuid::max()))
        .bind::<Nullable<Timestamptz>, _>(since)
        .bind::<SqlUuid, _>(first.unwrap_or_default());
    let query = wanted.into_iter().fold(query, |query, (_, operand)| match operand {
        Operand::Word(word) => query.bind::<Text, _>(word),
        Operand::Id(id) => query.bind::<SqlUuid, _>(id),
        Operand::Flag(flag) => query.bind::<Bool, _>(flag),
    });
    query.bind::<BigInt, _>(limit).bind::<BigInt, _>(limit)
}

/// Takes the newest of each combination of words.
fn by_words(filter: &Filter, limit: i64) -> Query {
    fn words<T: Copy>(wanted: Option<T>, all: &[T], word: fn(T) -> &'static str) -> Vec<&'static str> {
        wanted.map_or_else(|| all.iter().copied().map(word).collect(), |wanted| vec![word(wanted)])
    }
    let ended = Status::ALL.iter().copied().filter(|status| status.is_terminal()).map(Status::as_str);
    let outcomes = match filter.status {
        Some(status) => vec![status.as_str()],
        None => ended.chain([OPEN_OUTCOME]).collect(),
    };
    let of_repository = filter.repository_id.is_some();
    let (before, id) = filter.after.unzip();
    let newest: SqlLiteral<Bool> = sql("jobs.id = ANY (ARRAY(
             SELECT newest.id
             FROM unnest(");
    let newest = newest
        .bind::<Array<Text>, _>(words(filter.kind, Kind::ALL, Kind::as_str))
        .sql(") AS kinds (kind), unnest(")
        .bind::<Array<Text>, _>(words(filter.origin, &Origin::ALL, Origin::as_str))
        .sql(") AS origins (origin), unnest(")
        .bind::<Array<Text>, _>(outcomes)
        .sql(
            ") AS outcomes (outcome),
                 LATERAL (
                     SELECT one.id, one.created_at FROM jobs AS one
                     WHERE one.kind = kinds.kind AND one.origin = origins.origin AND one.outcome = outcomes.outcome AND ",
        )
        // Not as a parameter that may be none: the index is entered by it.
        .sql(if of_repository { "one.repository_id = " } else { "coalesce(" })
        .bind::<Nullable<SqlUuid>, _>(filter.repository_id)
        .sql(if of_repository { "" } else { ", one.id) IS NOT NULL" })
        .sql(" AND one.partial = coalesce(")
        .bind::<Nullable<Bool>, _>(filter.partial)
        .sql(", one.partial) AND one.created_at >= coalesce(")
        .bind::<Nullable<Timestamptz>, _>(filter.since)
        .sql(", '-infinity') AND one.created_at < coalesce(")
        .bind::<Nullable<Timestamptz>, _>(filter.until)
        .sql(", 'infinity') AND (one.created_at, one.id) < (coalesce(")
        .bind::<Nullable<Timestamptz>, _>(before)
        .sql(", 'infinity'), ")
        .bind::<SqlUuid, _>(id.unwrap_or(Uuid::max()));
    let newest = newest
        .sql(") ORDER BY one.created_at DESC NULLS LAST, one.id DESC NULLS LAST LIMIT ")
        .bind::<BigInt, _>(limit)
        .sql(") AS newest ORDER BY newest.created_at DESC, newest.id DESC LIMIT ")
        .bind::<BigInt, _>(limit)
        .sql("))");
    jobs::table.select(columns()).into_boxed().filter(newest)
}
