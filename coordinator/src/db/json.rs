//! Rust values in `jsonb` columns.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::Jsonb;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::io::Write;

/// A value stored as `jsonb`. NUL, which `jsonb` refuses, is stored as U+FFFD.
#[derive(Clone, Debug, Default, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Jsonb)]
pub struct Json<T: Debug>(pub T);

/// The version that Postgres writes before a binary `jsonb`.
const VERSION: u8 = 1;

impl<T: Debug + DeserializeOwned> FromSql<Jsonb, Pg> for Json<T> {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes().split_first() {
            Some((&VERSION, text)) => Ok(Self(serde_json::from_slice(text)?)),
            _ => Err("a jsonb value of an unknown version".into()),
        }
    }
}

impl<T: Debug + Serialize> ToSql<Jsonb, Pg> for Json<T> {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let text = serde_json::to_string(&self.0)?;
        out.write_all(&[VERSION])?;
        out.write_all(without_nul(&text).as_bytes())?;
        Ok(serialize::IsNull::No)
    }
}

/// JSON text with every escaped NUL replaced. A backslash that is itself escaped is no escape.
fn without_nul(json: &str) -> std::borrow::Cow<'_, str> {
    if !json.contains("\\u0000") {
        return json.into();
    }
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        let length = if escape.starts_with("\\u0000") {
            clean.push_str("\\ufffd");
            6
        } else {
            // The character after a backslash is ASCII in every JSON text.
            clean.push_str(&escape[..2]);
            2
        };
        rest = &escape[length..];
    }
    clean.push_str(rest);
    clean.into()
}

#[cfg(test)]
mod tests {
    use super::without_nul;

    #[test]
    fn only_a_real_nul_is_replaced() {
        for text in ["plain", "a\0b", "\\u0000", "\\\0", "\0\0\"\\\\\0", "ends \\"] {
            let json = serde_json::to_string(text).expect("a string");
            let back: String = serde_json::from_str(&without_nul(&json)).expect("still a string");
            assert_eq!(back, text.replace('\0', "\u{fffd}"));
        }
    }
}
