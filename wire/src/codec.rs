//! The envelope `{"type", "id", "payload"}` around every message.

use crate::EnvelopeId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use thiserror::Error;

/// One direction's set of messages.
pub trait Message: Sized {
    /// The envelope's `type`.
    fn type_name(&self) -> &'static str;

    /// Reads the payload of a message of type `type_name`; `None` if this direction has no such type.
    fn read(type_name: &str, payload: &str) -> Option<serde_json::Result<Self>>;
}

/// What one WebSocket text message held.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<M> {
    /// A message of ours.
    Known {
        /// The envelope's id.
        id: Option<EnvelopeId>,
        /// The message.
        message: M,
    },
    /// A message of a newer peer, to be ignored and counted.
    Unknown {
        /// The envelope's id: even what is ignored is settled for the peer that numbers it.
        id: Option<EnvelopeId>,
        /// Its type.
        type_name: String,
    },
}

/// Why a text is no message.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Not an envelope at all.
    #[error("not an envelope of type, id and payload: {0}")]
    Envelope(#[source] serde_json::Error),
    /// The envelope is sound, its payload does not fit its type.
    #[error("malformed {type_name}: {source}")]
    Payload {
        /// The envelope's type.
        type_name: String,
        /// The envelope's id.
        id: Option<EnvelopeId>,
        /// What does not fit.
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type", borrow)]
    type_name: Cow<'a, str>,
    #[serde(default, deserialize_with = "crate::lenient::empty_is_none")]
    id: Option<EnvelopeId>,
    #[serde(default, borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Outgoing<'a, M> {
    #[serde(flatten)]
    message: &'a M,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a EnvelopeId>,
}

/// Reads one text message. Unknown fields are ignored; an absent payload is read as `{}`.
///
/// # Errors
/// The text is no envelope, or its payload does not fit its type.
pub fn decode<M: Message>(text: &str) -> Result<Decoded<M>, DecodeError> {
    let envelope = object(text).and_then(serde_json::from_str);
    let Incoming { type_name, id, payload } = envelope.map_err(DecodeError::Envelope)?;
    match M::read(&type_name, payload.map_or("{}", RawValue::get)) {
        Some(Ok(message)) => Ok(Decoded::Known { id, message }),
        Some(Err(source)) => Err(DecodeError::Payload { type_name: type_name.into_owned(), id, source }),
        None => Ok(Decoded::Unknown { id, type_name: type_name.into_owned() }),
    }
}

/// `text`, unless it is a list: serde's derived reading would take it for a struct, field by field.
pub(crate) fn object(text: &str) -> serde_json::Result<&str> {
    // JSON's own white space, of which `trim` would take more.
    if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[') {
        return Err(serde::de::Error::custom("a list where an object should be"));
    }
    Ok(text)
}

/// Writes one text message.
pub fn encode<M: Message + Serialize>(id: Option<&EnvelopeId>, message: &M) -> String {
    // Every payload is a struct with string keys, for which writing into memory can't fail.
    serde_json::to_string(&Outgoing { message, id }).unwrap_or_default()
}

/// Declares one direction: an enum with a variant for each message, tagged by the envelope's `type`.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($payload:ty) = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(tag = "type", content = "payload")]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant($payload)),+
        }

        impl $name {
            /// The `type` of every message of this direction, in the order of the contract.
            pub const NAMES: &'static [&'static str] = &[$($text),+];
        }

        impl $crate::Message for $name {
            fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $text),+ }
            }

            // Not serde's own tagged reading: that copies the payload first, and raw JSON does not survive it.
            fn read(type_name: &str, payload: &str) -> Option<serde_json::Result<Self>> {
                match type_name {
                    $($text => Some($crate::codec::object(payload).and_then(serde_json::from_str).map(Self::$variant)),)+
                    _ => None,
                }
            }
        }

        $(impl From<$payload> for $name {
            fn from(message: $payload) -> Self {
                Self::$variant(message)
            }
        })+
    };
}
pub(crate) use messages;
