//! Time zones, by their names in the IANA database.

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDateTime, TimeDelta, Timelike, Utc};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use thiserror::Error;

/// The tables that are compiled in. They are plain bytes, read when a zone is first asked for: an agent knows one or two.
static TABLES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// The time zone of a schedule. Its rules are compiled in: host and coordinator agree if they are of one version, whatever
/// the host's own tables say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// Where no clock changes.
    pub const UTC: Self = Self(TimeZone::UTC);

    fn named(name: &str) -> Option<Self> {
        TABLES.get(name).ok().map(Self)
    }

    /// The names of all zones, in their order.
    pub fn names() -> Vec<String> {
        let known = |name: &str| Self::named(name).is_some_and(|zone| zone.name() == name);
        TABLES.available().map(|name| name.as_str().to_owned()).filter(|name| known(name)).collect()
    }

    /// Its name in the IANA database.
    fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// What a clock shows at this instant.
    pub(super) fn local(&self, instant: DateTime<Utc>) -> Option<NaiveDateTime> {
        let offset = self.0.to_offset(Timestamp::from_second(instant.timestamp()).ok()?);
        instant.naive_utc().checked_add_signed(seconds(offset))
    }

    /// When a clock shows this time: once, twice or never.
    pub(super) fn instants(&self, local: NaiveDateTime) -> MappedLocalTime<DateTime<Utc>> {
        match self.offset_at(local) {
            Some(AmbiguousOffset::Unambiguous { offset }) => {
                instant(local, offset).map_or(MappedLocalTime::None, MappedLocalTime::Single)
            }
            Some(AmbiguousOffset::Fold { before, after }) => match (instant(local, before), instant(local, after)) {
                (Some(first), Some(second)) => MappedLocalTime::Ambiguous(first, second),
                _ => MappedLocalTime::None,
            },
            Some(AmbiguousOffset::Gap { .. }) | None => MappedLocalTime::None,
        }
    }

    /// For a time that no clock shows: when clocks have jumped over it.
    pub(super) fn after_gap(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        let AmbiguousOffset::Gap { after, .. } = self.offset_at(local)? else { return None };
        // By the clock as it is set afterwards, the time is before the jump.
        let before_jump = Timestamp::from_second(instant(local, after)?.timestamp()).ok()?;
        let jump = self.0.following(before_jump).next()?;
        DateTime::from_timestamp(jump.timestamp().as_second(), 0)
    }

    fn offset_at(&self, local: NaiveDateTime) -> Option<AmbiguousOffset> {
        let number = |number: u32| i8::try_from(number).ok();
        let date = Date::new(i16::try_from(local.year()).ok()?, number(local.month())?, number(local.day())?).ok()?;
        let time = date.at(number(local.hour())?, number(local.minute())?, number(local.second())?, 0);
        Some(self.0.to_ambiguous_timestamp(time).offset())
    }
}

fn seconds(offset: Offset) -> TimeDelta {
    TimeDelta::seconds(offset.seconds().into())
}

/// When a clock with this offset shows a time.
fn instant(local: NaiveDateTime, offset: Offset) -> Option<DateTime<Utc>> {
    Some(local.checked_sub_signed(seconds(offset))?.and_utc())
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is not in the IANA database.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("no such time zone: {}", hint(.similar.as_ref()))]
pub struct UnknownZone {
    /// One that may have been meant.
    pub similar: Option<Zone>,
}

fn hint(similar: Option<&Zone>) -> String {
    match similar {
        Some(zone) => format!("is {zone} meant?"),
        None => "its name in the IANA database is needed, such as Europe/Berlin, or UTC".to_owned(),
    }
}

impl FromStr for Zone {
    type Err = UnknownZone;

    /// Takes the exact name only: it is stored, and others read it.
    fn from_str(name: &str) -> Result<Self, UnknownZone> {
        let exact = Self::named(name).filter(|zone| zone.name() == name);
        exact.ok_or_else(|| UnknownZone { similar: similar(name) })
    }
}

/// A zone whose name, or whose city, is this one but for case and blanks.
fn similar(name: &str) -> Option<Zone> {
    let name = name.trim().replace(' ', "_");
    let city = |zone: &str| zone.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&name));
    Zone::named(&name).or_else(|| Zone::named(TABLES.available().find(|zone| city(zone.as_str()))?.as_str()))
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
