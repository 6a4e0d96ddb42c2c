//! The two forms of a document: JSON, and YAML for people. Either is read into the same values.
//!
//! YAML has anchors, which let a small text mean a large document, so size, depth and what aliases add are bounded.

use super::super::body::find_nul;
use super::super::problem::{FieldError, Problem};
use actix_web::http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};
use serde_json::Value;

/// The largest document, in bytes: tens of thousands of hosts.
pub(in crate::http) const LARGEST: usize = 16 * 1024 * 1024;
/// Values in one document, with those that aliases stand for.
const MOST_NODES: usize = 2_000_000;
/// Of these, those that aliases stand for.
const MOST_FROM_ALIASES: usize = 500_000;
const DEEPEST: usize = 32;

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// What a request's body is in.
    pub(super) fn of_body(headers: &HeaderMap) -> Self {
        Self::named(headers, CONTENT_TYPE)
    }

    /// What an answer is to be in.
    pub(super) fn of_answer(headers: &HeaderMap) -> Self {
        Self::named(headers, ACCEPT)
    }

    /// YAML if a header asks for it, under any of its names.
    fn named(headers: &HeaderMap, header: HeaderName) -> Self {
        let text = headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let first = text.split([',', ';']).next().unwrap_or_default().trim().to_ascii_lowercase();
        match first.as_str() {
            "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Self::Yaml,
            _ => Self::Json,
        }
    }

    /// Its name.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// 400 for what is none, 422 for one with NUL in it.
    pub(super) fn read(self, bytes: &[u8]) -> Result<Value, Problem> {
        let value = match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| malformed("JSON", &error)),
            Self::Yaml => yaml(bytes).map_err(|error| malformed("YAML", &error)),
        }?;
        let mut errors = Vec::new();
        find_nul(&value, String::new(), &mut errors);
        if errors.is_empty() { Ok(value) } else { Err(Problem::invalid(errors)) }
    }

    /// Writes one.
    ///
    /// # Errors
    /// 500 if it has no such form, which all have.
    pub(super) fn write(self, value: &Value) -> Result<String, Problem> {
        match self {
            Self::Json => serde_json::to_string_pretty(value).map_err(Problem::internal),
            Self::Yaml => serde_saphyr::to_string(value).map_err(Problem::internal),
        }
    }
}

/// What parsers say of the syntax tells the place, and no values.
fn malformed(form: &str, error: &dyn std::fmt::Display) -> Problem {
    Problem::malformed(vec![FieldError::new("", format!("this is no {form}: {error}"))])
}

fn yaml(bytes: &[u8]) -> Result<Value, serde_saphyr::Error> {
    let budget = serde_saphyr::budget! {
        max_reader_input_bytes: Some(LARGEST),
        max_documents: 1,
        max_depth: DEEPEST,
        max_nodes: MOST_NODES,
        max_events: 2 * MOST_NODES,
        max_recorded_anchor_events: MOST_NODES,
        max_total_scalar_bytes: 2 * LARGEST,
    };
    // Octal numbers, `1_000` and `yes` are words to people who write cron expressions and labels.
    let mut options = serde_saphyr::options! {
        budget: budget,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = MOST_FROM_ALIASES;
    serde_saphyr::from_slice_with_options(bytes, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, String> {
        Format::Yaml.read(text.as_bytes()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn yaml_means_what_people_mean() {
        let text =
            "cron: '*/5 * * * *'\nlabels: {rack: 0755, on: yes, size: 1_000}\npaths: &p [/a, /b]\nagain: *p\nnone:\n";
        let expected = json!({
            "cron": "*/5 * * * *", "labels": {"rack": "0755", "on": "yes", "size": "1_000"},
            "paths": ["/a", "/b"], "again": ["/a", "/b"], "none": null,
        });
        assert_eq!(read(text), Ok(expected));
        assert_eq!(read("base: &b {x: 1}\nz:\n  <<: *b\n  y: 2").expect("reads")["z"], json!({"x": 1, "y": 2}));
    }

    #[test]
    fn what_is_no_document_is_refused_without_a_value() {
        for text in ["a: [", "a: *b", "a: 1\na: 2", "--- 1\n--- 2", "a: 'hunter2", "a: {b: hunter2", "a: */5 * hunter2"]
        {
            let error = read(text).expect_err(text);
            assert!(error.contains("this is no YAML") && !error.contains("hunter2"), "{error}");
        }
        assert!(Format::Json.read(b"{").is_err() && Format::Json.read(br#"{"a":"\u0000"}"#).is_err());
        assert!(read("a: \"\\0\"").is_err());
    }

    #[test]
    fn a_small_text_makes_no_large_document() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        assert!(read(&bomb).is_err());
        for deep in ["[", "- ", "{a: "] {
            assert!(read(&deep.repeat(100_000)).is_err(), "{deep}");
        }
    }

    #[test]
    fn headers_say_which_form() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            Format::of_body(&headers)
        };
        for yaml in ["application/yaml", "text/x-yaml; charset=utf-8", "Application/X-YAML"] {
            assert_eq!(of(yaml), Format::Yaml, "{yaml}");
        }
        for json in ["application/json", "text/plain", ""] {
            assert_eq!(of(json), Format::Json, "{json}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[ -~]{0,12}", "[-?:,\\[\\]{}#&*!|>'\"%@`~ \\n\\ta0]{0,10}", "\\PC{0,8}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            // A share has a few digits.
            (0..1000).prop_map(|number| json!(f64::from(number) / 1000.0)),
            text.clone().prop_map(Value::from),
            prop::sample::select(vec!["yes", "null", "~", "1e3", "0755", ".nan", "true", "- x", "a: b", "#", "<<"])
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            for format in [Format::Json, Format::Yaml] {
                let text = format.write(&value).expect("a form");
                prop_assert_eq!(format.read(text.as_bytes()), Ok(value.clone()), "{}", text);
            }
        }
    }
}
