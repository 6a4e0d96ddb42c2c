//! How webhooks are signed: as Standard Webhooks 1.0 wants it, so that receivers find libraries for it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleet_wire::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret begins with.
pub const PREFIX: &str = "whsec";
/// How long the key in it may be, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The key in a secret `whsec_…`, if that is one.
pub fn key(secret: &Secret) -> Option<Vec<u8>> {
    let text = secret.expose().strip_prefix(PREFIX)?.strip_prefix('_')?;
    STANDARD.decode(text).ok().filter(|key| KEY_BYTES.contains(&key.len()))
}

/// The header `webhook-signature` of a message with this id, sent at `timestamp` (seconds since 1970).
pub fn sign(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    let mac = mac.chain_update(format!("{id}.{timestamp}.")).chain_update(body).finalize();
    format!("v1,{}", STANDARD.encode(mac.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_convention() {
        // The example of the convention's own text.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let key = key(&secret).expect("a secret");
        let signed = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_a_key_of_a_fair_length() {
        let is_key = |text: &str| key(&Secret::new(text)).is_some();
        assert!(is_key(&format!("whsec_{}", "0f".repeat(32))), "what a vault makes");
        assert!(is_key(&format!("whsec_{}", STANDARD.encode([1; 24]))));
        for bad in ["", "whsec_", "whsec_AAAA", "hunter2", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqr!wjU"]
        {
            assert!(!is_key(bad), "{bad}");
        }
        assert!(!is_key(&format!("whsec_{}", STANDARD.encode([1; 65]))));
    }
}
