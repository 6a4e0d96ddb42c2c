//! A session before `hello`. It knows no jobs: whatever comes first must be a hello in a version that we speak.

use super::refusal::Refusal;
use fleet_wire::{Decoded, Hello, PROTOCOL_VERSION, ToCoordinator, close, decode};

/// Reads the first message of a connection.
pub(super) fn read_hello(text: &str) -> Result<Hello, Refusal> {
    match decode::<ToCoordinator>(text) {
        Ok(Decoded::Known { message: ToCoordinator::Hello(hello), .. }) => accept(hello),
        Ok(Decoded::Known { message, .. }) => {
            let name = fleet_wire::Message::type_name(&message);
            Err(Refusal::malformed(format!("{name} before hello: the first message must be hello")))
        }
        Ok(Decoded::Unknown { type_name, .. }) => {
            Err(Refusal::malformed(format!("{type_name:?} before hello: the first message must be hello")))
        }
        Err(error) => Err(Refusal::malformed(error.to_string())),
    }
}

fn accept(hello: Hello) -> Result<Hello, Refusal> {
    if hello.protocol_version == PROTOCOL_VERSION {
        return Ok(hello);
    }
    let spoken = hello.protocol_version;
    let older = if spoken < PROTOCOL_VERSION { "agent" } else { "coordinator" };
    let message = format!(
        "the agent speaks protocol version {spoken}, this coordinator speaks {PROTOCOL_VERSION}: upgrade the {older}"
    );
    Err(Refusal::new(close::VERSION_NOT_SPOKEN, "version_not_spoken", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_hello_in_our_version_is_let_in() {
        let hello = |version: i64| format!(r#"{{"type":"hello","payload":{{"protocol_version":{version}}}}}"#);
        assert!(read_hello(&hello(PROTOCOL_VERSION)).is_ok());
        let newer = read_hello(&hello(99)).expect_err("refused");
        assert_eq!(newer.close, close::VERSION_NOT_SPOKEN);
        assert!(newer.message.contains("upgrade the coordinator"));
        for bad in ["", "{", "[]", r#"{"type":"heartbeat","payload":{}}"#, r#"{"type":"new"}"#, r#"{"type":"hello"}"#] {
            assert_eq!(read_hello(bad).expect_err("refused").close, close::MALFORMED, "{bad}");
        }
    }
}
