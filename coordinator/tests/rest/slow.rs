//! A transaction that takes too long is given up with its connection: what is confirmed after it is committed.

use actix::Actor;
use chrono::{SubsecRound, Utc};
use diesel_async::RunQueryDsl;
use fleet_coordinator::db::Database;
use fleet_coordinator::db::enrollment::{CreateToken, EnrollmentToken};
use fleet_coordinator::db::json::Json;
use fleet_coordinator::persistence::{CoordinatorLock, Patience, Persistence, Save};
use fleet_wire::Secret;
use std::time::Duration;

/// Everything here happens within this time or the test fails.
const LIMIT: Duration = Duration::from_secs(30);

fn token(number: u8) -> Save<CreateToken> {
    let now = Utc::now().trunc_subsecs(6);
    let token = EnrollmentToken {
        token_hash: vec![number],
        labels: Json::default(),
        repository_id: None,
        host_id: None,
        created_at: now,
        expires_at: now,
        used_at: None,
    };
    Save { write: CreateToken(token), patience: Patience::Endless }
}

async fn tokens(database: &Database) -> usize {
    let mut reader = database.connect().await.expect("a connection");
    diesel::sql_query("SELECT * FROM enrollment_tokens").execute(&mut reader).await.expect("a count")
}

#[test]
fn nothing_is_confirmed_that_is_not_committed() {
    let own = fleet_integration::Database::create().expect("a database");
    actix::System::new().block_on(async {
        let database = Database::new(&Secret::new(own.url())).expect("a pool");
        database.migrate().await.expect("migrated");
        let mut blocker = database.connect().await.expect("a connection");
        diesel::sql_query("BEGIN").execute(&mut blocker).await.expect("a transaction");
        diesel::sql_query("LOCK TABLE enrollment_tokens").execute(&mut blocker).await.expect("a lock");
        let lock = CoordinatorLock::take(&database).await.expect("the coordinator's lock");
        let (lost, _lost) = tokio::sync::mpsc::unbounded_channel();
        let limit = Duration::from_millis(300);
        let writer = Persistence::new(database.clone(), lock, lost).with_transaction_limit(limit).start();
        let first = tokio::time::timeout(limit * 3, writer.send(token(1))).await;
        assert!(first.is_err(), "the table is locked");
        diesel::sql_query("ROLLBACK").execute(&mut blocker).await.expect("the lock is gone");
        let second = tokio::time::timeout(LIMIT, writer.send(token(2))).await.expect("an answer in time");
        assert!(second.expect("a writer").expect("written"));
        assert_eq!(tokens(&database).await, 2, "what waited is written too, and seen by others");
    });
}
