//! A transaction that takes too long is given up with its connection: what is confirmed after it is committed.

use crate::rig::{Rig, with_rig};
use actix::Actor;
use chrono::{SubsecRound, Utc};
use diesel_async::RunQueryDsl;
use fleet_coordinator::db::enrollment::{CreateToken, EnrollmentToken};
use fleet_coordinator::db::json::Json;
use fleet_coordinator::persistence::{CoordinatorLock, Patience, Persistence, Save};
use std::time::Duration;

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

async fn tokens(rig: &Rig) -> usize {
    let mut reader = rig.reader().await;
    diesel::sql_query("SELECT * FROM enrollment_tokens").execute(&mut reader).await.expect("a count")
}

#[test]
fn nothing_is_confirmed_that_is_not_committed() {
    with_rig(async |rig| {
        let database = rig.services.database.clone();
        let mut blocker = rig.reader().await;
        diesel::sql_query("BEGIN").execute(&mut blocker).await.expect("a transaction");
        diesel::sql_query("LOCK TABLE enrollment_tokens").execute(&mut blocker).await.expect("a lock");
        // The rig's own writer holds the lock of the coordinator; this one's is another database's business.
        diesel::sql_query(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database =
             (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()",
        )
        .execute(&mut rig.reader().await)
        .await
        .expect("ended");
        let lock = CoordinatorLock::take(&database).await.expect("the lock");
        let (lost, _lost) = tokio::sync::mpsc::unbounded_channel();
        let limit = Duration::from_millis(300);
        let writer = Persistence::new(database.clone(), lock, lost).with_transaction_limit(limit).start();
        let first = writer.send(token(1));
        let blocked = tokio::time::timeout(limit * 3, first).await;
        assert!(blocked.is_err(), "the table is locked");
        diesel::sql_query("ROLLBACK").execute(&mut blocker).await.expect("the lock is gone");
        assert!(writer.send(token(2)).await.expect("an answer").expect("written"));
        assert_eq!(tokens(&rig).await, 2, "what waited is written too, and seen by others");
    });
}
