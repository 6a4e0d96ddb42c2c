//! Channels: who is told, and of what.

use super::json::Json;
use super::schema::channels;
use crate::access::Labels;
use crate::notify::{Event, Events};
use crate::persistence::Write;
use crate::vault::Place;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

/// How many there may be: each may have a thread, and receivers that hang are not to take all of them.
pub const MOST: i64 = 100;

/// A channel as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = channels)]
#[allow(missing_docs, reason = "the columns; the migration says what they mean")]
pub struct Channel {
    pub id: Uuid,
    pub name: String,
    pub kind: String,
    pub url: Option<String>,
    /// Sealed, see [`secret_place`].
    pub secret: Option<Vec<u8>>,
    pub recipients: Option<Json<Vec<String>>>,
    pub events: Option<Json<Vec<Event>>>,
    pub host_labels: Option<Json<Labels>>,
    pub repository_id: Option<Uuid>,
    pub enabled: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Where the vault seals a channel's secret.
pub fn secret_place(id: Uuid) -> Place<'static> {
    Place { table: "channels", row: id, column: "secret" }
}

/// What all channels together want.
///
/// # Errors
/// The database's.
pub async fn wanted(connection: &mut AsyncPgConnection) -> QueryResult<Events> {
    let enabled = channels::table.filter(channels::enabled).select(channels::events);
    let events: Vec<Option<Json<Vec<String>>>> = enabled.load(connection).await?;
    let of = |events: Option<Json<Vec<String>>>| match events {
        Some(Json(words)) => words.iter().filter_map(|word| Event::of(word)).collect(),
        None => Events::all(),
    };
    Ok(events.into_iter().map(of).fold(Events::default(), Events::or))
}

/// Makes a channel. A name that is taken violates `channels_name`.
#[derive(Clone, Debug)]
pub struct Create(pub Channel);

impl Write for Create {
    /// What all channels want then; nothing is made if there are too many.
    type Output = Option<Events>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let Self(row) = self;
        let others: i64 = channels::table.filter(channels::id.ne(row.id)).count().get_result(connection).await?;
        if others >= MOST {
            return Ok(None);
        }
        let made = diesel::insert_into(channels::table).values(row).on_conflict(channels::id).do_nothing();
        made.execute(connection).await?;
        wanted(connection).await.map(Some)
    }

    fn is_change(made: &Self::Output) -> bool {
        made.is_some()
    }
}

/// What an operator changes of a channel. `None` leaves a column alone, `Some(None)` empties it.
#[derive(Clone, Debug, Default, PartialEq, AsChangeset)]
#[diesel(table_name = channels)]
#[allow(missing_docs, reason = "the columns")]
pub struct Changes {
    pub name: Option<String>,
    pub url: Option<String>,
    pub secret: Option<Vec<u8>>,
    pub recipients: Option<Json<Vec<String>>>,
    pub events: Option<Option<Json<Vec<Event>>>>,
    pub host_labels: Option<Option<Json<Labels>>>,
    pub repository_id: Option<Option<Uuid>>,
    pub enabled: Option<bool>,
    pub updated_at: Option<Timestamp>,
}

/// Changes a channel.
#[derive(Clone, Debug)]
pub struct Change {
    /// The channel.
    pub id: Uuid,
    /// What to change of it.
    pub changes: Changes,
}

impl Write for Change {
    /// The channel as it is then, and what all want; nothing if there is none.
    type Output = Option<(Channel, Events)>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        if self.changes != Changes::default() {
            let row = diesel::update(channels::table.find(self.id));
            row.set(&self.changes).execute(connection).await?;
        }
        let Some(channel) = find(connection, self.id).await? else { return Ok(None) };
        Ok(Some((channel, wanted(connection).await?)))
    }

    fn is_change(changed: &Self::Output) -> bool {
        changed.is_some()
    }
}

/// Deletes a channel, with all that is on its way to it.
#[derive(Debug)]
pub struct Delete {
    id: Uuid,
    /// Set once the row was seen, so that a repeated write says what the first one said.
    seen: AtomicBool,
}

impl Delete {
    /// Deletes the channel `id`.
    pub fn new(id: Uuid) -> Self {
        Self { id, seen: AtomicBool::new(false) }
    }
}

impl Write for Delete {
    /// What all channels want then; nothing if there was none.
    type Output = Option<Events>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let gone = diesel::delete(channels::table.find(self.id)).execute(connection).await? > 0;
        let seen = self.seen.fetch_or(gone, Ordering::Relaxed) || gone;
        Ok(if seen { Some(wanted(connection).await?) } else { None })
    }

    fn is_change(deleted: &Self::Output) -> bool {
        deleted.is_some()
    }
}

/// One channel.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Channel>> {
    channels::table.find(id).select(Channel::as_select()).first(connection).await.optional()
}

/// At most `limit` channels, oldest first, from behind `after` (creation time, id).
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<Channel>> {
    let mut query = channels::table.select(Channel::as_select()).into_boxed();
    if let Some((created_at, id)) = after {
        let later = channels::created_at.eq(created_at).and(channels::id.gt(id));
        query = query.filter(channels::created_at.gt(created_at).or(later));
    }
    query.order((channels::created_at, channels::id)).limit(limit).load(connection).await
}
