//! Request bodies: JSON of a limited size that comes in a limited time, with complaints that name the field and never
//! repeat a value, which may be a secret.

use super::problem::{FieldError, Problem};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

/// The largest body, in bytes.
pub const LIMIT: usize = 1024 * 1024;
/// How long one may take to come whole.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The body of a request, read as JSON whatever its content type says. An empty body is read as `{}`.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let payload = payload.take();
        Box::pin(async move { parse(&collect(payload).await?).map(Self) })
    }
}

/// The whole body; one that is there is only handed on.
///
/// # Errors
/// It is too large, comes too slowly, or breaks off.
pub(super) async fn collect(payload: Payload) -> Result<web::Bytes, Problem> {
    collect_up_to(LIMIT, payload).await
}

/// The same, up to `limit` bytes.
pub(super) async fn collect_up_to(limit: usize, payload: Payload) -> Result<web::Bytes, Problem> {
    collect_within(TIME_LIMIT, limit, payload).await
}

async fn collect_within(time: Duration, limit: usize, payload: Payload) -> Result<web::Bytes, Problem> {
    tokio::time::timeout(time, gather(limit, payload)).await.unwrap_or_else(|_| Err(Problem::too_slow(time)))
}

async fn gather(limit: usize, mut payload: Payload) -> Result<web::Bytes, Problem> {
    let mut first = web::Bytes::new();
    let mut all = web::BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk: web::Bytes = chunk.map_err(|error| malformed(format!("the body breaks off: {error}")))?;
        if first.len().max(all.len()) + chunk.len() > limit {
            return Err(Problem::too_large(limit));
        }
        if first.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&chunk);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn malformed(detail: String) -> Problem {
    Problem::malformed(vec![FieldError::new("", detail)])
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    refuse_nul(bytes)?;
    let bytes = whole_numbers(bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
    let Object(value) =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| match error.inner().classify() {
            Category::Data => Problem::invalid(vec![told(&error)]),
            // What the parser says of the syntax quotes nothing.
            _ => {
                let detail = format!("this is no JSON: {}", error.inner());
                Problem::malformed(vec![FieldError::new(pointer(error.path()), detail)])
            }
        })?;
    deserializer.end().map_err(|error| malformed(format!("this is no JSON: {error}")))?;
    Ok(value)
}

/// What is wrong with data that is JSON.
pub(super) fn told(error: &serde_path_to_error::Error<serde_json::Error>) -> FieldError {
    complaint(pointer(error.path()), &error.inner().to_string())
}

/// An object, and nothing else: serde reads a list of its fields' values as one too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
}

/// JSON whose numbers that are whole are written so: to JSON, and to some who write it, `1.0` is the whole number 1.
fn whole_numbers(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'.') {
        return Cow::Borrowed(bytes);
    }
    let mut written = Vec::with_capacity(bytes.len());
    let (mut at, mut in_text) = (0, false);
    while at < bytes.len() {
        let length = match bytes[at] {
            b'\\' if in_text => 2,
            b'"' => {
                in_text = !in_text;
                1
            }
            b'-' | b'0'..=b'9' if !in_text => {
                let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                bytes[at..].iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len() - at)
            }
            _ => 1,
        };
        let token = &bytes[at..bytes.len().min(at + length)];
        match whole(token).filter(|_| !in_text) {
            Some(number) => written.extend(number.to_string().bytes()),
            None => written.extend(token),
        }
        at += token.len();
    }
    Cow::Owned(written)
}

/// The whole number that is written with a decimal point, if it is one that a double holds exactly.
fn whole(token: &[u8]) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if !token.contains(&b'.') {
        return None;
    }
    let number: f64 = serde_json::from_slice(token).ok()?;
    let is_whole = number.fract() == 0.0 && number.abs() <= EXACT;
    is_whole.then_some(number as i64)
}

/// NUL, which PostgreSQL can't store, is refused wherever it stands.
fn refuse_nul(bytes: &[u8]) -> Result<(), Problem> {
    let escape = b"\\u0000";
    if !bytes.windows(escape.len()).any(|window| window == escape) {
        return Ok(());
    }
    // What is no JSON gets its complaint later.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Ok(()) };
    let mut errors = Vec::new();
    find_nul(&value, String::new(), &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}

/// Notes where there is NUL.
pub(super) fn find_nul(value: &Value, pointer: String, errors: &mut Vec<FieldError>) {
    const DETAIL: &str = "can't hold NUL (U+0000)";
    match value {
        Value::String(text) if text.contains('\0') => errors.push(FieldError::new(pointer, DETAIL)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| find_nul(item, format!("{pointer}/{index}"), errors));
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                if name.contains('\0') {
                    errors.push(FieldError::new(pointer.clone(), "can't hold a name with NUL (U+0000)"));
                } else {
                    find_nul(field, format!("{pointer}/{}", escaped(name)), errors);
                }
            }
        }
        _ => {}
    }
}

/// A name as a part of a JSON pointer (RFC 6901).
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &Path) -> String {
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", escaped(key)),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

/// What serde says, without the value that it quotes.
fn complaint(pointer: String, message: &str) -> FieldError {
    // "… at line 1 column 9" helps nobody who has a pointer.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    if let Some(name) = quoted(message, "missing field `") {
        return FieldError::new(format!("{pointer}/{}", escaped(name)), "is missing");
    }
    if let Some(name) = quoted(message, "duplicate field `") {
        return FieldError::new(format!("{pointer}/{}", escaped(name)), "is given twice");
    }
    if let Some(name) = quoted(message, "unknown field `") {
        let last = format!("/{}", escaped(name));
        let pointer = if pointer.ends_with(&last) { pointer } else { pointer + &last };
        let known = message.rsplit_once(", expected ").map_or("", |(_, known)| known);
        return FieldError::new(pointer, format!("is not known here, {}", known_fields(known)));
    }
    match message.rsplit_once(", expected ") {
        Some((_, expected)) => FieldError::new(pointer, format!("must be {}", plain(expected))),
        None => FieldError::new(pointer, "makes no sense here"),
    }
}

fn known_fields(known: &str) -> String {
    match known.trim_start_matches("one of ") {
        "" => "nothing is".to_owned(),
        names => format!("known are {names}"),
    }
}

/// The name that `message` quotes after `prefix`.
fn quoted<'a>(message: &'a str, prefix: &str) -> Option<&'a str> {
    message.strip_prefix(prefix)?.split('`').next()
}

/// Rust's names of types in words that say something to people who write JSON.
fn plain(expected: &str) -> String {
    match expected {
        "i64" | "i32" => "a whole number".to_owned(),
        "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number that is not negative".to_owned(),
        "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::ResponseError;
    use fleet_wire::Secret;
    use futures_util::stream;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Inner {
        url: String,
        password: Option<Secret>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct Outer {
        name: String,
        #[serde(default)]
        number: i64,
        #[serde(default)]
        list: Vec<String>,
        admin: Option<Inner>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }

    fn complaint_of(body: &str) -> (u16, FieldError) {
        use actix_web::ResponseError;
        let problem = parse::<Outer>(body.as_bytes()).expect_err(body);
        (problem.status_code().as_u16(), problem.errors()[0].clone())
    }

    #[test]
    fn complaints_name_the_field() {
        let cases = [
            (r#"{"name":1}"#, "/name", "must be a string"),
            (r#"{"number":1}"#, "/name", "is missing"),
            ("", "/name", "is missing"),
            (r#"{"name":"a","number":"1"}"#, "/number", "must be a whole number"),
            (r#"{"name":"a","number":1.5}"#, "/number", "must be a whole number"),
            (r#"{"name":"a","number":18446744073709551615}"#, "/number", "must be a whole number"),
            (r#"{"name":"a","list":["b",2]}"#, "/list/1", "must be a string"),
            (r#"{"name":"a","list":"b"}"#, "/list", "must be a list"),
            (r#"{"name":"a","admin":7}"#, "/admin", "must be an object"),
            (r#"{"name":"a","admin":{"url":7}}"#, "/admin/url", "must be a string"),
            (r#"{"name":"a","admin":{}}"#, "/admin/url", "is missing"),
            (r#"{"name":"a","labels":{"a/b":7}}"#, "/labels/a~1b", "must be a string"),
            (r#"{"name":"a","admin":{"uri":7}}"#, "/admin/uri", "is not known here, known are `url` or `password`"),
            (r#"{"name":"a","name":"b"}"#, "/name", "is given twice"),
            ("[]", "", "must be an object"),
            (r#"["a"]"#, "", "must be an object"),
            (r#"{"name":"a","number":1.5e0}"#, "/number", "must be a whole number"),
            (r#"{"name":"a\u0000"}"#, "/name", "can't hold NUL (U+0000)"),
            (r#"{"name":"a","labels":{"~":"\u0000"}}"#, "/labels/~0", "can't hold NUL (U+0000)"),
        ];
        for (body, pointer, detail) in cases {
            assert_eq!(complaint_of(body), (422, FieldError::new(pointer, detail)), "{body}");
        }
    }

    #[actix::test]
    async fn a_body_comes_whole_and_in_time() {
        let pieces = |pieces: &[&'static str]| {
            let pieces: Vec<_> = pieces.iter().map(|piece| Ok(web::Bytes::from_static(piece.as_bytes()))).collect();
            stream::iter(pieces).boxed_local()
        };
        for (parts, whole) in [(&[][..], ""), (&["ab"], "ab"), (&["", "a", "", "b", "c"], "abc")] {
            assert_eq!(collect(Payload::Stream { payload: pieces(parts) }).await.expect("a body"), whole);
        }
        // It trickles, and never ends.
        let trickle = pieces(&["{"]).chain(stream::pending()).boxed_local();
        let slow = collect_within(Duration::from_millis(20), LIMIT, Payload::Stream { payload: trickle }).await;
        assert_eq!(slow.expect_err("too slow").status_code(), 408);
    }

    #[test]
    fn a_number_is_whole_however_it_is_written() {
        let read = |body: &str| parse::<Outer>(body.as_bytes()).map(|outer| (outer.name, outer.number));
        assert_eq!(read(r#"{"name":"a","number":-7.0}"#), Ok(("a".to_owned(), -7)));
        assert_eq!(read(r#"{"name":"1.0\" 2.0","number":1.50e1}"#), Ok(("1.0\" 2.0".to_owned(), 15)));
        assert_eq!(whole_numbers(br#"[0.5, 01.0, 1.0.0, -0.0, 3, "4.0"]"#), &br#"[0.5, 01.0, 1.0.0, 0, 3, "4.0"]"#[..]);
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in ["{", "nonsense", r#"{"name":"a"} x"#, r#"{"name":"\ud800"}"#, r#"{"name":}"#, "\u{feff}{}"] {
            let (status, error) = complaint_of(body);
            assert_eq!(status, 400, "{body}");
            assert!(error.detail.starts_with("this is no JSON"), "{body}: {}", error.detail);
        }
        assert!(parse::<Outer>(b"{\"name\":\"\xff\"}").is_err());
    }

    #[test]
    fn no_complaint_repeats_a_value() {
        for body in [
            r#"{"name":"a","number":"hunter2, expected i64"}"#,
            r#"{"name":["hunter2"]}"#,
            r#"{"name":"a","admin":"hunter2"}"#,
            r#"{"name":"a","admin":{"url":"u","password":["hunter2"]}}"#,
            r#"{"name":"a","admin":{"url":"u","password":{"hunter2":1}}}"#,
            r#"{"name":"a","list":"hunter2"}"#,
            r#"{"name":"hunter2\u0000"}"#,
            r#"{"name":"hunter2"#,
        ] {
            let (_, error) = complaint_of(body);
            assert!(!format!("{error:?}").contains("hunter2"), "{body}: {error:?}");
        }
    }
}
