//! Any document, and any ledger.

use super::model::set_secret;
use super::*;

/// A host's name, and that of its repository.
type Named = (&'static str, Option<&'static str>);
/// Its labels, groups and schedules, and whether those have their names.
type Settings = (Labels, BTreeMap<String, SourceGroup>, BTreeMap<String, Schedule>, bool);

fn secret() -> impl Strategy<Value = (Source, Secret)> {
    prop::sample::select(vec!["one", "two"]).prop_map(|name| (Source::File(name.to_owned()), Secret::new(name)))
}

fn groups() -> impl Strategy<Value = BTreeMap<String, SourceGroup>> {
    let group = prop::sample::select(vec!["/a", "/b"]).prop_map(|path| group("", path));
    prop::collection::btree_map(prop::sample::select(vec!["g0", "g1", "g/2"]).prop_map(str::to_owned), group, 0..3)
        .prop_map(|groups| groups.into_iter().map(|(name, row)| (name.clone(), SourceGroup { name, ..row })).collect())
}

fn schedules() -> impl Strategy<Value = BTreeMap<String, Schedule>> {
    let schedule = (prop::sample::select(vec!["0 1 * * *", "0 2 * * *"]), prop::sample::select(vec!["g0", "g1"]))
        .prop_map(|(cron, group)| schedule(None, cron, &[group]));
    prop::collection::btree_map(prop::sample::select(vec!["s0", "s1", "s2"]).prop_map(str::to_owned), schedule, 0..3)
}

fn entry(kind: &str, cron: &str) -> Entry {
    Entry {
        repository_id: Uuid::nil(),
        kind: kind.to_owned(),
        cron: cron.to_owned(),
        timezone: "UTC".to_owned(),
        enabled: true,
        subset: None,
        interval_seconds: 86400,
        next_due_at: None,
        last_success_at: None,
        last_subset: None,
        overdue_at: None,
        created_at: AT,
        updated_at: AT,
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let cron = prop::sample::select(vec!["0 4 * * *", "0 5 * * 0"]);
    prop::collection::btree_map(prop::sample::select(vec!["check", "forget", "prune"]), cron, 0..3)
        .prop_map(|entries| entries.into_iter().map(|(kind, cron)| entry(kind, cron)).collect())
}

fn host_settings() -> impl Strategy<Value = Changes> {
    let hook = || prop::option::of(prop::option::of(Just("sync".to_owned())));
    (hook(), hook(), prop::option::of(prop::option::of(1..3_i64))).prop_map(|(pre_hook, hook_shell, cap)| Changes {
        pre_hook,
        hook_shell,
        bandwidth_up_kbps: cap,
        ..Changes::default()
    })
}

fn some_repository() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, Some("r0"), Some("r1")])
}

const HOSTNAMES: [&str; 3] = ["h0", "h1", "h2"];

prop_compose! {
    fn wanted_repositories()(
        parts in prop::collection::btree_map(
            prop::sample::select(vec!["r0", "r1", "r2"]),
            (secret(), prop::option::of(secret()), prop::option::of(secret()), any::<bool>(), prop::option::of(1..3_i64),
                prop::option::of((prop::option::of(prop::sample::select(HOSTNAMES.to_vec())), entries()))),
            0..3,
        ),
    ) -> Vec<WantedRepository> {
        let from = |(source, secret)| WantedSecret::From(source, secret);
        parts.into_iter().map(|(name, (password, credential, admin, append_only, max_backups, maintenance))| {
            let mut repository = wanted_repository(name);
            repository.secrets.insert(SecretColumn::Password, from(password));
            repository.secrets.extend(credential.map(|secret| (SecretColumn::Credential, from(secret))));
            repository.admin = admin.is_some().then_some(WantedAdmin { url: None, username: Some("a".to_owned()) });
            repository.secrets.extend(admin.map(|secret| (SecretColumn::AdminPassword, from(secret))));
            repository.maintenance = maintenance.map(|(runner, entries)| WantedMaintenance {
                runner: runner.map(str::to_owned),
                entries,
                limit: ForgetLimit { snapshots: max_backups, share: None },
            });
            WantedRepository { append_only, max_backups, ..repository }
        }).collect()
    }
}

prop_compose! {
    fn layers()(
        pointer in "/[a-z]{8}",
        settings in host_settings(),
        groups in prop::option::of(groups()),
        schedules in prop::option::of(schedules()),
    ) -> Layer {
        Layer { pointer, settings, groups, schedules }
    }
}

fn roles() -> impl Strategy<Value = Labels> {
    prop::sample::select(vec!["db", "web"]).prop_map(labels)
}

prop_compose! {
    /// Any document.
    pub(super) fn wanteds()(
        repositories in prop::option::of(wanted_repositories()),
        templates in prop::collection::vec((layers(), roles(), some_repository()), 0..3),
        hosts in prop::collection::btree_map(
            (prop::sample::select(HOSTNAMES.to_vec()), some_repository()), (layers(), prop::option::of(roles())), 0..4,
        ),
    ) -> Wanted {
        let template = |(layer, labels, repository): (Layer, Labels, Option<&str>)| {
            Template { layer, selector: Selector { labels, repository: repository.map(str::to_owned) } }
        };
        let host = |((hostname, repository), (mut layer, labels)): (Named, (Layer, Option<Labels>))| {
            layer.settings.labels = labels.map(Json);
            WantedHost { layer, ..wanted_host(hostname, repository) }
        };
        Wanted {
            repositories,
            templates: templates.into_iter().map(template).collect(),
            hosts: hosts.into_iter().map(host).collect(),
        }
    }
}

prop_compose! {
    /// Any ledger, whose secrets are those of [`secret`] or unknown.
    pub(crate) fn ledgers()(
        repositories in prop::collection::btree_map(
            prop::sample::select(vec!["r0", "r1"]),
            (prop::option::of(secret()), prop::option::of(secret()), entries(), any::<(bool, bool)>()),
            0..3,
        ),
        hosts in prop::collection::btree_map(
            (prop::sample::select(HOSTNAMES.to_vec()), some_repository()), (roles(), groups(), schedules(), any::<bool>()), 0..5,
        ),
    ) -> Ledger {
        let mut number = 0;
        let repositories: Vec<KnownRepository> = repositories.into_iter().map(|(name, (password, admin, entries, flags))| {
            number += 1;
            let mut known = known_repository(number, name);
            known.has_history = flags.0;
            known.row.append_only = flags.1;
            for (column, secret) in [(SecretColumn::Password, password), (SecretColumn::AdminPassword, admin)] {
                if let Some((source, secret)) = secret {
                    set_secret(&mut known, column, Some(&secret));
                    known.row.has_admin = column == SecretColumn::AdminPassword;
                    known.row.secret_sources.0.insert(column, source);
                }
            }
            let repository_id = known.row.id;
            known.entries = entries.into_iter().map(|entry| Entry { repository_id, ..entry }).collect();
            known
        }).collect();
        let host = |((hostname, repository), (labels, groups, schedules, named)): (Named, Settings)| {
            number += 1;
            let repository = repository.and_then(|name| repositories.iter().find(|known| known.row.name == name));
            let mut host = known_host(100 + number, hostname, repository);
            let host_id = host.row.id;
            host.row.labels = Json(labels);
            host.groups = groups.into_values().map(|row| SourceGroup { host_id, ..row }).collect();
            let possible = schedules.into_iter().filter(|(_, row)| {
                row.source_groups.0.iter().all(|name| host.groups.iter().any(|group| group.name == *name))
            });
            host.schedules = possible.map(|(name, row)| {
                number += 1;
                Schedule { id: Uuid::from_u128(1000 + number), host_id, name: named.then_some(name), ..row }
            }).collect();
            host
        };
        let hosts = hosts.into_iter().map(host).collect();
        Ledger { repositories, hosts }
    }
}
