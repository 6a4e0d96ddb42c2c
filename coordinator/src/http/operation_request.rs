//! What an operation is asked to be, and what is wrong with that whatever hosts there are.

use super::body::Object;
use super::check::Check;
use super::openapi::schemas;
use super::problem::Problem;
use crate::db::operations::{Asked, AskedSelector};
use crate::db::planning::Selection;
use crate::job::plan::{Wish, objections};
use crate::operation::select::Per;
use fleet_wire::{Cap, Kind};
use serde::Deserialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// The largest number that a limit of an operation may be.
const MOST: i64 = 1_000_000;

/// Which hosts: `all`, or those that are like all of the others that are given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Selector {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    #[schema(value_type = schemas::WantedLabels)]
    labels: BTreeMap<String, String>,
    #[schema(value_type = Option<schemas::HostStatus>)]
    status: Option<HostStatus>,
    #[schema(value_type = Option<Uuid>)]
    repository_id: Option<String>,
    #[schema(value_type = Option<Vec<Uuid>>)]
    ids: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum HostStatus {
    Online,
    Offline,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewOperation)]
pub(super) struct OperationRequest {
    #[schema(value_type = schemas::Kind)]
    kind: Kind,
    #[schema(value_type = Selector)]
    selector: Object<Selector>,
    /// Whether each host gets a job, or one of each repository; unless it is said, as the kind wants it.
    per: Option<Per>,
    /// Of a backup; of a forget, to keep it to that one.
    #[schema(value_type = Option<schemas::GroupName>)]
    source_group: Option<String>,
    /// Of a check: what it reads.
    #[serde(default)]
    #[schema(value_type = Vec<schemas::CheckSubset>, max_items = 1)]
    args: Vec<String>,
    #[schema(value_type = Option<schemas::JobCap>)]
    bandwidth_up_kbps: Option<i64>,
    #[schema(value_type = Option<schemas::JobCap>)]
    bandwidth_down_kbps: Option<i64>,
    /// So many go first, and the others only if all of them succeed.
    #[schema(minimum = 1, maximum = 1000000)]
    canaries: Option<i64>,
    /// So many at once.
    #[schema(minimum = 1, maximum = 1000000)]
    max_parallel: Option<i64>,
    /// When so many have failed, nothing new is started.
    #[schema(minimum = 1, maximum = 1000000)]
    stop_after_failures: Option<i64>,
    /// Only says whom it would hit, in pages.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// An operation that makes sense by itself.
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) per: Per,
    pub(super) asked: Asked,
    pub(super) selection: Selection,
    pub(super) canaries: i64,
    pub(super) max_parallel: Option<i64>,
    pub(super) stop_after_failures: Option<i64>,
}

impl Plan {
    /// What a request asks for.
    ///
    /// # Errors
    /// 422 with everything that makes no sense, whatever hosts there are.
    pub(super) fn of(request: OperationRequest) -> Result<Self, Problem> {
        let mut check = Check::default();
        let (asked, selection) = request.selector.0.check(&mut check);
        for (pointer, number) in [
            ("/canaries", request.canaries),
            ("/max_parallel", request.max_parallel),
            ("/stop_after_failures", request.stop_after_failures),
        ] {
            check.number(pointer, number.unwrap_or(1), 1..=MOST);
        }
        let (kind, per) = (request.kind, request.per.unwrap_or(Per::of(request.kind)));
        if per == Per::Repository && matches!(kind, Kind::Backup | Kind::Forget) {
            check.wrong("/per", format!("a {kind} is each host's own: one host can't do it for the others"));
        }
        let asked = Asked {
            selector: asked,
            per: per.to_string(),
            source_group: request.source_group,
            args: request.args,
            bandwidth_up_kbps: request.bandwidth_up_kbps,
            bandwidth_down_kbps: request.bandwidth_down_kbps,
            outcomes: Vec::new(),
        };
        for objection in objections(kind, &wish(&asked)) {
            check.wrong(objection.pointer, objection.detail);
        }
        check.done()?;
        Ok(Self {
            kind,
            per,
            asked,
            selection,
            canaries: request.canaries.unwrap_or(0),
            max_parallel: request.max_parallel,
            stop_after_failures: request.stop_after_failures,
        })
    }
}

impl Selector {
    fn check(self, check: &mut Check) -> (AskedSelector, Selection) {
        let Self { all, labels, status, repository_id, ids } = self;
        let narrowed = !labels.is_empty() || status.is_some() || repository_id.is_some() || ids.is_some();
        if all == narrowed {
            let detail = "must say which hosts: by labels, status, repository_id or ids, or else \"all\": true";
            check.wrong("/selector", detail);
        }
        let repository_id = repository_id.and_then(|id| check.id("/selector/repository_id", "repository", &id));
        let id = |(place, id): (usize, &String)| check.id(&format!("/selector/ids/{place}"), "host", id);
        let ids: Option<Vec<Uuid>> = ids.map(|ids| ids.iter().enumerate().filter_map(id).collect());
        let online = status.map(|status| matches!(status, HostStatus::Online));
        let asked = AskedSelector {
            all,
            labels: labels.clone(),
            status: online.map(|online| if online { "online" } else { "offline" }.to_owned()),
            repository_id,
            ids: ids.as_ref().map(Vec::len),
        };
        (asked, Selection { ids, labels, online, repository_id })
    }
}

fn wish(asked: &Asked) -> Wish {
    Wish {
        source_group: asked.source_group.clone(),
        args: asked.args.clone(),
        bandwidth_up_kbps: asked.bandwidth_up_kbps.map_or(Cap::Unchanged, Cap::present),
        bandwidth_down_kbps: asked.bandwidth_down_kbps.map_or(Cap::Unchanged, Cap::present),
        ..Wish::default()
    }
}

impl Plan {
    /// What each host is asked to do.
    pub(super) fn wish(&self) -> Wish {
        wish(&self.asked)
    }
}
