//! Time zones, by their names in the IANA database.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The time zone of a schedule. Its rules are compiled in (chrono-tz): host and coordinator agree if they are of one
/// version, whatever the host's own tables say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

impl Zone {
    /// Where no clock changes.
    pub const UTC: Self = Self(Tz::UTC);

    /// What a clock shows at this instant.
    pub(super) fn local(self, instant: DateTime<Utc>) -> Option<NaiveDateTime> {
        let utc = instant.naive_utc();
        utc.checked_add_offset(self.0.offset_from_utc_datetime(&utc).fix())
    }

    /// When a clock shows this time: once, twice or never.
    pub(super) fn instants(self, local: NaiveDateTime) -> MappedLocalTime<DateTime<Utc>> {
        self.0.from_local_datetime(&local).map(|instant| instant.to_utc())
    }

    /// For a time that no clock shows: when clocks have jumped over it.
    pub(super) fn after_gap(self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        Some(GapInfo::new(&local, &self.0)?.end?.to_utc())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// The name is not in the IANA database.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("no such time zone: {}", hint(*.similar))]
pub struct UnknownZone {
    /// One that may have been meant.
    pub similar: Option<Zone>,
}

fn hint(similar: Option<Zone>) -> String {
    match similar {
        Some(zone) => format!("is {zone} meant?"),
        None => "its name in the IANA database is needed, such as Europe/Berlin, or UTC".to_owned(),
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    /// Takes the exact name only: it is stored, and others read it.
    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        name.parse().map(Self).map_err(|_| UnknownZone { similar: similar(name) })
    }
}

/// A zone whose name, or whose city, is this one but for case and blanks.
fn similar(name: &str) -> Option<Zone> {
    let name = name.trim().replace(' ', "_");
    let city = |zone: &str| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&name));
    let same = TZ_VARIANTS.iter().find(|zone| zone.name().eq_ignore_ascii_case(&name));
    same.or_else(|| TZ_VARIANTS.iter().find(|zone| city(zone.name()))).copied().map(Zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_the_names_of_the_iana_database() {
        for name in ["UTC", "Etc/UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Australia/Lord_Howe"] {
            assert_eq!(name.parse::<Zone>().map(|zone| zone.to_string()).as_deref(), Ok(name));
        }
        assert_eq!("UTC".parse(), Ok(Zone::UTC));
    }

    #[test]
    fn an_unknown_zone_comes_with_a_hint() {
        let said = |name: &str| name.parse::<Zone>().map_err(|error| error.to_string());
        for (name, meant) in [
            ("europe/berlin", "Europe/Berlin"),
            ("Berlin", "Europe/Berlin"),
            ("new york", "America/New_York"),
            (" Asia/Kolkata", "Asia/Kolkata"),
        ] {
            assert_eq!(said(name), Err(format!("no such time zone: is {meant} meant?")));
        }
        for name in ["", "Europe/", "CEST", "+02:00", "Mars/Olympus_Mons", "EST5EDT,M3.2.0,M11.1.0"] {
            assert!(said(name).is_err_and(|said| said.contains("such as Europe/Berlin")), "{name}");
        }
    }
}
