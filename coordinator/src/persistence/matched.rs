//! A write that is done only if what it changes is still as its asker has seen it. That is looked at in the write's own
//! transaction, and the writer does one transaction after the other: of two who have seen the same, one is late.

use super::Write;
use crate::db::tags::{Tag, Thing};
use diesel::QueryResult;
use diesel_async::AsyncPgConnection;
use std::sync::{Mutex, PoisonError};

/// Which states of a thing its asker means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    Any,
    /// Those with one of these tags.
    OneOf(Vec<String>),
}

impl Condition {
    fn holds(&self, tag: Tag) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.contains(&tag.to_string()),
        }
    }
}

/// It is not as its asker has seen it: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasChanged;

/// See the module's text.
#[derive(Debug)]
pub struct Matched<W> {
    write: W,
    thing: Thing,
    /// Without one it is simply done.
    condition: Option<Condition>,
    /// What this write has made of the thing. It is applied again when nobody knows whether its commit was: then it meets that.
    made: Mutex<Option<Option<Tag>>>,
}

impl<W: Write> Matched<W> {
    /// `write`, which changes `thing`.
    pub fn new(condition: Option<Condition>, thing: Thing, write: W) -> Self {
        Self { write, thing, condition, made: Mutex::default() }
    }

    /// Whether it is to be done, as things are.
    fn is_wanted(&self, condition: &Condition, now: Option<Tag>) -> bool {
        let made = *self.made.lock().unwrap_or_else(PoisonError::into_inner);
        now.is_some_and(|tag| condition.holds(tag)) || made == Some(now)
    }
}

impl<W: Write> Write for Matched<W> {
    type Output = Result<W::Output, HasChanged>;

    async fn apply(&self, connection: &mut AsyncPgConnection) -> QueryResult<Self::Output> {
        let Some(condition) = &self.condition else { return self.write.apply(connection).await.map(Ok) };
        let now = self.thing.tag(connection).await?;
        if !self.is_wanted(condition, now) {
            return Ok(Err(HasChanged));
        }
        let output = self.write.apply(connection).await?;
        let made = self.thing.tag(connection).await?;
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(Ok(output))
    }

    fn is_change(output: &Self::Output) -> bool {
        output.as_ref().is_ok_and(W::is_change)
    }
}
