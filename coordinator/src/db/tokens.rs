//! Tokens of the REST API.

use super::json::Json;
use super::schema::api_tokens;
use super::statement::statement;
use crate::access::Labels;
use crate::persistence::Write;
use diesel::prelude::*;
use diesel::sql_types::{Array, Timestamptz, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::Timestamp;
use uuid::Uuid;

/// A token as it stands in its row. The token itself is known to its holder only.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = api_tokens)]
#[allow(missing_docs, reason = "the columns; the migration says what needs saying")]
pub struct ApiToken {
    pub id: Uuid,
    pub name: String,
    /// See [`crate::vault::hash_token`].
    pub token_hash: Vec<u8>,
    /// A [`crate::access::Scope`].
    pub scope: String,
    pub host_labels: Option<Json<Labels>>,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// Makes a token. A name that a living token has violates `api_tokens_name`; one that has expired gives its name away.
#[derive(Clone, Debug)]
pub struct Create(pub ApiToken);

impl Write for Create {
    /// As it stands: a repeated write may find it revoked.
    type Output = ApiToken;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<ApiToken> {
        let Self(row) = self;
        let expired = api_tokens::name.eq(&row.name).and(api_tokens::expires_at.le(row.created_at));
        diesel::update(api_tokens::table.filter(expired.and(api_tokens::revoked_at.is_null())))
            .set(api_tokens::revoked_at.eq(api_tokens::expires_at))
            .execute(connection)
            .await?;
        diesel::insert_into(api_tokens::table)
            .values(row)
            .on_conflict(api_tokens::id)
            .do_nothing()
            .execute(connection)
            .await?;
        api_tokens::table.find(row.id).select(ApiToken::as_select()).first(connection).await
    }
}

/// Revokes a token.
#[derive(Clone, Copy, Debug)]
pub struct Revoke {
    /// The token.
    pub id: Uuid,
    /// Now.
    pub at: Timestamp,
}

impl Write for Revoke {
    /// Whether it was good until now.
    type Output = bool;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<bool> {
        // A repeated write finds its own.
        let good = api_tokens::revoked_at.is_null().or(api_tokens::revoked_at.eq(self.at));
        let row = api_tokens::table.filter(api_tokens::id.eq(self.id).and(good));
        Ok(diesel::update(row).set(api_tokens::revoked_at.eq(self.at)).execute(connection).await? > 0)
    }

    fn is_change(revoked: &bool) -> bool {
        *revoked
    }
}

/// Notes when tokens were last used.
#[derive(Clone, Debug)]
pub struct NoteUse(pub Vec<(Uuid, Timestamp)>);

impl Write for NoteUse {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let (ids, times): (Vec<Uuid>, Vec<Timestamp>) = self.0.iter().copied().unzip();
        let query = statement(
            "UPDATE api_tokens SET last_used_at = greatest(last_used_at, news.used_at)
             FROM unnest($1, $2) AS news (id, used_at) WHERE api_tokens.id = news.id",
        );
        query.bind::<Array<SqlUuid>, _>(ids).bind::<Array<Timestamptz>, _>(times).execute(connection).await?;
        Ok(())
    }
}

/// All that are not revoked.
///
/// # Errors
/// The database's.
pub async fn living(connection: &mut AsyncPgConnection) -> QueryResult<Vec<ApiToken>> {
    let living = api_tokens::table.filter(api_tokens::revoked_at.is_null());
    living.select(ApiToken::as_select()).load(connection).await
}

/// One of them, revoked ones too.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<ApiToken>> {
    api_tokens::table.find(id).select(ApiToken::as_select()).first(connection).await.optional()
}

/// At most `limit` that are not revoked, the oldest first, from behind `after` (when it was made, its id).
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<ApiToken>> {
    let living = api_tokens::table.filter(api_tokens::revoked_at.is_null()).select(ApiToken::as_select());
    let mut query = living.into_boxed();
    if let Some((created_at, id)) = after {
        let later = api_tokens::created_at.eq(created_at).and(api_tokens::id.gt(id));
        query = query.filter(api_tokens::created_at.gt(created_at).or(later));
    }
    query.order((api_tokens::created_at, api_tokens::id)).limit(limit).load(connection).await
}
