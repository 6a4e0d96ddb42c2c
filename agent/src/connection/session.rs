//! What a message from the coordinator leads to. No I/O: text in, reaction out.

use fleet_wire::{
    Ack, CommandRun, ConfigUpdate, DecodeError, Decoded, EarlyFiring, EnvelopeId, ErrorMessage, JobId, ScheduleSet,
    ToAgent, decode,
};

/// What the coordinator wants done, in the order in which it said so.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Run a job.
    Run(Box<CommandRun>),
    /// Stop a job.
    Cancel(JobId),
    /// Change settings.
    Configure(Box<ConfigUpdate>),
    /// Replace the schedules.
    Schedule(ScheduleSet),
    /// A firing came before its time: it is to fire again.
    FireAgain(EarlyFiring),
}

/// What one message leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Reaction {
    /// Something for the worker.
    Order(Order),
    /// Every envelope up to this id is settled.
    Settled(u64),
    /// Nothing, or a line in the log that was written.
    Nothing,
    /// Not a message: say so and close.
    Malformed {
        /// The envelope's id, if it could be read.
        id: Option<EnvelopeId>,
        /// What to say.
        error: ErrorMessage,
    },
}

/// Reads one text message, on a connection on which the envelopes up to `sent` have gone out.
pub(super) fn receive(text: &str, sent: u64) -> Reaction {
    let malformed =
        |id, error: DecodeError| Reaction::Malformed { id, error: ErrorMessage::new("malformed", error.to_string()) };
    match decode(text) {
        Ok(Decoded::Known { message, id }) => react(message, id, sent),
        Ok(Decoded::Unknown { type_name, .. }) => {
            log::debug!(message_type = type_name.as_str(); "ignored a message of a type that this agent does not know");
            Reaction::Nothing
        }
        Err(DecodeError::Payload { id, type_name, source }) => {
            malformed(id.clone(), DecodeError::Payload { id, type_name, source })
        }
        Err(error) => malformed(None, error),
    }
}

fn react(message: ToAgent, id: Option<EnvelopeId>, sent: u64) -> Reaction {
    match message {
        ToAgent::CommandRun(run) => Reaction::Order(Order::Run(Box::new(run))),
        ToAgent::CommandCancel(cancel) => Reaction::Order(Order::Cancel(cancel.job_id)),
        ToAgent::ConfigUpdate(update) => Reaction::Order(Order::Configure(Box::new(update))),
        ToAgent::ScheduleSet(set) => Reaction::Order(Order::Schedule(set)),
        ToAgent::Ack(Ack { up_to }) => match up_to.number() {
            // Only what went out on this connection can be settled on it.
            Some(up_to) => Reaction::Settled(up_to.min(sent)),
            None => Reaction::Malformed {
                id,
                error: ErrorMessage::new("malformed", format!("ack: up_to {up_to} is no id of this agent")),
            },
        },
        ToAgent::Error(ErrorMessage { code, message, early_firing }) => {
            let envelope = id.as_ref().map_or("none", EnvelopeId::as_str);
            log::warn!(code = code.as_str(), envelope; "the coordinator reports an error: {message}");
            early_firing.map_or(Reaction::Nothing, |firing| Reaction::Order(Order::FireAgain(firing)))
        }
        ToAgent::AgentUpdateAvailable(update) => {
            log::info!(
                version = update.latest_version.as_str(), package = update.package_url.as_str();
                "a newer agent is available; install it as this one was installed"
            );
            Reaction::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_go_to_the_worker() {
        let cancel = r#"{"type":"command.cancel","payload":{"job_id":"j"}}"#;
        assert_eq!(receive(cancel, 0), Reaction::Order(Order::Cancel("j".into())));
        let schedules = r#"{"type":"schedule.set","payload":{"version":3,"schedules":null}}"#;
        let set = ScheduleSet { version: 3, schedules: Vec::new() };
        assert_eq!(receive(schedules, 0), Reaction::Order(Order::Schedule(set)));
    }

    #[test]
    fn an_ack_settles_only_what_was_sent_on_this_connection() {
        let ack = r#"{"type":"ack","payload":{"up_to":"7"}}"#;
        assert_eq!(receive(ack, 9), Reaction::Settled(7));
        assert_eq!(receive(ack, 5), Reaction::Settled(5));
        let strange = r#"{"type":"ack","payload":{"up_to":"x"}}"#;
        assert!(matches!(receive(strange, 9), Reaction::Malformed { .. }));
    }

    #[test]
    fn what_a_newer_coordinator_says_is_ignored() {
        assert_eq!(receive(r#"{"type":"brand.new","payload":[1]}"#, 0), Reaction::Nothing);
        let more = r#"{"type":"command.cancel","extra":1,"payload":{"job_id":"j","why":"x"}}"#;
        assert_eq!(receive(more, 0), Reaction::Order(Order::Cancel("j".into())));
    }

    #[test]
    fn what_is_no_message_is_malformed_with_its_id() {
        for text in ["", "[]", "{}", "{\"type\":1}"] {
            assert!(matches!(receive(text, 0), Reaction::Malformed { id: None, .. }), "{text}");
        }
        let text = r#"{"type":"command.run","id":"5","payload":{"kind":"backup"}}"#;
        let Reaction::Malformed { id, error } = receive(text, 0) else { panic!() };
        assert_eq!(id, Some("5".into()));
        assert!(error.message.contains("job_id"), "{}", error.message);
    }
}
