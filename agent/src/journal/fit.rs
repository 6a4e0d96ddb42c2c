//! No envelope is larger than the coordinator accepts: it would close the connection, and the envelope would come again
//! after each reconnect, for ever, with everything behind it.

use fleet_wire::{EnvelopeId, ErrorMessage, MAX_MESSAGE_BYTES, ToCoordinator, encode};

/// The text of an envelope, with what makes it too large left out.
pub(super) fn encoded(id: &EnvelopeId, message: &ToCoordinator) -> String {
    let text = encode(Some(id), message);
    if text.len() <= MAX_MESSAGE_BYTES { text } else { encode(Some(id), &smaller(message, text.len())) }
}

fn smaller(message: &ToCoordinator, bytes: usize) -> ToCoordinator {
    log::error!(bytes; "a message is too large for the coordinator; its main part is left out");
    match message {
        // An outcome must arrive, with its status if not with its figures.
        ToCoordinator::JobFinished(finished) => {
            let mut finished = finished.clone();
            finished.stats = None;
            finished.error = finished.error.map(|error| error.chars().take(10_000).collect());
            finished.into()
        }
        ToCoordinator::LogLine(line) => {
            let mut line = line.clone();
            line.payload = line.payload.chars().take(1024 * 1024).collect();
            line.into()
        }
        // Half a list would be wrong: the coordinator would take the other half for deleted.
        _ => ErrorMessage::new("too_big", format!("a report of {bytes} bytes could not be sent")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::{Decoded, JobFinished, RawJson, Snapshot, SnapshotsReport, Status, decode};

    fn fitted(message: ToCoordinator) -> ToCoordinator {
        let text = encoded(&7.into(), &message);
        assert!(text.len() <= MAX_MESSAGE_BYTES);
        match decode(&text) {
            Ok(Decoded::Known { id, message }) => {
                assert_eq!(id, Some(7.into()));
                message
            }
            other => panic!("{other:?}"),
        }
    }

    fn finished(stats: usize) -> JobFinished {
        let stats = RawJson::new(format!("\"{}\"", "x".repeat(stats))).ok();
        let error = Some("why".into());
        JobFinished { job_id: "j".into(), status: Status::Failed, exit_code: 1, finished_at: None, stats, error }
    }

    #[test]
    fn an_outcome_arrives_even_if_its_figures_are_too_large() {
        assert_eq!(fitted(finished(100).into()), finished(100).into());
        let bare = JobFinished { stats: None, ..finished(0) };
        assert_eq!(fitted(finished(MAX_MESSAGE_BYTES).into()), bare.into());
    }

    #[test]
    fn a_list_that_is_too_long_is_not_cut_but_named() {
        let snapshot = Snapshot { id: "x".repeat(1_000_000), ..Snapshot::default() };
        let report = SnapshotsReport { snapshots: vec![snapshot; 20], as_of: None };
        assert!(matches!(fitted(report.into()), ToCoordinator::Error(error) if error.code == "too_big"));
    }
}
