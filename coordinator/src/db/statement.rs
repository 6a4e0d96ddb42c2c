//! A statement of fixed text, or one of a few. The connection keeps its plan, and it can be sent before the one ahead of it is answered;
//! what `diesel::sql_query` makes is parsed and planned anew each time, which costs a round trip more than the statement.

use diesel::QueryResult;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::Error;
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};
use std::borrow::Cow;
use std::marker::PhantomData;

/// See the module's text. Its parameters are `$1`, `$2` and so on, each once and in that order.
pub struct Statement<'a> {
    sql: Cow<'static, str>,
    binds: Vec<Box<dyn QueryFragment<Pg> + Send + 'a>>,
}

/// The statement `sql`.
pub fn statement<'a>(sql: impl Into<Cow<'static, str>>) -> Statement<'a> {
    Statement { sql: sql.into(), binds: Vec::new() }
}

impl<'a> Statement<'a> {
    /// The next parameter, with its SQL type.
    #[must_use]
    pub fn bind<ST, T>(mut self, value: T) -> Self
    where
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + Send + 'a,
        ST: Send + 'a,
    {
        self.binds.push(Box::new(Bind { value, sql_type: PhantomData }));
        self
    }
}

struct Bind<ST, T> {
    value: T,
    sql_type: PhantomData<ST>,
}

impl<ST, T> QueryFragment<Pg> for Bind<ST, T>
where
    Pg: HasSqlType<ST>,
    T: ToSql<ST, Pg>,
{
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_bind_param(&self.value)
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut rest = &*self.sql;
        for (bind, number) in self.binds.iter().zip(1_usize..) {
            let missing = || Error::QueryBuilderError(format!("no ${number} where it belongs in {}", self.sql).into());
            let (before, after) = split_at_place(rest, number).ok_or_else(missing)?;
            pass.push_sql(before);
            bind.walk_ast(pass.reborrow())?;
            rest = after;
        }
        pass.push_sql(rest);
        Ok(())
    }
}

/// The text before and after the place of a parameter. A statement is walked three times for each use: nothing is put on the
/// heap for it.
fn split_at_place(sql: &str, number: usize) -> Option<(&str, &str)> {
    sql.match_indices('$').find_map(|(at, _)| {
        let (before, after) = (&sql[..at], &sql[at + 1..]);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        (after[..digits].parse() == Ok(number)).then(|| (before, &after[digits..]))
    })
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // Its text tells it from others.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

#[cfg(test)]
mod tests {
    use super::*;
    use diesel::sql_types::{BigInt, Text};

    #[test]
    fn parameters_stand_where_the_text_has_them() {
        let made = statement("SELECT $1, ($2)::int4 FROM x WHERE y = $3")
            .bind::<BigInt, _>(1_i64)
            .bind::<Text, _>("b")
            .bind::<BigInt, _>(3_i64);
        let shown = diesel::debug_query::<Pg, _>(&made).to_string();
        assert_eq!(shown, r#"SELECT $1, ($2)::int4 FROM x WHERE y = $3 -- binds: [1, "b", 3]"#);
        assert!(made.is_safe_to_cache_prepared(&Pg).expect("no bad part"));
    }

    #[test]
    fn a_parameter_without_a_place_is_an_error() {
        for sql in ["SELECT $2", "SELECT $11", "SELECT $"] {
            let made = statement(sql).bind::<BigInt, _>(1_i64);
            assert!(made.is_safe_to_cache_prepared(&Pg).is_err(), "{sql}");
        }
        let twice = statement("SELECT $1").bind::<BigInt, _>(1_i64).bind::<BigInt, _>(2_i64);
        assert!(twice.is_safe_to_cache_prepared(&Pg).is_err());
    }
}
