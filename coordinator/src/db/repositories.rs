//! Repositories, with their secrets sealed.

use super::hosts;
use super::jobs::OPEN;
use super::json::Json;
use super::schema::{hosts as host_rows, jobs, repositories, runs};
use crate::fleet::sources::Source;
use crate::persistence::Write;
use crate::vault::{Place, UnsealError, Vault};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Secret, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

/// The columns that hold sealed secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the columns")]
pub enum SecretColumn {
    Password,
    Credential,
    AdminPassword,
    AdminCredential,
}

/// Where secrets come from. One that was set over REST is not in it.
pub type SecretSources = BTreeMap<SecretColumn, Source>;

impl SecretColumn {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Password, Self::Credential, Self::AdminPassword, Self::AdminCredential];

    /// Where the vault seals the secret of repository `id` in this column.
    pub fn place(self, id: Uuid) -> Place<'static> {
        let column = match self {
            Self::Password => "password",
            Self::Credential => "credential",
            Self::AdminPassword => "admin_password",
            Self::AdminCredential => "admin_credential",
        };
        Place { table: "repositories", row: id, column }
    }
}

/// A repository as it stands in its row.
#[derive(Clone, Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = repositories, treat_none_as_null = true)]
#[allow(missing_docs, reason = "the columns")]
pub struct Repository {
    pub id: Uuid,
    pub name: String,
    pub url: String,
    pub username: Option<String>,
    pub password: Vec<u8>,
    pub credential: Option<Vec<u8>>,
    pub admin_url: Option<String>,
    pub admin_username: Option<String>,
    pub admin_password: Option<Vec<u8>>,
    pub admin_credential: Option<Vec<u8>>,
    /// Whether there is an admin credential of its own; what it leaves open it shares with the everyday one.
    pub has_admin: bool,
    pub append_only: bool,
    pub runner_host_id: Option<Uuid>,
    pub forget_max_snapshots: Option<i64>,
    pub forget_max_share: Option<f64>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// How many backups may be out at once, if it has a limit of its own.
    pub max_backups: Option<i64>,
    pub secret_sources: Json<SecretSources>,
}

impl Repository {
    /// The opened secret of a column, if the row has one there.
    ///
    /// # Errors
    /// It was sealed with another key, or elsewhere.
    pub fn secret(&self, vault: &Vault, column: SecretColumn) -> Result<Option<Secret>, UnsealError> {
        let sealed = match column {
            SecretColumn::Password => Some(&self.password),
            SecretColumn::Credential => self.credential.as_ref(),
            SecretColumn::AdminPassword => self.admin_password.as_ref(),
            SecretColumn::AdminCredential => self.admin_credential.as_ref(),
        };
        sealed.map(|sealed| vault.unseal_text(column.place(self.id), sealed)).transpose()
    }
}

#[cfg(test)]
impl Repository {
    /// A repository for tests, of which nothing is known.
    pub(crate) fn sample(id: Uuid) -> Self {
        Self {
            id,
            name: "main".to_owned(),
            url: "/srv/repo".to_owned(),
            username: None,
            password: Vec::new(),
            credential: None,
            admin_url: None,
            admin_username: None,
            admin_password: None,
            admin_credential: None,
            has_admin: false,
            append_only: false,
            runner_host_id: None,
            forget_max_snapshots: None,
            forget_max_share: None,
            max_backups: None,
            secret_sources: Json::default(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }
}

/// One repository.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Repository>> {
    repositories::table.find(id).select(Repository::as_select()).first(connection).await.optional()
}

/// These repositories.
///
/// # Errors
/// The database's.
pub async fn find_many(connection: &mut AsyncPgConnection, ids: &[Uuid]) -> QueryResult<Vec<Repository>> {
    repositories::table.filter(repositories::id.eq_any(ids)).select(Repository::as_select()).load(connection).await
}

/// At most `limit` repositories, oldest first, from behind `after` (creation time, id).
///
/// # Errors
/// The database's.
pub async fn list(
    connection: &mut AsyncPgConnection,
    among: Option<&[Uuid]>,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> QueryResult<Vec<Repository>> {
    let mut query = repositories::table.select(Repository::as_select()).into_boxed();
    if let Some(among) = among {
        query = query.filter(repositories::id.eq_any(among));
    }
    if let Some((created_at, id)) = after {
        let later = repositories::created_at.eq(created_at).and(repositories::id.gt(id));
        query = query.filter(repositories::created_at.gt(created_at).or(later));
    }
    query.order((repositories::created_at, repositories::id)).limit(limit).load(connection).await
}

/// How many backups may be out at once, in the repositories that have a limit of their own.
///
/// # Errors
/// The database's.
pub async fn most_backups(connection: &mut AsyncPgConnection) -> QueryResult<HashMap<Uuid, u32>> {
    let limited = repositories::table.filter(repositories::max_backups.is_not_null());
    let rows: Vec<(Uuid, i64)> =
        limited.select((repositories::id, repositories::max_backups.assume_not_null())).load(connection).await?;
    Ok(rows.into_iter().map(|(id, most)| (id, limit(most))).collect())
}

/// A stored limit, as the dispatcher takes it.
pub fn limit(most: i64) -> u32 {
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// Makes a repository. A name that is taken violates `repositories_name_key`.
#[derive(Clone, Debug)]
pub struct Create(pub Repository);

impl Write for Create {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        diesel::insert_into(repositories::table)
            .values(&self.0)
            .on_conflict(repositories::id)
            .do_nothing()
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// What an operator changes of a repository. `None` leaves a column alone, `Some(None)` empties it.
#[derive(Clone, Debug, Default, PartialEq, AsChangeset)]
#[diesel(table_name = repositories)]
#[allow(missing_docs, reason = "the columns")]
pub struct Changes {
    pub name: Option<String>,
    pub url: Option<String>,
    pub username: Option<Option<String>>,
    pub password: Option<Vec<u8>>,
    pub credential: Option<Option<Vec<u8>>>,
    pub admin_url: Option<Option<String>>,
    pub admin_username: Option<Option<String>>,
    pub admin_password: Option<Option<Vec<u8>>>,
    pub admin_credential: Option<Option<Vec<u8>>>,
    pub has_admin: Option<bool>,
    pub append_only: Option<bool>,
    pub max_backups: Option<Option<i64>>,
    pub updated_at: Option<Timestamp>,
    /// Absent: those of the secrets that are changed are forgotten.
    pub secret_sources: Option<Json<SecretSources>>,
}

impl Changes {
    /// Where the secrets come from once these changes are made.
    fn sources_after(&self, before: &SecretSources) -> SecretSources {
        let changed = |column: &SecretColumn| match column {
            SecretColumn::Password => self.password.is_some(),
            SecretColumn::Credential => self.credential.is_some(),
            SecretColumn::AdminPassword => self.admin_password.is_some(),
            SecretColumn::AdminCredential => self.admin_credential.is_some(),
        };
        before.iter().filter(|(column, _)| !changed(column)).map(|(column, source)| (*column, source.clone())).collect()
    }

    /// Takes the admin credential away, whatever there is of it.
    #[must_use]
    pub fn without_admin(self) -> Self {
        Self {
            admin_url: Some(None),
            admin_username: Some(None),
            admin_password: Some(None),
            admin_credential: Some(None),
            has_admin: Some(false),
            ..self
        }
    }
}

/// Changes a repository. One that moves to another place has to be initialised there again.
#[derive(Clone, Debug)]
pub struct Change {
    /// The repository.
    pub id: Uuid,
    /// What to change of it.
    pub changes: Changes,
}

/// What came of a [`Change`].
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// The repository as it is then, and the hosts that use it.
    Done(Box<Repository>, Vec<Uuid>),
    /// There is no such repository.
    NotFound,
    /// It can't move: jobs that are not over work on it where it is.
    Busy,
}

impl Write for Change {
    type Output = Changed;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let Some(before) = find(connection, self.id).await? else { return Ok(Changed::NotFound) };
        if self.changes.url.as_ref().is_some_and(|url| *url != before.url) {
            let open = jobs::table.filter(jobs::repository_id.eq(self.id).and(jobs::status.eq_any(OPEN)));
            if diesel::select(diesel::dsl::exists(open)).get_result(connection).await? {
                return Ok(Changed::Busy);
            }
        }
        let after = if self.changes == Changes::default() {
            before.clone()
        } else {
            let sources = || Json(self.changes.sources_after(&before.secret_sources.0));
            let secret_sources = Some(self.changes.secret_sources.clone().unwrap_or_else(sources));
            diesel::update(repositories::table.find(self.id))
                .set(&Changes { secret_sources, ..self.changes.clone() })
                .returning(Repository::as_returning())
                .get_result(connection)
                .await?
        };
        if after.url != before.url {
            diesel::update(host_rows::table.filter(host_rows::initialized_repository_id.eq(self.id)))
                .set(host_rows::initialized_repository_id.eq(None::<Uuid>))
                .execute(connection)
                .await?;
        }
        Ok(Changed::Done(Box::new(after), hosts::using(connection, self.id).await?))
    }

    fn is_change(changed: &Changed) -> bool {
        matches!(changed, Changed::Done(..))
    }
}

/// What came of a [`Delete`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Done,
    /// There was none.
    NotFound,
    /// Hosts are assigned to it, this many.
    UsedByHosts(i64),
    /// Jobs have worked on it, this many: their history needs it.
    UsedByJobs(i64),
}

/// Deletes a repository that nothing uses.
#[derive(Debug)]
pub struct Delete {
    id: Uuid,
    /// Set once the row was seen, so that a repeated write says what the first one said.
    seen: AtomicBool,
}

impl Delete {
    /// Deletes the repository `id`.
    pub fn new(id: Uuid) -> Self {
        Self { id, seen: AtomicBool::new(false) }
    }
}

impl Write for Delete {
    type Output = Deleted;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let used = hosts::using(connection, self.id).await?.len();
        if used > 0 {
            return Ok(Deleted::UsedByHosts(i64::try_from(used).unwrap_or(i64::MAX)));
        }
        let used = jobs::table.filter(jobs::repository_id.eq(self.id)).count().get_result(connection).await?;
        if used > 0 {
            return Ok(Deleted::UsedByJobs(used));
        }
        // Hosts that are out of service let go of it.
        diesel::update(host_rows::table.filter(host_rows::repository_id.eq(self.id)))
            .set(host_rows::repository_id.eq(None::<Uuid>))
            .execute(connection)
            .await?;
        // Maintenance that nobody ever did.
        diesel::delete(runs::table.filter(runs::repository_id.eq(self.id).and(runs::schedule_id.is_null())))
            .execute(connection)
            .await?;
        let gone = diesel::delete(repositories::table.find(self.id)).execute(connection).await? > 0;
        let seen = self.seen.fetch_or(gone, Ordering::Relaxed) || gone;
        Ok(if seen { Deleted::Done } else { Deleted::NotFound })
    }

    fn is_change(deleted: &Deleted) -> bool {
        *deleted == Deleted::Done
    }
}
