//! The connections of agents.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why connections end that we do not close.
const GONE: &str = "gone";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// See the module's text.
#[derive(Debug)]
pub struct Sessions {
    open: Gauge,
    opened: Counter,
    closed: Family<OfReason, Counter>,
}

impl Sessions {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let sessions = Self { open: Gauge::default(), opened: Counter::default(), closed: Family::default() };
        drop(sessions.closed.get_or_create(&OfReason { reason: GONE }));
        registry.register("agent_sessions", "Connections of agents that are open", sessions.open.clone());
        registry.register("agent_sessions_opened", "Connections that agents have opened", sessions.opened.clone());
        registry.register(
            "agent_sessions_closed",
            "Connections of agents that have ended, by the reason that they were closed for; gone is not by us",
            sessions.closed.clone(),
        );
        sessions
    }

    /// One has begun.
    pub(crate) fn opened(&self) {
        self.open.inc();
        self.opened.inc();
    }

    /// One is over, which we have closed for that reason, or not.
    pub(crate) fn closed(&self, reason: Option<&'static str>) {
        self.open.dec();
        self.closed.get_or_create(&OfReason { reason: reason.unwrap_or(GONE) }).inc();
    }
}
