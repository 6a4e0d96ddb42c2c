//! Repositories, with their secrets sealed.

use super::schema::repositories;
use crate::vault::{Place, UnsealError, Vault};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use fleet_wire::{Secret, Timestamp};
use uuid::Uuid;

/// The columns that hold sealed secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the columns")]
pub enum SecretColumn {
    Password,
    Credential,
    AdminPassword,
    AdminCredential,
}

impl SecretColumn {
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
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
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

/// One repository.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection, id: Uuid) -> QueryResult<Option<Repository>> {
    repositories::table.find(id).select(Repository::as_select()).first(connection).await.optional()
}
