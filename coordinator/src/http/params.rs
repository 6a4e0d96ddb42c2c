//! The query of a URL.

use super::problem::{FieldError, Problem};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use chrono::DateTime;
use fleet_wire::Timestamp;
use std::future::{Ready, ready};

/// The parameters of a query, percent-decoded, in their order.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl FromRequest for Params {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.query_string()))
    }
}

/// 400 about one parameter.
pub fn bad_param(name: &str, detail: impl Into<String>) -> Problem {
    Problem::malformed(vec![FieldError::new(format!("?{name}"), detail)])
}

impl Params {
    fn parse(query: &str) -> Result<Self, Problem> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| bad_param("", "the query must be name=value pairs, joined by &"))?
            .into_inner();
        match pairs.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
            Some((name, _)) => Err(bad_param(&name.replace('\0', ""), "can't hold NUL (U+0000)")),
            None => Ok(Self(pairs)),
        }
    }

    /// Refuses parameters of other names: a filter that is misspelt would silently filter nothing.
    ///
    /// # Errors
    /// 400 that names it.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(bad_param(name, format!("is not known here, known are: {}", known.join(", ")))),
            None => Ok(()),
        }
    }

    /// The value of a parameter that may be given once.
    ///
    /// # Errors
    /// 400 if it is given twice.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(given, _)| given == name);
        let value = values.next().map(|(_, value)| value.as_str());
        if values.next().is_some() { Err(bad_param(name, "may be given once")) } else { Ok(value) }
    }

    /// The values of a parameter that may be given many times.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that is a time.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let parse = |text: &str| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let value = self.one(name)?.map(|text| {
            parse(text).map_err(|_| bad_param(name, "must be a time as in RFC 3339, such as 2026-11-24T00:00:00Z"))
        });
        value.transpose()
    }

    /// A parameter that is a whole number within `range`.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(bad_param(name, format!("must be a whole number from {} to {}", range.start(), range.end()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_repeat() {
        let params = Params::parse("label=a%3Db&label=c+d&status=online").expect("parses");
        assert_eq!(params.all("label").collect::<Vec<_>>(), ["a=b", "c d"]);
        assert_eq!(params.one("status"), Ok(Some("online")));
        assert!(params.one("label").is_err());
        assert!(params.only(&["label", "status"]).is_ok());
        assert!(params.only(&["label"]).is_err());
        assert!(Params::parse("label=%00").is_err());
    }

    #[test]
    fn numbers_are_held_in_their_range() {
        let params = Params::parse("a=5&b=x&c=0&d=99999999999999999999").expect("parses");
        assert_eq!(params.number("a", 1..=9), Ok(Some(5)));
        assert_eq!(params.number("z", 1..=9), Ok(None));
        for name in ["b", "c", "d"] {
            assert!(params.number(name, 1..=9).is_err(), "{name}");
        }
    }
}
