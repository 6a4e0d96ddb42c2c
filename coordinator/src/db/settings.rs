//! Facts about the installation itself.

use super::schema::settings;
use super::{Database, DatabaseError};
use crate::vault::{Place, Vault};
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

/// The row that shows whether a key is this database's.
const KEY_CHECK: &str = "key_check";
/// What is sealed in it.
const PLAIN: &[u8] = b"restic-fleet";
const PLACE: Place<'static> = Place { table: "settings", row: Uuid::nil(), column: KEY_CHECK };

/// Whether `vault` has the key that this database was first used with; the first use decides.
///
/// # Errors
/// The database's.
pub async fn check_key(database: &Database, vault: &Vault) -> Result<bool, DatabaseError> {
    let mut connection = database.connect().await?;
    let sealed = vault.seal(PLACE, PLAIN).map_err(|error| DatabaseError::Unreachable(error.to_string()))?;
    diesel::insert_into(settings::table)
        .values((settings::name.eq(KEY_CHECK), settings::value.eq(sealed)))
        .on_conflict_do_nothing()
        .execute(&mut connection)
        .await?;
    let stored: Vec<u8> = settings::table.find(KEY_CHECK).select(settings::value).first(&mut connection).await?;
    Ok(vault.unseal(PLACE, &stored).is_ok_and(|plain| plain == PLAIN))
}

/// A setting, if it is set.
///
/// # Errors
/// The database's.
pub async fn get(connection: &mut AsyncPgConnection, name: &str) -> QueryResult<Option<Vec<u8>>> {
    settings::table.find(name).select(settings::value).first(connection).await.optional()
}

/// The same, and nobody can change it before the transaction is over.
///
/// # Errors
/// The database's.
pub async fn get_and_hold(connection: &mut AsyncPgConnection, name: &str) -> QueryResult<Option<Vec<u8>>> {
    settings::table.find(name).select(settings::value).for_share().first(connection).await.optional()
}

/// Sets it.
///
/// # Errors
/// The database's.
pub async fn put(connection: &mut AsyncPgConnection, name: &str, value: &[u8]) -> QueryResult<()> {
    diesel::insert_into(settings::table)
        .values((settings::name.eq(name), settings::value.eq(value)))
        .on_conflict(settings::name)
        .do_update()
        .set(settings::value.eq(value))
        .execute(connection)
        .await?;
    Ok(())
}
