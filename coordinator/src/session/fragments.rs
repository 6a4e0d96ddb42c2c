//! Puts a message together from its fragments, never holding more than a message may have.

use actix_http::ws::Item;
use actix_web::web::{Bytes, BytesMut};
use fleet_wire::MAX_MESSAGE_BYTES;
use thiserror::Error;

/// Why fragments are no message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum FragmentError {
    #[error("the message is larger than {} MiB", MAX_MESSAGE_BYTES / 1024 / 1024)]
    TooBig,
    #[error("fragments out of order")]
    Order,
    #[error("a binary message: envelopes are text")]
    Binary,
    #[error("a message that is not UTF-8")]
    Encoding,
}

/// The fragments of the message that is under way.
#[derive(Debug, Default)]
pub(super) struct Fragments(Option<BytesMut>);

impl Fragments {
    /// Adds a fragment; returns the message when it is the last.
    pub(super) fn add(&mut self, item: Item) -> Result<Option<String>, FragmentError> {
        match item {
            Item::FirstText(_) if self.0.is_some() => Err(FragmentError::Order),
            Item::FirstText(bytes) => {
                self.0 = Some(BytesMut::new());
                self.extend(&bytes).map(|()| None)
            }
            Item::FirstBinary(_) => Err(FragmentError::Binary),
            Item::Continue(bytes) => self.extend(&bytes).map(|()| None),
            Item::Last(bytes) => {
                self.extend(&bytes)?;
                let whole = self.0.take().unwrap_or_default();
                String::from_utf8(whole.into()).map(Some).map_err(|_| FragmentError::Encoding)
            }
        }
    }

    fn extend(&mut self, bytes: &Bytes) -> Result<(), FragmentError> {
        let whole = self.0.as_mut().ok_or(FragmentError::Order)?;
        if whole.len() + bytes.len() > MAX_MESSAGE_BYTES {
            return Err(FragmentError::TooBig);
        }
        whole.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &'static [u8]) -> Bytes {
        Bytes::from_static(bytes)
    }

    #[test]
    fn a_character_may_be_cut_between_fragments() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(Item::FirstText(text(b"\xc3"))), Ok(None));
        assert_eq!(fragments.add(Item::Last(text(b"\xa4"))), Ok(Some("ä".to_owned())));
        assert_eq!(fragments.add(Item::Continue(text(b"x"))), Err(FragmentError::Order));
    }

    #[test]
    fn the_running_sum_is_limited() {
        let mut fragments = Fragments::default();
        let half = Bytes::from(vec![b'x'; MAX_MESSAGE_BYTES / 2]);
        assert_eq!(fragments.add(Item::FirstText(half.clone())), Ok(None));
        assert_eq!(fragments.add(Item::Continue(half)), Ok(None));
        assert_eq!(fragments.add(Item::Last(text(b"x"))), Err(FragmentError::TooBig));
    }

    #[test]
    fn binary_and_broken_text_are_refused() {
        assert_eq!(Fragments::default().add(Item::FirstBinary(text(b""))), Err(FragmentError::Binary));
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(Item::FirstText(text(b"\xff"))), Ok(None));
        assert_eq!(fragments.add(Item::Last(text(b""))), Err(FragmentError::Encoding));
    }
}
