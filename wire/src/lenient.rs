//! Reading what peers in other languages write: `null` for an empty list, nothing for an empty string.

use serde::{Deserialize, Deserializer};

/// `null` is read as the type's default. Together with `#[serde(default)]` an absent field is too.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Something that peers write as an empty value when they mean that there is none.
pub(crate) trait MaybeEmpty {
    fn is_empty_value(&self) -> bool;
}

impl MaybeEmpty for String {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

/// An empty value, or `null`, is read as absent.
pub(crate) fn empty_is_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: MaybeEmpty + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.filter(|value| !value.is_empty_value()))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}
