//! Plans of any document for any ledger, carried out on a model of what [`crate::db::fleet`] writes.

use super::export::tag;
use super::ledger::{KnownHost, KnownRepository, Ledger};
use super::plan::{Action, Fault, Kind, Plan, Work, plan};
use super::sources::Source;
use super::wanted::{
    Layer, Selector, Template, Wanted, WantedAdmin, WantedHost, WantedMaintenance, WantedRepository, WantedSecret,
};
use crate::access::Labels;
use crate::db::hosts::{Changes, Host};
use crate::db::json::Json;
use crate::db::maintenance::Entry;
use crate::db::repositories::{Repository, SecretColumn};
use crate::db::schedules::Schedule;
use crate::db::source_groups::SourceGroup;
use fleet_wire::{ForgetLimit, RetentionPolicy, Secret, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

pub(crate) mod any;
mod model;

use any::wanteds;
use model::carried_out;

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn later() -> Timestamp {
    AT + chrono::TimeDelta::hours(1)
}

/// What stands for a sealed secret in the model.
const SEALED: &[u8] = b"sealed";

pub(crate) fn group(name: &str, path: &str) -> SourceGroup {
    SourceGroup {
        host_id: Uuid::nil(),
        name: name.to_owned(),
        includes: Json(vec![path.to_owned()]),
        excludes: Json::default(),
        retention: Some(Json(RetentionPolicy { keep_last: Some(3), ..RetentionPolicy::default() })),
        retry_max: 0,
        retry_backoff_seconds: 60,
        pre_hook: None,
        post_hook: None,
        created_at: AT,
        updated_at: AT,
        rpo_seconds: None,
    }
}

pub(crate) fn schedule(name: Option<&str>, cron: &str, groups: &[&str]) -> Schedule {
    Schedule {
        id: Uuid::nil(),
        host_id: Uuid::nil(),
        cron: cron.to_owned(),
        timezone: "UTC".to_owned(),
        enabled: true,
        source_groups: Json(groups.iter().map(|group| (*group).to_owned()).collect()),
        catch_up_seconds: 86400,
        bandwidth_up_kbps: None,
        bandwidth_down_kbps: None,
        interval_seconds: 86400,
        version: 1,
        next_due_at: None,
        created_at: AT,
        updated_at: AT,
        deleted_at: None,
        name: name.map(str::to_owned),
    }
}

pub(crate) fn known_repository(number: u128, name: &str) -> KnownRepository {
    let row = Repository {
        name: name.to_owned(),
        url: format!("/srv/{name}"),
        password: SEALED.to_vec(),
        ..Repository::sample(Uuid::from_u128(number))
    };
    let secrets = BTreeMap::from([(SecretColumn::Password, Secret::new("one"))]);
    KnownRepository { row, secrets, entries: Vec::new(), busy: false, has_history: false }
}

pub(crate) fn known_host(number: u128, name: &str, repository: Option<&KnownRepository>) -> KnownHost {
    let row = Host {
        hostname: name.to_owned(),
        repository_id: repository.map(|known| known.row.id),
        ..Host::sample(Uuid::from_u128(number))
    };
    KnownHost { row, groups: Vec::new(), schedules: Vec::new() }
}

fn wanted_repository(name: &str) -> WantedRepository {
    WantedRepository {
        pointer: format!("/repositories/{name}"),
        name: name.to_owned(),
        url: format!("/srv/{name}"),
        username: None,
        admin: None,
        append_only: false,
        max_backups: None,
        secrets: BTreeMap::from([(SecretColumn::Password, WantedSecret::Kept)]),
        maintenance: None,
    }
}

fn wanted_host(name: &str, repository: Option<&str>) -> WantedHost {
    let layer = Layer { pointer: format!("/hosts/{name}"), ..Layer::default() };
    WantedHost { hostname: name.to_owned(), repository: repository.map(str::to_owned), layer }
}

fn labels(role: &str) -> Labels {
    Labels::from([("role".to_owned(), role.to_owned())])
}

/// Plans, and numbers what is new.
fn planned(wanted: &Wanted, ledger: &Ledger, delete: bool) -> Result<Plan, Vec<Fault>> {
    let mut number = tag(ledger).bytes().fold(1_000_000_u128, |sum, byte| sum.wrapping_mul(31) + u128::from(byte));
    plan(wanted, ledger, delete, later(), || {
        number += 1;
        Uuid::from_u128(number)
    })
}

/// What a plan does, a line a step.
fn told(plan: &Plan) -> Vec<String> {
    let line = |step: &super::plan::Step| {
        let fields: Vec<&str> = step.changes.iter().map(|change| change.field.as_str()).collect();
        let thing = [&step.thing.repository, &step.thing.hostname, &step.thing.name];
        let thing: Vec<&str> = thing.into_iter().flatten().map(String::as_str).collect();
        let fields = if step.action == Action::Change { format!(": {}", fields.join(", ")) } else { String::new() };
        format!("{:?} {:?} {}{fields}", step.action, step.thing.kind, thing.join("/"))
    };
    plan.steps.iter().map(line).collect()
}

/// Two hosts of one repository, each with a group and a schedule that REST has made.
fn two_hosts() -> Ledger {
    let repository = known_repository(1, "main");
    let host = |number, name, role| {
        let mut host = known_host(number, name, Some(&repository));
        host.row.labels = Json(labels(role));
        host.groups.push(SourceGroup { host_id: host.row.id, ..group("docs", "/srv/docs") });
        host.schedules.push(Schedule {
            host_id: host.row.id,
            id: Uuid::from_u128(number * 10),
            ..schedule(None, "0 2 * * *", &["docs"])
        });
        host
    };
    let hosts = vec![host(10, "web-1", "web"), host(11, "db-1", "db")];
    Ledger { hosts, repositories: vec![repository] }
}

fn template(role: &str, groups: Vec<SourceGroup>, schedules: Vec<Schedule>) -> Template {
    let groups = groups.into_iter().map(|row| (row.name.clone(), row)).collect();
    let schedules =
        schedules.into_iter().map(|row| (row.name.clone().expect("a name"), Schedule { name: None, ..row }));
    let layer = Layer {
        pointer: "/templates/0".to_owned(),
        groups: Some(groups),
        schedules: Some(schedules.collect()),
        ..Layer::default()
    };
    Template { selector: Selector { labels: labels(role), repository: None }, layer }
}

#[test]
fn a_template_is_for_all_hosts_that_it_means_and_deletes_nothing_unasked() {
    let ledger = two_hosts();
    let dump =
        template("db", vec![group("dump", "/var/dump")], vec![schedule(Some("nightly"), "0 3 * * *", &["dump"])]);
    let wanted = Wanted { templates: vec![dump], ..Wanted::default() };
    let plan = planned(&wanted, &ledger, false).expect("a plan");
    assert_eq!(told(&plan), ["Create SourceGroup main/db-1/dump", "Create Schedule main/db-1/nightly"]);
    assert_eq!(plan.left.iter().map(|left| left.thing.kind).collect::<Vec<_>>(), [Kind::Schedule, Kind::SourceGroup]);
    assert_eq!(plan.rescheduled.iter().copied().collect::<Vec<_>>(), [Uuid::from_u128(11)]);

    let plan = planned(&wanted, &ledger, true).expect("a plan");
    assert_eq!(
        told(&plan)[2..],
        ["Delete Schedule main/db-1/00000000-0000-0000-0000-00000000006e", "Delete SourceGroup main/db-1/docs"]
    );
    assert!(plan.left.is_empty());
}

#[test]
fn a_schedule_that_does_the_same_only_gets_its_name() {
    let ledger = two_hosts();
    let same =
        template("web", vec![group("docs", "/srv/docs")], vec![schedule(Some("nightly"), "0 2 * * *", &["docs"])]);
    let wanted = Wanted { templates: vec![same], ..Wanted::default() };
    let plan = planned(&wanted, &ledger, true).expect("a plan");
    assert_eq!(told(&plan), ["Change Schedule main/web-1/nightly: name"]);
    assert!(plan.rescheduled.is_empty() && plan.reset.is_empty(), "its agent need not hear of it");
}

#[test]
fn a_hosts_own_entry_counts_most() {
    let ledger = two_hosts();
    let shared = template("web", vec![group("docs", "/srv/docs"), group("etc", "/etc")], Vec::new());
    let mut entry = wanted_host("web-1", Some("main"));
    entry.layer.groups = Some(BTreeMap::from([("docs".to_owned(), group("docs", "/home/docs"))]));
    entry.layer.settings = Changes { pre_hook: Some(Some("sync".to_owned())), ..Changes::default() };
    let wanted = Wanted { templates: vec![shared], hosts: vec![entry], ..Wanted::default() };
    let plan = planned(&wanted, &ledger, false).expect("a plan");
    let expected = [
        "Change Host main/web-1: pre_hook",
        "Change SourceGroup main/web-1/docs: includes",
        "Create SourceGroup main/web-1/etc",
    ];
    assert_eq!(told(&plan), expected);
}

#[test]
fn what_is_not_there_yet_is_pending_and_no_fault() {
    let mut repository = wanted_repository("main");
    repository.admin = Some(WantedAdmin { url: None, username: Some("admin".to_owned()) });
    let runner = Some("keeper".to_owned());
    repository.maintenance = Some(WantedMaintenance { runner, entries: Vec::new(), limit: ForgetLimit::default() });
    let hosts = vec![wanted_host("web-9", Some("main"))];
    let wanted = Wanted { repositories: Some(vec![repository]), hosts, ..Wanted::default() };
    let mut ledger = two_hosts();
    let plan = planned(&wanted, &ledger, true).expect("a plan");
    assert_eq!(told(&plan), [""; 0], "without its runner nobody gets the credential that may delete");
    let pending: Vec<_> = plan.pending.iter().map(|pending| pending.thing.hostname.as_deref()).collect();
    assert_eq!(pending, [Some("keeper"), Some("web-9")]);

    let keeper = known_host(12, "keeper", ledger.repositories.first());
    ledger.hosts.push(keeper);
    let plan = planned(&wanted, &ledger, true).expect("a plan");
    assert_eq!(told(&plan), ["Change Repository main: admin", "Create Maintenance main"]);
}

#[test]
fn a_host_without_a_repository_gets_the_one_that_it_is_named_in() {
    let mut ledger = two_hosts();
    ledger.hosts.push(known_host(13, "new-1", None));
    let hosts = vec![wanted_host("new-1", Some("main"))];
    let plan = planned(&Wanted { hosts: hosts.clone(), ..Wanted::default() }, &ledger, false).expect("a plan");
    assert_eq!(told(&plan), ["Change Host main/new-1: repository"]);
    // Which of two is meant nobody knows.
    ledger.hosts.push(known_host(14, "new-1", None));
    let plan = planned(&Wanted { hosts, ..Wanted::default() }, &ledger, false).expect("a plan");
    assert_eq!((plan.steps.len(), plan.pending.len()), (0, 1));
}

#[test]
fn repositories_go_only_if_nothing_needs_them() {
    let mut ledger = two_hosts();
    ledger.repositories.push(known_repository(2, "old"));
    ledger.repositories.push(KnownRepository { has_history: true, ..known_repository(3, "past") });
    let wanted = Wanted { repositories: Some(Vec::new()), ..Wanted::default() };
    let plan = planned(&wanted, &ledger, false).expect("a plan");
    assert_eq!((plan.steps.len(), plan.left.len()), (0, 3));
    let plan = planned(&wanted, &ledger, true).expect("a plan");
    assert_eq!(told(&plan), ["Delete Repository old"]);
    let left: Vec<_> = plan.left.iter().map(|left| left.why.as_str()).collect();
    assert_eq!(left, ["2 hosts use it", "jobs have worked on it, and their history needs it"]);
    assert!(
        planned(&Wanted::default(), &ledger, true).expect("a plan").steps.is_empty(),
        "it is not about repositories"
    );
}

#[test]
fn a_secret_that_is_another_at_the_same_place_is_a_change() {
    let mut ledger = two_hosts();
    let source = Source::Env("FLEET_SECRET_MAIN".to_owned());
    ledger.repositories[0].row.secret_sources.0.insert(SecretColumn::Password, source.clone());
    let with = |secret: &str| {
        let secrets =
            BTreeMap::from([(SecretColumn::Password, WantedSecret::From(source.clone(), Secret::new(secret)))]);
        let repository = WantedRepository { secrets, ..wanted_repository("main") };
        Wanted { repositories: Some(vec![repository]), ..Wanted::default() }
    };
    assert!(planned(&with("one"), &ledger, false).expect("a plan").steps.is_empty());
    let plan = planned(&with("hunter2"), &ledger, false).expect("a plan");
    assert_eq!(told(&plan), ["Change Repository main: password"]);
    assert!(!format!("{}", serde_json::json!(plan)).contains("hunter2"));
}

#[test]
fn everything_that_is_wrong_is_said() {
    let mut ledger = two_hosts();
    ledger.repositories[0].busy = true;
    let mut moved = wanted_repository("main");
    moved.url = "/srv/elsewhere".to_owned();
    let wrong =
        template("db", vec![group("dump", "C:\\dump")], vec![schedule(Some("nightly"), "0 3 * * *", &["docs"])]);
    let wanted = Wanted {
        repositories: Some(vec![moved, wanted_repository("new")]),
        templates: vec![wrong],
        hosts: vec![wanted_host("x", Some("nowhere"))],
    };
    let faults = planned(&wanted, &ledger, false).expect_err("faults");
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    let expected = [
        "/hosts/x/repository",
        "/repositories/main/url",
        "/repositories/new/password",
        "/templates/0/schedules/nightly/source_groups/0",
        "/templates/0/source_groups/dump/includes/0",
    ];
    assert_eq!(pointers, expected);
}

proptest! {
    #[test]
    fn what_was_carried_out_leaves_nothing_to_do(wanted in wanteds(), ledger in any::ledgers(), delete: bool) {
        let Ok(first) = planned(&wanted, &ledger, delete) else { return Ok(()) };
        let after = carried_out(ledger.clone(), &first);
        let again = planned(&wanted, &after, delete).expect("what was possible is so still");
        prop_assert_eq!(told(&again), Vec::<String>::new(), "after {:?}", told(&first));
        prop_assert_eq!(&again.pending, &first.pending);
        prop_assert!(again.rescheduled.is_empty() && again.reset.is_empty());
        prop_assert_eq!(tag(&after) == tag(&ledger), first.steps.is_empty());
        if !delete {
            prop_assert_eq!(first.count(Action::Delete), first.steps.iter().filter(|step| step.thing.kind == Kind::Maintenance && step.action == Action::Delete).count());
        }
    }
}
