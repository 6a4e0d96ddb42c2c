//! The time zone of schedules that name none.

use fleet_wire::crontab::Zone;

/// The host's zone: `TZ` where it names one, as it does for restic and hooks, else what the system is set to, else UTC.
pub(super) fn of_host() -> Zone {
    let system = || iana_time_zone::get_timezone().map_err(|error| error.to_string());
    choose(std::env::var("TZ").ok().as_deref(), system)
}

fn choose(variable: Option<&str>, system: impl FnOnce() -> Result<String, String>) -> Zone {
    // POSIX lets the name of a file begin with a colon.
    let named = variable.map(|name| name.strip_prefix(':').unwrap_or(name)).filter(|name| !name.is_empty());
    if let Some(name) = named {
        match name.parse() {
            Ok(zone) => return zone,
            Err(error) => log::warn!("TZ is {name:?}, by which no schedule can go: {error}"),
        }
    }
    let found = system().and_then(|name| name.parse().map_err(|error| format!("{name:?}: {error}")));
    found.unwrap_or_else(|reason| {
        log::warn!("this host's time zone is unknown ({reason}): schedules that name none go by UTC");
        Zone::UTC
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variable: Option<&str>, system: Result<&str, &str>) -> String {
        choose(variable, || system.map(str::to_owned).map_err(str::to_owned)).to_string()
    }

    #[test]
    fn the_variable_comes_before_the_system_and_utc_is_what_is_left() {
        let system = Ok("Europe/Zurich");
        assert_eq!(chosen(Some("America/New_York"), system), "America/New_York");
        assert_eq!(chosen(Some(":Asia/Kolkata"), system), "Asia/Kolkata");
        for other in [None, Some(""), Some("CET-1CEST,M3.5.0,M10.5.0/3"), Some("/etc/localtime")] {
            assert_eq!(chosen(other, system), "Europe/Zurich", "{other:?}");
        }
        assert_eq!(chosen(None, Err("no /etc/localtime")), "UTC");
        assert_eq!(chosen(Some("Nowhere"), Ok("Local time")), "UTC");
    }
}
