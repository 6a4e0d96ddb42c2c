//! A database for one test.

use crate::server::Server;
use crate::{Context, Failure};
use std::env;
use tokio::runtime::Runtime;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use uuid::Uuid;

/// A fresh, empty database in the server of `FLEET_TEST_DATABASE_URL`, or in a private one; dropped with its handle.
#[derive(Debug)]
pub struct Database {
    name: String,
    maintenance: String,
    runtime: Runtime,
    _server: Option<Server>,
}

impl Database {
    /// Makes the database.
    ///
    /// # Errors
    /// The server can't be reached or started.
    pub fn create() -> Result<Self, Failure> {
        let given = env::var("FLEET_TEST_DATABASE_URL").ok().filter(|url| !url.is_empty());
        let server = if given.is_none() { Some(Server::start()?) } else { None };
        let maintenance = given.or_else(|| server.as_ref().map(Server::url)).unwrap_or_default();
        Self::create_in(maintenance, server)
    }

    /// Makes one in a server of the test's own.
    ///
    /// # Errors
    /// The server can't be reached.
    pub fn on(server: &Server) -> Result<Self, Failure> {
        Self::create_in(server.url(), None)
    }

    /// Makes one in the server whose maintenance database is at `url`.
    ///
    /// # Errors
    /// The server can't be reached.
    pub fn at(url: String) -> Result<Self, Failure> {
        Self::create_in(url, None)
    }

    fn create_in(maintenance: String, server: Option<Server>) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("fleet_test_{}", Uuid::new_v4().simple());
        let database = Self { name, maintenance, runtime, _server: server };
        database.run(&database.maintenance, &format!("CREATE DATABASE {} TEMPLATE template0", database.name))?;
        Ok(database)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        with_database(&self.maintenance, &self.name)
    }

    /// Runs SQL and gives its rows, every value as text.
    ///
    /// # Errors
    /// The server can't be reached, or refuses the SQL.
    pub fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        self.run(&self.url(), sql)
    }

    fn run(&self, url: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let messages = self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            let background = tokio::spawn(connection);
            let messages = client.simple_query(sql).await;
            drop(client);
            let _ = background.await;
            messages
        });
        let rows = messages.context(sql)?.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Whoever still uses it belongs to the same test.
        let _ = self.run(&self.maintenance, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// The URL with another database in it.
fn with_database(url: &str, name: &str) -> String {
    let (address, options) = url.split_once('?').map_or((url, None), |(address, options)| (address, Some(options)));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority..].find('/').map_or(address.len(), |at| authority + at);
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    format!("{}/{name}{options}", &address[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_server() {
        assert_eq!(with_database("postgresql:///postgres?host=/tmp/x", "a"), "postgresql:///a?host=/tmp/x");
        assert_eq!(with_database("postgres://u:p@h:5/db", "a"), "postgres://u:p@h:5/a");
        assert_eq!(with_database("postgres://h", "a"), "postgres://h/a");
    }

    #[test]
    fn a_database_is_empty_and_goes_with_its_handle() {
        let lasting = Database::create().unwrap();
        let passing = Database::create().unwrap();
        assert_eq!(passing.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").unwrap().len(), 1);
        let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", passing.name);
        let seen = |database: &Database| database.query(&count).unwrap()[0][0].clone();
        if std::env::var_os("FLEET_TEST_DATABASE_URL").is_some() {
            assert_eq!(seen(&lasting).as_deref(), Some("1"));
        }
        drop(passing);
        assert_eq!(seen(&lasting).as_deref(), Some("0"));
    }
}
