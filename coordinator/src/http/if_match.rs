//! `If-Match` and `ETag` (RFC 9110): who says what they have seen changes nothing that has changed since.

use super::problem::{FieldError, Problem};
use crate::db::tags::{Tag, Tagged};
use crate::persistence::Condition;
use actix_web::dev::Payload;
use actix_web::http::header::{ETAG, HeaderName, HeaderValue, IF_MATCH};
use actix_web::{FromRequest, HttpRequest};
use std::future::{Ready, ready};

/// What a request says in `If-Match`, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfMatch(pub Option<Condition>);

impl FromRequest for IfMatch {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let values: Vec<&[u8]> = request.headers().get_all(IF_MATCH).map(HeaderValue::as_bytes).collect();
        let condition = if values.is_empty() { Some(None) } else { read(&values.join(&b","[..])).map(Some) };
        let wrong = "must be *, or the ETag of what you have seen, in its quotes";
        let wrong = || Problem::malformed(vec![FieldError::new("If-Match", wrong)]);
        ready(condition.map(Self).ok_or_else(wrong))
    }
}

/// The value of all `If-Match` headers.
fn read(value: &[u8]) -> Option<Condition> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    if text == "*" {
        return Some(Condition::Any);
    }
    let mut rest = text;
    let mut tags = Vec::new();
    while !rest.is_empty() {
        // A tag may hold commas; empty items are allowed.
        if let Some(after) = rest.strip_prefix([',', ' ', '\t']) {
            rest = after;
            continue;
        }
        let (is_weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |quoted| (true, quoted));
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        if !tag.bytes().all(|byte| byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80) {
            return None;
        }
        // What is weak matches nothing: what differs may have the same weak tag.
        if !is_weak {
            tags.push(tag.to_owned());
        }
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
    (!text.is_empty()).then_some(Condition::OneOf(tags))
}

/// The header that names a state.
pub fn etag(state: &(impl Tagged + ?Sized)) -> (HeaderName, String) {
    named(state.tag())
}

fn named(tag: Tag) -> (HeaderName, String) {
    (ETAG, format!("\"{tag}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_the_rfc_writes_them() {
        let tags = |tags: &[&str]| Some(Condition::OneOf(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        let table = [
            ("*", Some(Condition::Any)),
            (" * ", Some(Condition::Any)),
            (r#""a""#, tags(&["a"])),
            (r#""a", "b,c" ,"#, tags(&["a", "b,c"])),
            (r#""""#, tags(&[""])),
            (r#"W/"a", "b""#, tags(&["b"])),
            (r#"W/"a""#, tags(&[])),
            ("", None),
            ("a", None),
            (r#""a"#, None),
            (r#""a" "b""#, None),
            (r#"w/"a""#, None),
            (r#"*, "a""#, None),
            ("\"a b\"", None),
        ];
        for (value, expected) in table {
            assert_eq!(read(value.as_bytes()), expected, "{value}");
        }
    }
}
