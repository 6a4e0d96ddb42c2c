//! What agents say: one addition a message, and no lock.

use fleet_wire::{Message, ToCoordinator};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashMap;

/// The type of the first message of a connection.
const HELLO: &str = "hello";

/// Why a message came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Progress, in whose place there is newer.
    Superseded,
    /// No message at all; the connection is closed.
    Malformed,
    /// Larger than a message may be; the connection is closed.
    TooBig,
    /// It makes no sense here: of a job that is not known, say. The agent is told.
    Refused,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::Superseded, Self::Malformed, Self::TooBig, Self::Refused];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::Malformed => "malformed",
            Self::TooBig => "too_big",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfType {
    // As it is called on the wire; `type` is a word of the language.
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

/// See the module's text.
#[derive(Debug)]
pub struct Messages {
    of_type: HashMap<&'static str, Counter>,
    bytes: Counter,
    unknown: Counter,
    dropped: [Counter; Dropped::ALL.len()],
}

impl Default for Messages {
    fn default() -> Self {
        let of_type = ToCoordinator::NAMES.iter().map(|name| (*name, Counter::default())).collect();
        Self { of_type, bytes: Counter::default(), unknown: Counter::default(), dropped: Default::default() }
    }
}

impl Messages {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let received = Family::<OfType, Counter>::default();
        let dropped = Family::<OfReason, Counter>::default();
        registry.register("agent_messages", "Messages that agents have sent, by type", received.clone());
        registry.register(
            "agent_messages_dropped",
            "Messages of agents that came to nothing, by reason",
            dropped.clone(),
        );
        let of_type = |name: &&'static str| (*name, received.get_or_create_owned(&OfType { r#type: name }));
        let messages = Self {
            of_type: ToCoordinator::NAMES.iter().map(of_type).collect(),
            dropped: Dropped::ALL.map(|why| dropped.get_or_create_owned(&OfReason { reason: why.as_str() })),
            ..Self::default()
        };
        registry.register(
            "agent_messages_unknown",
            "Messages of types that this version does not know, which are ignored",
            messages.unknown.clone(),
        );
        registry.register_with_unit(
            "agent_received",
            "Bytes of the messages that agents have sent",
            Unit::Bytes,
            messages.bytes.clone(),
        );
        messages
    }

    /// One has come.
    pub(crate) fn received(&self, message: &ToCoordinator, bytes: usize) {
        self.of_type(message.type_name(), bytes);
    }

    /// A hello has come, with which each connection begins.
    pub(crate) fn hello(&self, bytes: usize) {
        self.of_type(HELLO, bytes);
    }

    fn of_type(&self, type_name: &str, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
        if let Some(counter) = self.of_type.get(type_name) {
            counter.inc();
        }
    }

    /// One of a type that we do not know has come.
    pub(crate) fn unknown(&self, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
        self.unknown.inc();
    }

    /// One came to nothing.
    pub(crate) fn dropped(&self, why: Dropped) {
        self.dropped[why as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::scrape::encoded;
    use crate::metrics::tests::has;
    use fleet_wire::Heartbeat;

    #[test]
    fn every_type_and_reason_is_told_from_the_start() {
        let mut registry = Registry::with_prefix("fleet");
        let messages = Messages::new(&mut registry);
        messages.received(&Heartbeat::default().into(), 10);
        messages.hello(20);
        messages.unknown(5);
        Dropped::ALL.into_iter().enumerate().for_each(|(times, why)| (0..times).for_each(|_| messages.dropped(why)));
        let text = encoded(&[&registry]);
        for line in [
            r#"fleet_agent_messages_total{type="heartbeat"} 1"#,
            r#"fleet_agent_messages_total{type="log.stream"} 0"#,
            "fleet_agent_messages_unknown_total 1",
            r#"fleet_agent_messages_total{type="hello"} 1"#,
            "fleet_agent_received_bytes_total 35",
            r#"fleet_agent_messages_dropped_total{reason="superseded"} 0"#,
            r#"fleet_agent_messages_dropped_total{reason="refused"} 3"#,
        ] {
            has(&text, line);
        }
    }
}
