//! A write whose commit was not answered is applied again: the second time must change nothing and say the same.

use crate::rig::{Rig, with_rig};
use chrono::{SubsecRound, TimeDelta, Utc};
use fleet_coordinator::db::aged::{Aged, ForgetAged};
use fleet_coordinator::db::enrollment::{CreateToken, Enroll, EnrollmentToken};
use fleet_coordinator::db::fleet::{Applied, Apply};
use fleet_coordinator::db::json::Json;
use fleet_coordinator::db::operations::{Change, SaveChange, Tally};
use fleet_coordinator::db::pauses::{self, Target};
use fleet_coordinator::db::repositories::{Changed, Deleted};
use fleet_coordinator::db::schedules::Schedule;
use fleet_coordinator::db::source_groups::{Put, SourceGroup, Stored};
use fleet_coordinator::db::tokens::{self, ApiToken};
use fleet_coordinator::db::{hosts, idempotency, repositories, schedules, source_groups};
use fleet_coordinator::fleet::wanted::{Layer, Selector, Template, Wanted};
use fleet_coordinator::http::idempotency::KEPT;
use fleet_coordinator::pauses::Pause;
use fleet_coordinator::persistence::{SaveAnswer, Write};
use fleet_coordinator::request::Claim;
use futures_util::future::join_all;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use uuid::Uuid;

/// Applies a write twice; both must say the same and leave the same.
async fn twice<W: Write>(rig: &Rig, write: &W) -> W::Output
where
    W::Output: Debug + PartialEq,
{
    let mut connection = rig.reader().await;
    let first = write.apply(&mut connection).await.expect("the first time");
    let left = rig.whole_database().await;
    let second = write.apply(&mut connection).await.expect("the second time");
    assert_eq!(first, second);
    assert_eq!(rig.whole_database().await, left);
    second
}

#[test]
fn enrolment() {
    with_rig(async |rig| {
        let now = Utc::now().trunc_subsecs(6);
        let token = EnrollmentToken {
            token_hash: vec![1],
            labels: Json::default(),
            repository_id: None,
            host_id: None,
            created_at: now,
            expires_at: now + TimeDelta::seconds(60),
            used_at: None,
        };
        assert!(twice(&rig, &CreateToken(token)).await);
        let enroll = Enroll {
            token_hash: vec![1],
            host_id: Uuid::now_v7(),
            hostname: "one".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            agent_token_hash: vec![2],
            at: now,
        };
        let enrolled = twice(&rig, &enroll).await.expect("enrolled");
        assert_eq!(enrolled.host_id, enroll.host_id);
        // Another host with the same token is another matter.
        let other = Enroll { agent_token_hash: vec![3], host_id: Uuid::now_v7(), ..enroll };
        assert!(twice(&rig, &other).await.is_err());
    });
}

#[test]
fn tokens_come_and_go() {
    with_rig(async |rig| {
        let now = Utc::now().trunc_subsecs(6);
        let row = ApiToken {
            id: Uuid::now_v7(),
            name: "nightly".to_owned(),
            token_hash: vec![1],
            scope: "read".to_owned(),
            host_labels: None,
            created_at: now,
            created_by: "admin".to_owned(),
            expires_at: None,
            last_used_at: None,
            revoked_at: None,
        };
        assert_eq!(twice(&rig, &tokens::Create(row.clone())).await, row);
        let revoke = tokens::Revoke { id: row.id, at: now };
        assert!(twice(&rig, &revoke).await);
        assert!(!twice(&rig, &tokens::Revoke { at: now + TimeDelta::seconds(1), ..revoke }).await);
        // Made again after that, it stays revoked.
        assert_eq!(twice(&rig, &tokens::Create(row)).await.revoked_at, Some(now));
    });
}

#[test]
fn keys_go_when_their_day_is_over() {
    with_rig(async |rig| {
        rig.sql(
            "INSERT INTO idempotency_keys (name, asked, claim, claimed_at)
             SELECT n::text::bytea, '', gen_random_uuid(), now() - interval '1 hour' * (n % 2 * 24 + 1)
             FROM generate_series(1, 500) AS n",
        )
        .await;
        let forget = ForgetAged { what: Aged::Keys, before: Utc::now() - KEPT };
        assert_eq!(rig.write(forget).await, Some(()), "there may be more");
        assert_eq!(rig.write(forget).await, None);
        let mut reader = rig.reader().await;
        let after = Utc::now() - KEPT;
        for (name, there) in [(b"1", false), (b"2", true)] {
            assert_eq!(idempotency::find(&mut reader, name, after).await.expect("read").is_some(), there);
        }
        let left = rig.whole_database().await.matches("\"claimed_at\"").count();
        assert_eq!(left, 250);
    });
}

/// How many statements have written the keys: what one has written has its transaction and its number there.
const STATEMENTS: &str = "SELECT count(DISTINCT (xmin::text, cmin::text))::text AS text FROM idempotency_keys";

#[test]
fn answers_of_a_turn_are_kept_in_one_statement() {
    with_rig(async |rig| {
        const ANSWERS: u32 = 200;
        let at = Utc::now().trunc_subsecs(6);
        let save = |number: u32| {
            let name = number.to_be_bytes().to_vec();
            let claim = Claim { name, asked: vec![1], id: Uuid::now_v7(), at, repeated: false };
            SaveAnswer { claim, answer: vec![2] }
        };
        // One of them twice: the later counts.
        let twice = SaveAnswer { answer: vec![3], ..save(7) };
        let saves: Vec<SaveAnswer> = (0..ANSWERS).map(save).chain([twice]).collect();
        let kept = saves.into_iter().map(|save| rig.services.persistence.send(save));
        for kept in join_all(kept).await {
            kept.expect("the actor").expect("kept");
        }
        let mut reader = rig.reader().await;
        let found = idempotency::find(&mut reader, &7_u32.to_be_bytes(), at - KEPT).await.expect("read").expect("kept");
        assert_eq!(found.answer, Some(vec![3]));
        let statements: usize = rig.one(STATEMENTS).await.parse().expect("a number");
        assert!(statements < 10, "{statements} statements for {ANSWERS} answers");
    });
}

#[test]
fn a_change_of_an_operation() {
    with_rig(async |rig| {
        rig.repository("for-the-dump").await;
        rig.sql(
            "INSERT INTO operations (id, kind, request, created_at, jobs, skipped)
             SELECT ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'check', '{\"selector\": {}, \"per\": \"repository\"}', now(), 0, 0
             FROM generate_series(1, 2) AS n",
        )
        .await;
        let at = Utc::now().trunc_subsecs(6);
        let later = at + TimeDelta::seconds(1);
        let change = |id: u128, change: &Change, at| SaveChange { id: Uuid::from_u128(id), change: change.clone(), at };
        let end = Change::End(Tally::default());
        // Whoever asks first has it done; who asks for the end of what is over changes nothing.
        for (id, wanted, at, done) in [
            (1, &Change::Cancel, at, true),
            (1, &Change::Cancel, later, false),
            (1, &end, later, true),
            (2, &end, at, true),
            (2, &Change::Cancel, later, false),
            (2, &Change::Halt { reason: "x".to_owned() }, later, false),
        ] {
            let saved = twice(&rig, &change(id, wanted, at)).await;
            assert_eq!(saved.as_ref().map(|(_, changed)| *changed), Some(done), "{id} {wanted:?}");
            assert_eq!(SaveChange::is_change(&saved), done);
        }
        assert_eq!(twice(&rig, &change(3, &Change::Cancel, at)).await, None);
    });
}

#[test]
fn the_end_of_a_host() {
    with_rig(async |rig| {
        let (id, _) = rig.host("one", json!({})).await;
        let at = Utc::now().trunc_subsecs(6);
        let end = hosts::Decommission { id: id.parse().expect("an id"), at };
        assert_eq!(twice(&rig, &end).await, hosts::Decommissioned::Done);
        let later = hosts::Decommission { at: at + TimeDelta::seconds(1), ..end };
        assert_eq!(twice(&rig, &later).await, hosts::Decommissioned::NotFound);
    });
}

#[test]
fn repositories_come_and_go() {
    with_rig(async |rig| {
        let id = rig.repository("main").await.parse().expect("an id");
        let row = repositories::find(&mut rig.reader().await, id).await.expect("read").expect("the row");
        let copy = repositories::Repository { id: Uuid::now_v7(), name: "copy".to_owned(), ..row };
        twice(&rig, &repositories::Create(copy.clone())).await;
        let changes = repositories::Changes { url: Some("/srv/new".to_owned()), ..repositories::Changes::default() };
        let changed = twice(&rig, &repositories::Change { id: copy.id, changes }).await;
        assert!(matches!(changed, Changed::Done(row, _) if row.url == "/srv/new"));
        assert_eq!(twice(&rig, &repositories::Delete::new(copy.id)).await, Deleted::Done);
        assert_eq!(twice(&rig, &repositories::Delete::new(copy.id)).await, Deleted::NotFound);
    });
}

#[test]
fn source_groups_come_and_go() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        rig.repository("for-the-dump").await;
        let host_id = host.parse().expect("an id");
        let now = Utc::now().trunc_subsecs(6);
        let group = SourceGroup {
            host_id,
            name: "docs".to_owned(),
            includes: Json(vec!["/srv".to_owned()]),
            excludes: Json::default(),
            retention: None,
            retry_max: 0,
            retry_backoff_seconds: 60,
            pre_hook: None,
            post_hook: None,
            created_at: now,
            updated_at: now,
            rpo_seconds: None,
        };
        let put = Put { group: group.clone(), replace: false };
        assert!(matches!(twice(&rig, &put).await, Stored::Created(_)));
        let later = SourceGroup { created_at: now + TimeDelta::seconds(1), ..group };
        let refused = Put { group: later.clone(), replace: false };
        assert_eq!(twice(&rig, &refused).await, Stored::Taken);
        assert!(matches!(twice(&rig, &Put { group: later, replace: true }).await, Stored::Replaced(_)));
        let delete = |name: &str| source_groups::Delete::new(host_id, name.to_owned());
        assert_eq!(twice(&rig, &delete("docs")).await, source_groups::Deleted::Gone);
        assert_eq!(twice(&rig, &delete("docs")).await, source_groups::Deleted::NotFound);
    });
}

#[test]
fn schedules_come_and_go() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let groups = format!("/v1/hosts/{host}/source-groups");
        rig.post(&groups, json!({"name": "docs", "includes": ["/srv"]})).await.is(201);
        rig.repository("for-the-dump").await;
        let (host_id, now) = (host.parse().expect("an id"), Utc::now().trunc_subsecs(6));
        let schedule = Schedule {
            id: Uuid::now_v7(),
            host_id,
            cron: "@daily".to_owned(),
            timezone: "UTC".to_owned(),
            enabled: true,
            source_groups: Json(vec!["docs".to_owned()]),
            catch_up_seconds: 60,
            bandwidth_up_kbps: None,
            bandwidth_down_kbps: None,
            interval_seconds: 86400,
            version: 0,
            next_due_at: Some(now),
            created_at: now,
            updated_at: now,
            deleted_at: None,
            name: None,
        };
        let put = |schedule: &Schedule, replace| schedules::Put { schedule: schedule.clone(), replace };
        assert!(matches!(twice(&rig, &put(&schedule, false)).await, schedules::Stored::Done(_)));
        let later = Schedule { updated_at: now + TimeDelta::seconds(1), ..schedule };
        assert!(matches!(twice(&rig, &put(&later, true)).await, schedules::Stored::Done(_)));
        assert!(twice(&rig, &schedules::Delete { host_id, id: later.id, at: now }).await);
        assert!(!twice(&rig, &schedules::Delete { host_id, id: later.id, at: now + TimeDelta::seconds(1) }).await);
    });
}

#[test]
fn pauses_begin_and_end() {
    with_rig(async |rig| {
        let repository = rig.repository("main").await;
        let (host, _) = rig.host("one", json!({"repository_id": repository})).await;
        let (host, now) = (host.parse().expect("an id"), Utc::now().trunc_subsecs(6));
        for target in [Target::Host(host), Target::Repository(repository.parse().expect("an id")), Target::Fleet] {
            let pause = Pause { reason: "r".to_owned(), by: "b".to_owned(), since: now };
            let put = pauses::Put { target, pause: pause.clone() };
            assert_eq!(twice(&rig, &put).await, Some((pause.clone(), vec![host])));
            let again = Pause { reason: "s".to_owned(), since: now + TimeDelta::seconds(1), ..pause.clone() };
            let changed = twice(&rig, &pauses::Put { target, pause: again }).await;
            assert_eq!(changed, Some((Pause { reason: "s".to_owned(), ..pause }, Vec::new())));
            assert_eq!(twice(&rig, &pauses::Delete::new(target)).await, Some(vec![host]));
            assert_eq!(twice(&rig, &pauses::Delete::new(target)).await, None);
        }
        let pause = Pause { reason: "r".to_owned(), by: "b".to_owned(), since: now };
        assert_eq!(twice(&rig, &pauses::Put { target: Target::Host(Uuid::nil()), pause }).await, None);
    });
}

#[test]
fn a_document_of_the_fleet() {
    with_rig(async |rig| {
        let (host, _) = rig.host("one", json!({})).await;
        let now = Utc::now().trunc_subsecs(6);
        let group = SourceGroup {
            host_id: Uuid::nil(),
            name: "docs".to_owned(),
            includes: Json(vec!["/srv".to_owned()]),
            excludes: Json::default(),
            retention: None,
            retry_max: 0,
            retry_backoff_seconds: 60,
            pre_hook: None,
            post_hook: None,
            created_at: now,
            updated_at: now,
            rpo_seconds: None,
        };
        let groups = Some(BTreeMap::from([("docs".to_owned(), group)]));
        let layer = Layer { pointer: "/templates/0".to_owned(), groups, ..Layer::default() };
        let wanted = Wanted { templates: vec![Template { selector: Selector::default(), layer }], ..Wanted::default() };
        let mut apply = Apply::new(Arc::new(wanted), Arc::clone(&rig.services.vault), now, None);
        let mut connection = rig.reader().await;
        let mut told = Vec::new();
        for _ in 0..2 {
            let Ok(Applied::Done(done)) = apply.apply(&mut connection).await else { panic!("not done") };
            told.push((done.plan.steps.len(), done.tag, rig.whole_database().await));
            // What it was to be only if, it has changed itself.
            apply.only_if.get_or_insert_with(|| vec!["another".to_owned()]);
        }
        assert_eq!(told[0].0, 1);
        assert_eq!(told[0], told[1]);
        let mut anew = Apply::new(Arc::clone(&apply.wanted), Arc::clone(&rig.services.vault), now, None);
        anew.only_if = Some(vec!["another".to_owned()]);
        assert!(matches!(anew.apply(&mut connection).await, Ok(Applied::Changed)));
        let group = source_groups::find(&mut connection, host.parse().expect("an id"), "docs").await;
        assert_eq!(group.expect("read").map(|row| row.includes.0), Some(vec!["/srv".to_owned()]));
    });
}
