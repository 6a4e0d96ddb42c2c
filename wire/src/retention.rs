//! Retention policies and the names of source groups: what both sides must judge alike.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What `restic forget` keeps of one source group. A rule of `0` is the same as no rule (restic reads it so).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is restic's option of that name, in snapshots")]
pub struct RetentionPolicy {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<i64>,
}

/// Why a policy can't be handed to restic.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RetentionError {
    /// No rule above zero: restic before 0.17 would do nothing and call it success, later ones fail.
    #[error("the retention policy keeps nothing: give at least one keep_… rule above zero")]
    Empty,
    /// restic 0.14 removes every matching snapshot when a rule is negative.
    #[error("{rule} is {value}: a rule can't be negative")]
    Negative {
        /// The rule's name.
        rule: &'static str,
        /// What it was set to.
        value: i64,
    },
}

impl RetentionPolicy {
    /// Each rule with its value, in restic's order; the name is restic's option with `_` for `-`.
    pub fn rules(&self) -> [(&'static str, Option<i64>); 6] {
        [
            ("keep_last", self.keep_last),
            ("keep_hourly", self.keep_hourly),
            ("keep_daily", self.keep_daily),
            ("keep_weekly", self.keep_weekly),
            ("keep_monthly", self.keep_monthly),
            ("keep_yearly", self.keep_yearly),
        ]
    }

    /// Whether restic can be asked to forget by this policy.
    ///
    /// # Errors
    /// The policy has a negative rule, or none above zero.
    pub fn check(&self) -> Result<(), RetentionError> {
        let rules = self.rules();
        if let Some((rule, Some(value))) = rules.into_iter().find(|(_, value)| value.is_some_and(|value| value < 0)) {
            return Err(RetentionError::Negative { rule, value });
        }
        if rules.into_iter().all(|(_, value)| value.unwrap_or(0) == 0) {
            return Err(RetentionError::Empty);
        }
        Ok(())
    }
}

/// Why a source group can't have this name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GroupNameError {
    /// `--tag ''` selects the snapshots without a tag.
    #[error("a source group's name can't be empty")]
    Empty,
    /// restic splits a tag at commas, and reads `a,b` in a filter as "both".
    #[error("a source group's name can't hold a comma: restic would read it as several tags")]
    Comma,
    /// restic trims tags, so the name would not be found again.
    #[error("a source group's name can't begin or end with white space: restic trims tags")]
    Untrimmed,
    /// Control characters can't pass through a command line, a log or a URL unharmed.
    #[error("a source group's name can't hold control characters")]
    Control,
}

/// Whether `name` can name a source group, which is the tag of its snapshots.
///
/// # Errors
/// What restic would make of the name.
pub fn check_group_name(name: &str) -> Result<(), GroupNameError> {
    if name.is_empty() {
        Err(GroupNameError::Empty)
    } else if name.contains(',') {
        Err(GroupNameError::Comma)
    } else if name.trim() != name {
        Err(GroupNameError::Untrimmed)
    } else if name.chars().any(char::is_control) {
        Err(GroupNameError::Control)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_must_keep_something() {
        let zero = RetentionPolicy { keep_last: Some(0), ..RetentionPolicy::default() };
        assert_eq!(RetentionPolicy::default().check(), Err(RetentionError::Empty));
        assert_eq!(zero.check(), Err(RetentionError::Empty));
        let daily = RetentionPolicy { keep_last: Some(0), keep_daily: Some(7), ..RetentionPolicy::default() };
        assert_eq!(daily.check(), Ok(()));
    }

    #[test]
    fn a_negative_rule_is_refused_even_beside_a_good_one() {
        let policy = RetentionPolicy { keep_last: Some(3), keep_weekly: Some(-1), ..RetentionPolicy::default() };
        assert_eq!(policy.check(), Err(RetentionError::Negative { rule: "keep_weekly", value: -1 }));
    }

    #[test]
    fn group_names_that_restic_would_change_are_refused() {
        assert_eq!(check_group_name(""), Err(GroupNameError::Empty));
        assert_eq!(check_group_name("a,b"), Err(GroupNameError::Comma));
        assert_eq!(check_group_name(" docs"), Err(GroupNameError::Untrimmed));
        assert_eq!(check_group_name("do\0cs"), Err(GroupNameError::Control));
        assert_eq!(check_group_name("Dokumente & Bücher"), Ok(()));
    }
}
