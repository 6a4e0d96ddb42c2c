//! A field of a PATCH: absent, `null` and a value are three different things.

use serde::{Deserialize, Deserializer};

/// See the module's text. Fields of this type need `#[serde(default)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The field is to stay as it is.
    #[default]
    Absent,
    /// The field is to be emptied.
    Null,
    /// The field is to be this.
    Value(T),
}

impl<T> Patch<T> {
    /// The change as Diesel takes it: nothing, to NULL, or to a value.
    pub fn into_change(self) -> Option<Option<T>> {
        match self {
            Self::Absent => None,
            Self::Null => Some(None),
            Self::Value(value) => Some(Some(value)),
        }
    }

    /// The value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }

    /// True if the field was given as `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Makes another value of a value.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_map<U, E>(self, make: impl FnOnce(T) -> Result<U, E>) -> Result<Patch<U>, E> {
        Ok(match self {
            Self::Absent => Patch::Absent,
            Self::Null => Patch::Null,
            Self::Value(value) => Patch::Value(make(value)?),
        })
    }
}

impl Patch<String> {
    /// An empty text is the same as none.
    #[must_use]
    pub fn empty_is_null(self) -> Self {
        match self {
            Self::Value(text) if text.is_empty() => Self::Null,
            other => other,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map_or(Self::Null, Self::Value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Body {
        #[serde(default)]
        field: Patch<i64>,
    }

    #[test]
    fn absent_null_and_a_value_are_kept_apart() {
        let read = |text| serde_json::from_str::<Body>(text).expect("reads").field;
        assert_eq!(read("{}").into_change(), None);
        assert_eq!(read(r#"{"field":null}"#).into_change(), Some(None));
        assert_eq!(read(r#"{"field":0}"#).into_change(), Some(Some(0)));
    }
}
