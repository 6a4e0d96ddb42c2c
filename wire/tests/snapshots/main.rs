//! The exact text of every message, with everything set and with nothing set: agents that others wrote read these
//! bytes. A change here is a change of the contract.

mod to_agent;
mod to_coordinator;

use fleet_wire::{Decoded, EnvelopeId, Message, RawJson, Timestamp, decode, encode};
use serde::Serialize;
use std::fmt::Debug;

/// The text of `message`, after making sure that it reads back as the same.
fn written<M: Message + Serialize + Debug + PartialEq + Clone>(message: impl Into<M>) -> String {
    let message = message.into();
    let id = Some(EnvelopeId::from(42));
    let text = encode(id.as_ref(), &message);
    let expected = Decoded::Known { id, message: message.clone() };
    assert_eq!(decode::<M>(&text).unwrap_or_else(|error| panic!("{error}: {text}")), expected);
    let bare = encode(None, &message);
    assert_eq!(decode::<M>(&bare).expect("without an id"), Decoded::Known { id: None, message });
    // Every snapshot is of a message with an id; that an absent id leaves no trace is the same for all.
    assert_eq!(bare, text.replacen(r#","id":"42""#, "", 1));
    text
}

/// An instant with nanoseconds.
fn instant() -> Option<Timestamp> {
    "2026-03-01T02:00:00.123456789Z".parse().ok()
}

fn raw(json: &str) -> Option<RawJson> {
    RawJson::new(json.to_owned()).ok()
}

fn strings<T: From<&'static str>>(texts: &[&'static str]) -> Vec<T> {
    texts.iter().map(|text| T::from(text)).collect()
}
