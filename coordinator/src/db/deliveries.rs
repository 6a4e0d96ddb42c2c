//! Deliveries: what is on its way to a channel, what came of each attempt, and what has arrived.

use super::json::Json;
use super::schema::{deliveries, notices};
use super::statement::statement;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It will be tried, or tried again.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Failed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub struct Attempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub took_ms: i64,
    /// The receiver's answer, if there was one.
    pub status_code: Option<i64>,
    /// What went wrong.
    pub error: Option<String>,
}

/// A delivery that is to be tried now, and what it takes.
#[derive(Clone, Debug, PartialEq, QueryableByName)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Due {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = SqlUuid)]
    pub channel_id: Uuid,
    #[diesel(sql_type = Text)]
    pub kind: String,
    #[diesel(sql_type = Nullable<Text>)]
    pub url: Option<String>,
    #[diesel(sql_type = Nullable<diesel::sql_types::Binary>)]
    pub secret: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Jsonb>)]
    pub recipients: Option<Json<Vec<String>>>,
    #[diesel(sql_type = Timestamptz)]
    pub tried_from: Timestamp,
    #[diesel(sql_type = BigInt)]
    pub tries: i64,
    #[diesel(sql_type = SqlUuid)]
    pub notice_id: Uuid,
    #[diesel(sql_type = Text)]
    pub event: String,
    #[diesel(sql_type = Timestamptz)]
    pub at: Timestamp,
    #[diesel(sql_type = Jsonb)]
    pub data: Json<Value>,
}

impl Due {
    /// Whether it goes by e-mail.
    pub fn is_mail(&self) -> bool {
        self.kind == "email"
    }
}

#[cfg(test)]
impl Due {
    /// A delivery for tests, which was not tried yet.
    pub(crate) fn sample(id: Uuid, channel_id: Uuid, kind: &str) -> Self {
        Self {
            id,
            channel_id,
            kind: kind.to_owned(),
            url: None,
            secret: None,
            recipients: None,
            tried_from: Timestamp::UNIX_EPOCH,
            tries: 0,
            notice_id: Uuid::nil(),
            event: "test".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            data: Json(Value::Null),
        }
    }
}

/// What is due at `now`, but for those in `under_way`: of each channel the `of_webhook` (or `of_mail`) that are due the longest.
///
/// # Errors
/// The database's.
pub async fn due(
    connection: &mut AsyncPgConnection,
    now: Timestamp,
    under_way: &[Uuid],
    of_webhook: i64,
    of_mail: i64,
) -> QueryResult<Vec<Due>> {
    let query = statement(
        "WITH asked AS (SELECT $1 AS now, $2 AS under_way, $3 AS of_webhook, $4 AS of_mail)
         SELECT due.*, channels.kind, channels.url, channels.secret, channels.recipients,
             notices.event, notices.at, notices.data
         FROM asked CROSS JOIN channels CROSS JOIN LATERAL (
             SELECT id, channel_id, notice_id, tried_from, tries, next_attempt_at FROM deliveries
             WHERE channel_id = channels.id AND status = 'pending' AND next_attempt_at <= asked.now
                 AND NOT (id = ANY (asked.under_way))
             ORDER BY next_attempt_at, id
             LIMIT CASE channels.kind WHEN 'email' THEN asked.of_mail ELSE asked.of_webhook END
         ) AS due JOIN notices ON notices.id = due.notice_id
         WHERE channels.enabled ORDER BY due.next_attempt_at, due.id",
    );
    query
        .bind::<Timestamptz, _>(now)
        .bind::<Array<SqlUuid>, _>(under_way.to_vec())
        .bind::<BigInt, _>(of_webhook)
        .bind::<BigInt, _>(of_mail)
        .load(connection)
        .await
}

/// What came of an attempt, and so of its delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The delivery.
    pub id: Uuid,
    /// How often it had been tried before.
    pub tries: i64,
    /// What came of it.
    pub attempt: Attempt,
    /// How the delivery stands now.
    pub status: Status,
    /// When it is tried again, if it is.
    pub next_attempt_at: Option<Timestamp>,
}

/// Notes attempts. The last twenty of a delivery are kept.
#[derive(Clone, Debug)]
pub struct Record(pub Vec<Tried>);

impl Write for Record {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        fn column<T>(tried: &[Tried], field: impl Fn(&Tried) -> T) -> Vec<T> {
            tried.iter().map(field).collect()
        }
        let Self(tried) = self;
        // The count tells a repeated write from a new one, and an attempt from one of before it was to be sent again.
        let query = statement(
            "UPDATE deliveries SET status = news.status, tries = deliveries.tries + 1,
                 attempts = jsonb_path_query_array(attempts, '$[last - 18 to last]') || jsonb_build_array(news.attempt),
                 next_attempt_at = news.next_attempt_at,
                 settled_at = CASE WHEN news.status <> 'pending' THEN news.at END
             FROM unnest($1, $2, $3, $4, $5, $6) AS news (id, tries, attempt, status, next_attempt_at, at)
             WHERE deliveries.id = news.id AND deliveries.tries = news.tries AND deliveries.status = 'pending'",
        );
        query
            .bind::<Array<SqlUuid>, _>(column(tried, |tried| tried.id))
            .bind::<Array<BigInt>, _>(column(tried, |tried| tried.tries))
            .bind::<Array<Jsonb>, _>(column(tried, |tried| Json(tried.attempt.clone())))
            .bind::<Array<Text>, _>(column(tried, |tried| tried.status.as_str()))
            .bind::<Array<Nullable<Timestamptz>>, _>(column(tried, |tried| tried.next_attempt_at))
            .bind::<Array<Timestamptz>, _>(column(tried, |tried| tried.attempt.at))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// A delivery as it stands in its row, and what it delivers.
#[derive(Clone, Debug, PartialEq, Queryable)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Delivery {
    pub id: Uuid,
    pub notice_id: Uuid,
    pub status: String,
    pub created_at: Timestamp,
    pub next_attempt_at: Option<Timestamp>,
    pub tries: i64,
    pub attempts: Json<Vec<Attempt>>,
    pub settled_at: Option<Timestamp>,
    pub event: String,
    pub at: Timestamp,
    pub data: Json<Value>,
}

type Columns = (
    deliveries::id,
    deliveries::notice_id,
    deliveries::status,
    deliveries::created_at,
    deliveries::next_attempt_at,
    deliveries::tries,
    deliveries::attempts,
    deliveries::settled_at,
    notices::event,
    notices::at,
    notices::data,
);

const COLUMNS: Columns = (
    deliveries::id,
    deliveries::notice_id,
    deliveries::status,
    deliveries::created_at,
    deliveries::next_attempt_at,
    deliveries::tries,
    deliveries::attempts,
    deliveries::settled_at,
    notices::event,
    notices::at,
    notices::data,
);

/// One delivery of a channel.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, channel_id: Uuid, id: Uuid) -> QueryResult<Option<Delivery>> {
    let row = deliveries::table.inner_join(notices::table).filter(deliveries::id.eq(id));
    row.filter(deliveries::channel_id.eq(channel_id)).select(COLUMNS).first(connection).await.optional()
}

/// At most `limit` deliveries of a channel, the newest first, from behind `after` (creation time, id); with `status`, those that
/// stand so.
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    channel_id: Uuid,
    status: Option<Status>,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<Delivery>> {
    let of_channel = deliveries::table.inner_join(notices::table).filter(deliveries::channel_id.eq(channel_id));
    let mut query = of_channel.select(COLUMNS).into_boxed();
    if let Some(status) = status {
        query = query.filter(deliveries::status.eq(status.as_str()));
    }
    if let Some((created_at, id)) = after {
        let earlier = deliveries::created_at.eq(created_at).and(deliveries::id.lt(id));
        query = query.filter(deliveries::created_at.lt(created_at).or(earlier));
    }
    query.order((deliveries::created_at.desc(), deliveries::id.desc())).limit(limit).load(connection).await
}

/// Sends a test to a channel.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// The channel.
    pub channel_id: Uuid,
    /// The delivery's id, and the notice's.
    pub id: Uuid,
    /// Now.
    pub at: Timestamp,
}

impl Write for Test {
    /// The delivery; nothing if there is no such channel.
    type Output = Option<Delivery>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let &Self { channel_id, id, at } = self;
        if super::channels::find(connection, channel_id).await?.is_none() {
            return Ok(None);
        }
        super::notices::write_test(connection, channel_id, id, at).await?;
        find(connection, channel_id, id).await
    }

    fn is_change(delivery: &Self::Output) -> bool {
        delivery.is_some()
    }
}

/// Sends what was delivered, given up or waits, now and for as long as anything new.
#[derive(Clone, Copy, Debug)]
pub struct Redeliver {
    /// The channel.
    pub channel_id: Uuid,
    /// The delivery.
    pub id: Uuid,
    /// Now.
    pub at: Timestamp,
}

impl Write for Redeliver {
    /// The delivery as it is then; nothing if there is none.
    type Output = Option<Delivery>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        // A repeated write finds its own; what came of an attempt that is under way counts no more.
        let query = statement(
            "UPDATE deliveries SET status = 'pending', tried_from = redo.at, next_attempt_at = redo.at, settled_at = NULL,
                 tries = tries + 1
             FROM (SELECT $1 AS id, $2 AS channel_id, $3 AS at) AS redo
             WHERE deliveries.id = redo.id AND deliveries.channel_id = redo.channel_id AND tried_from < redo.at",
        );
        query
            .bind::<SqlUuid, _>(self.id)
            .bind::<SqlUuid, _>(self.channel_id)
            .bind::<Timestamptz, _>(self.at)
            .execute(connection)
            .await?;
        find(connection, self.channel_id, self.id).await
    }

    fn is_change(delivery: &Self::Output) -> bool {
        delivery.is_some()
    }
}

/// Deletes the next deliveries that were settled before a time, and the notices that nobody is told any more. Asked again it
/// deletes the next ones.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// The time.
    pub settled_before: Timestamp,
    /// At most so many.
    pub most: i64,
}

impl Write for Forget {
    /// Whether there may be more.
    type Output = bool;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<bool> {
        let settled = statement(
            "DELETE FROM deliveries USING (SELECT id FROM deliveries WHERE settled_at < $1 ORDER BY settled_at LIMIT $2)
                 AS old WHERE deliveries.id = old.id",
        );
        let settled = settled.bind::<Timestamptz, _>(self.settled_before).bind::<BigInt, _>(self.most);
        let settled = settled.execute(connection).await?;
        let untold = statement(
            "DELETE FROM notices USING (SELECT id FROM notices WHERE at < $1
                 AND NOT EXISTS (SELECT FROM deliveries WHERE deliveries.notice_id = notices.id) ORDER BY at LIMIT $2)
                 AS old WHERE notices.id = old.id",
        );
        let untold = untold.bind::<Timestamptz, _>(self.settled_before).bind::<BigInt, _>(self.most);
        let untold = untold.execute(connection).await?;
        Ok(settled.max(untold) >= usize::try_from(self.most).unwrap_or(usize::MAX))
    }
}
