//! The newest agent, as it is kept: one setting of the installation.

use super::settings;
use crate::persistence::Write;
use crate::release::Release;
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;

/// The name of the setting.
const NAME: &str = "agent_release";

/// The newest agent, if somebody has told us.
///
/// # Errors
/// The database's.
pub async fn find(connection: &mut AsyncPgConnection) -> QueryResult<Option<Release>> {
    let value = settings::get(connection, NAME).await?;
    // What can't be read was written by another version: it is told anew.
    Ok(value.and_then(|value| serde_json::from_slice(&value).ok()))
}

/// Sets it.
#[derive(Clone, Debug)]
pub struct Put(pub Release);

impl Write for Put {
    type Output = ();

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<()> {
        let value = serde_json::to_vec(&self.0).unwrap_or_default(); // texts always have a JSON form
        settings::put(connection, NAME, &value).await
    }
}
