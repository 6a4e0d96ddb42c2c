//! Who may do what over REST. Pure: a token's scope, the method and what the URL is about decide; the one place where that
//! is written down.

use actix_web::http::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Labels that a host must carry, all of them.
pub type Labels = BTreeMap<String, String>;

/// How much a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To read what the fleet is and does.
    Read,
    /// That, and to start, end and pause work.
    Operate,
    /// Everything.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Read, Self::Operate, Self::Admin];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

/// What a URL is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What there is and how it is set: hosts, repositories, schedules.
    Settings,
    /// Work: jobs, operations, pauses.
    Work,
    /// Who may do what, and who did: tokens, enrolment, the audit log.
    Trust,
}

/// The class of the path behind `/v1/`. What is not known here is for admins only, so that a new route is closed until it
/// is given its class.
pub fn class(path: &str) -> Class {
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["jobs" | "operations" | "pause" | "pauses", ..] | ["hosts", _, "jobs" | "pause"] => Class::Work,
        ["repositories", _, "pause"] => Class::Work,
        ["hosts" | "repositories" | "overdue" | "fleet" | "agent-release" | "snapshots" | "runs", ..] => {
            Class::Settings
        }
        _ => Class::Trust,
    }
}

/// Whether `scope` allows `method` on a URL of this class.
pub fn allows(scope: Scope, method: &Method, class: Class) -> bool {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (scope, class) {
        (Scope::Admin, _) => true,
        (_, Class::Trust) => false,
        (Scope::Operate, Class::Work) => true,
        (Scope::Operate | Scope::Read, _) => reads,
    }
}

/// Whether a host with these labels is among those that a token is limited to.
pub fn covers(limit: &Labels, host: &Labels) -> bool {
    limit.iter().all(|(name, value)| host.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_scope_allows() {
        // (path, who may read, who may change)
        let table = [
            ("hosts", "roa", "a"),
            ("hosts/1", "roa", "a"),
            ("hosts/1/source-groups/jobs", "roa", "a"),
            ("hosts/1/schedules", "roa", "a"),
            ("hosts/1/jobs", "roa", "oa"),
            ("hosts/1/pause", "roa", "oa"),
            ("repositories", "roa", "a"),
            ("repositories/1/maintenance", "roa", "a"),
            ("repositories/1/pause", "roa", "oa"),
            ("pause", "roa", "oa"),
            ("pauses", "roa", "oa"),
            ("overdue", "roa", "a"),
            ("fleet", "roa", "a"),
            ("agent-release", "roa", "a"),
            ("snapshots", "roa", "a"),
            ("runs", "roa", "a"),
            ("jobs", "roa", "oa"),
            ("jobs/1/release", "roa", "oa"),
            ("operations/1/cancel", "roa", "oa"),
            ("tokens", "a", "a"),
            ("tokens/1", "a", "a"),
            ("enrollment-tokens", "a", "a"),
            ("audit", "a", "a"),
            ("notifications/channels/1/test", "a", "a"),
            ("something/new", "a", "a"),
            ("", "a", "a"),
        ];
        for (path, readers, changers) in table {
            for scope in Scope::ALL {
                let initial = &scope.as_str()[..1];
                for method in [Method::GET, Method::HEAD] {
                    let allowed = allows(scope, &method, class(path));
                    assert_eq!(allowed, readers.contains(initial), "{scope:?} {method} {path}");
                }
                for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
                    let allowed = allows(scope, &method, class(path));
                    assert_eq!(allowed, changers.contains(initial), "{scope:?} {method} {path}");
                }
            }
        }
    }

    #[test]
    fn a_limit_holds_for_all_of_its_labels() {
        let labels = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let limit = labels(&[("site", "ulm"), ("tier", "1")]);
        assert!(covers(&limit, &labels(&[("site", "ulm"), ("tier", "1"), ("os", "linux")])));
        assert!(!covers(&limit, &labels(&[("site", "ulm")])));
        assert!(!covers(&limit, &labels(&[("site", "ulm"), ("tier", "2")])));
    }
}
