//! The time as the database keeps it.

use chrono::{SubsecRound, Utc};
use fleet_wire::Timestamp;

/// Now, to the microsecond: PostgreSQL keeps no more, and what is answered must be what is read later.
pub fn now() -> Timestamp {
    Utc::now().trunc_subsecs(6)
}
