//! The time as the database keeps it.

use crate::{clock, request};
use chrono::SubsecRound;
use fleet_wire::Timestamp;

/// Now, to the microsecond: PostgreSQL keeps no more, and what is answered must be what is read later. Work that is repeated
/// under its `Idempotency-Key` has the time at which it was first asked, so that it writes the same.
pub fn now() -> Timestamp {
    request::claimed_at().unwrap_or_else(real)
}

/// What time it is, to the microsecond.
pub fn real() -> Timestamp {
    clock::now().trunc_subsecs(6)
}
