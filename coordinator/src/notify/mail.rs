//! Sending e-mail over SMTP: all that waits for a channel in one message. Blocking, on a thread for such work.

use super::summary::{subject, text};
use super::webhook::Sent;
use crate::db::deliveries::Due;
use crate::db::json::Json;
use fleet_wire::Secret;
use lettre::address::AddressError;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{Message, SmtpTransport, Transport};
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;
use uuid::{Builder, Uuid};

/// How long the server may take for each of its answers.
const LIMIT: Duration = Duration::from_secs(20);

/// A mail server, and who writes.
#[derive(Clone)]
pub struct Mailer {
    transport: SmtpTransport,
    from: Mailbox,
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailer({})", self.from)
    }
}

/// An address, with or without a name before it.
///
/// # Errors
/// It is none.
pub fn address(text: &str) -> Result<Mailbox, AddressError> {
    text.parse()
}

impl Mailer {
    /// The server at `url` (`smtp://`, with `?tls=required` for STARTTLS, or `smtps://`).
    ///
    /// # Errors
    /// One of them is none; the text does not show the URL.
    pub fn new(url: &Secret, from: &str) -> Result<Self, String> {
        let from = address(from).map_err(|error| format!("FLEET_SMTP_FROM is no address: {error}"))?;
        let transport = SmtpTransport::from_url(url.expose()).map_err(|error| {
            format!("FLEET_SMTP_URL is none, such as smtp://user:password@mail.example.org?tls=required: {error}")
        })?;
        Ok(Self { transport: transport.timeout(Some(LIMIT)).build(), from })
    }

    /// Sends all of these in one message.
    pub(super) fn send(&self, shipment: &[Due]) -> Sent {
        let message = match self.message(shipment) {
            Ok(message) => message,
            Err(error) => return Sent::failed(error),
        };
        match self.transport.send(&message) {
            Ok(answer) => {
                let code: u16 = answer.code().into();
                Sent { status_code: Some(i64::from(code)), ..Sent::default() }
            }
            Err(error) => {
                let code = error.status().map(|code| i64::from(u16::from(code)));
                Sent { status_code: code, ..Sent::failed(with_causes(&error)) }
            }
        }
    }

    fn message(&self, shipment: &[Due]) -> Result<Message, String> {
        let first = shipment.first().ok_or("there is nothing to send")?;
        let none = Json(Vec::new());
        let Json(recipients) = first.recipients.as_ref().unwrap_or(&none);
        let id = format!("<{}@{}>", id_of(shipment), self.from.email.domain());
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(subject(shipment))
            .message_id(Some(id))
            .header(ContentType::TEXT_PLAIN);
        for recipient in recipients {
            message = message.to(address(recipient).map_err(|error| format!("{recipient}: {error}"))?);
        }
        message.body(text(shipment)).map_err(|error| error.to_string())
    }
}

/// What tells a message from others: the same if it is sent again, and another if anything else is in it, for who gets two with one
/// id may keep the first only.
fn id_of(shipment: &[Due]) -> Uuid {
    let ids = shipment
        .iter()
        .fold(Sha256::new(), |ids, due| ids.chain_update(due.id).chain_update(due.tried_from.to_rfc3339()));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&ids.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// An error with what has caused it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_server_is_a_url_and_what_is_wrong_with_it_shows_no_password() {
        let new = |url: &str| Mailer::new(&Secret::new(url), "Fleet <fleet@example.org>");
        for good in ["smtp://localhost:25", "smtp://u:p@mail.example.org?tls=required", "smtps://mail.example.org"] {
            assert!(new(good).is_ok(), "{good}");
        }
        for bad in ["", "mail.example.org", "http://u:hunter2@mail.example.org", "smtp://u:hunter2@x?tls=maybe"] {
            let error = new(bad).expect_err(bad);
            assert!(error.contains("FLEET_SMTP_URL") && !error.contains("hunter2"), "{error}");
        }
        assert!(Mailer::new(&Secret::new("smtp://localhost"), "nobody").is_err());
    }

    #[test]
    fn a_message_goes_to_all_and_keeps_its_id() {
        let mailer = Mailer::new(&Secret::new("smtp://localhost"), "fleet@example.org").expect("a mailer");
        let recipients = vec!["Ops <ops@example.org>".to_owned(), "b@example.org".to_owned()];
        let due =
            Due { recipients: Some(Json(recipients)), ..Due::sample(Uuid::from_u128(1), Uuid::from_u128(2), "email") };
        let made = || {
            String::from_utf8(mailer.message(std::slice::from_ref(&due)).expect("a message").formatted()).expect("text")
        };
        let message = made();
        assert!(message.contains("ops@example.org") && message.contains("b@example.org"), "{message}");
        let id = |message: &str| message.lines().find(|line| line.starts_with("Message-ID")).map(str::to_owned);
        assert!(id(&message).is_some());
        assert_eq!(id(&message), id(&made()));
        let more = mailer.message(&[due.clone(), Due { id: Uuid::from_u128(3), ..due.clone() }]).expect("a message");
        assert_ne!(id(&message), id(&String::from_utf8(more.formatted()).expect("text")));
        assert!(mailer.message(&[Due { recipients: None, ..due }]).is_err(), "to nobody");
    }
}
