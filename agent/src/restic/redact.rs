//! Keeps secrets out of whatever leaves the agent.

use crate::credentials::Credentials;
use crate::process::char_boundary;
use std::fmt::Write;

/// What stands for a secret; restic writes the same for the passwords that it hides.
const MASK: &str = "***";

/// Shorter secrets are left alone: masking one or two characters everywhere would spoil every line and, by its
/// pattern, show the secret.
const SHORTEST: usize = 3;

/// Every known secret in every form in which it may appear.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret within another one does not leave the rest of it.
    forms: Vec<String>,
}

impl Redactor {
    /// Knows the secrets of `credentials`, those in the repository's address among them.
    pub fn new(credentials: &Credentials) -> Self {
        let secrets = [&credentials.password, &credentials.credential].into_iter().flatten();
        let mut plain: Vec<String> = secrets.map(|secret| secret.expose().to_owned()).collect();
        if let Some(password) = credentials.url.as_deref().and_then(password_in_url) {
            plain.push(percent_decode(password));
            plain.push(password.to_owned());
        }
        let mut forms: Vec<String> = plain.iter().flat_map(|secret| forms_of(secret)).collect();
        forms.retain(|form| form.len() >= SHORTEST);
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self { forms }
    }

    /// `text` with every secret masked.
    pub fn redact(&self, text: &str) -> String {
        self.forms.iter().fold(text.to_owned(), |text, form| {
            if text.contains(form.as_str()) { text.replace(form.as_str(), MASK) } else { text }
        })
    }

    /// The length of the longest form, in bytes.
    pub fn longest(&self) -> usize {
        self.forms.first().map_or(0, String::len)
    }

    /// Where a line that is too long can be cut at `wanted` or before, so that the cut splits no secret.
    pub fn cut(&self, line: &[u8], wanted: usize) -> usize {
        let from = wanted.saturating_sub(self.longest());
        let split = self.forms.iter().filter_map(|form| {
            let until = (wanted + form.len()).min(line.len());
            let window = line.get(from..until)?;
            let starts = window.windows(form.len()).enumerate().filter(|(_, bytes)| *bytes == form.as_bytes());
            starts.map(|(at, _)| from + at).find(|start| *start < wanted && start + form.len() > wanted)
        });
        split.min().filter(|start| *start > 0).unwrap_or_else(|| char_boundary(line, wanted))
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} forms)", self.forms.len())
    }
}

/// A secret as it is, in a URL, and in a JSON string.
fn forms_of(secret: &str) -> [String; 4] {
    let quoted = serde_json::to_string(secret).unwrap_or_default();
    let in_json = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
    let lower = percent_encode_with(secret, |out, byte| write!(out, "%{byte:02x}"));
    [secret.to_owned(), percent_encode(secret), lower, in_json]
}

/// Encodes everything but `A-Z a-z 0-9 - . _ ~`, which restic 0.14 needs in an address (restic prints the whole
/// address when an escape is invalid).
pub fn percent_encode(text: &str) -> String {
    percent_encode_with(text, |out, byte| write!(out, "%{byte:02X}"))
}

fn percent_encode_with(text: &str, escape: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a string can't fail.
            let _ = escape(&mut out, byte);
        }
    }
    out
}

/// The reverse; what is no escape stays as it is.
pub fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        if let Some(byte) = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The password in `rest:http://user:password@host/…`, encoded as it stands there.
pub fn password_in_url(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (user_info, _) = authority.rsplit_once('@')?;
    user_info.split_once(':').map(|(_, password)| password).filter(|password| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_wire::Secret;

    fn secret(text: &str) -> Option<Secret> {
        (!text.is_empty()).then(|| Secret::new(text))
    }

    fn redactor(password: &str, credential: &str, url: &str) -> Redactor {
        Redactor::new(&Credentials {
            url: Some(url.to_owned()),
            password: secret(password),
            username: Some("h1".to_owned()),
            credential: secret(credential),
        })
    }

    #[test]
    fn every_form_of_a_secret_is_masked() {
        let redactor = redactor("p@ss/w#rd", "quo\"te", "rest:http://u:in%40url@h/");
        let line = r#"p@ss/w#rd p%40ss%2Fw%23rd p%40ss%2fw%23rd {"a":"quo\"te"} in%40url in@url"#;
        assert_eq!(redactor.redact(line), r#"*** *** *** {"a":"***"} *** ***"#);
        assert_eq!(redactor.redact("nothing here"), "nothing here");
    }

    #[test]
    fn a_secret_within_another_leaves_nothing_of_it() {
        assert_eq!(redactor("abc", "abcdef", "/repo").redact("abcdef abc"), "*** ***");
    }

    #[test]
    fn very_short_secrets_do_not_spoil_the_log() {
        assert_eq!(redactor("e", "", "/repo").redact("message"), "message");
    }

    #[test]
    fn a_cut_never_splits_a_secret() {
        let redactor = redactor("SECRET", "", "/repo");
        let line = b"0123SECRET6789";
        for wanted in 5..10 {
            assert_eq!(redactor.cut(line, wanted), 4, "{wanted}");
        }
        assert_eq!((redactor.cut(line, 4), redactor.cut(line, 10)), (4, 10));
    }

    #[test]
    fn escapes_go_both_ways() {
        assert_eq!(percent_encode("p@ss/w#rd%41 é"), "p%40ss%2Fw%23rd%2541%20%C3%A9");
        assert_eq!(percent_decode("p%40ss%2fw%23rd%2541%20%C3%A9"), "p@ss/w#rd%41 é");
        assert_eq!(percent_decode("100% %zz é%"), "100% %zz é%");
    }

    #[test]
    fn passwords_are_found_in_addresses() {
        assert_eq!(password_in_url("rest:http://u:p@h:8000/x"), Some("p"));
        assert_eq!(password_in_url("rest:http://u:p@ss@h:8000/x@y"), Some("p@ss"));
        for none in ["/srv/repo", "rest:http://h/u:p@x", "rest:http://u@h/", "sftp:u@h:/x"] {
            assert_eq!(password_in_url(none), None, "{none}");
        }
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        assert!(!format!("{:?}", redactor("hidden-one", "", "/repo")).contains("hidden"));
    }
}
