//! Sizes, times and texts for people.

use chrono::{SecondsFormat, TimeDelta, Utc};
use fleet_wire::Timestamp;

/// Bytes: `1.5 GiB`.
pub(crate) fn bytes(count: i64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// A span: `42s`, `5m 7s`, `3h 12m`, `8d 4h`.
pub(crate) fn span(seconds: i64) -> String {
    let two = |large: i64, large_unit, small: i64, small_unit| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit} {small}{small_unit}"),
    };
    match seconds {
        ..60 => format!("{}s", seconds.max(0)),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A time as seen from `now`: `42s ago`, `in 3h`.
pub(crate) fn when(time: Timestamp, now: Timestamp) -> String {
    let seconds = now.signed_duration_since(time).num_seconds();
    match seconds {
        0 => "now".to_owned(),
        1.. => format!("{} ago", rough(seconds)),
        _ => format!("in {}", rough(-seconds)),
    }
}

/// A time of the API as seen from here and now; empty if there is none.
pub(crate) fn ago(time: Option<Timestamp>) -> String {
    time.map(|time| when(time, Utc::now())).unwrap_or_default()
}

/// A time to the second.
pub(crate) fn moment_of(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The largest unit of a span that leaves a number of at least two.
fn rough(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment that a person gives: as in RFC 3339, or how long ago it was (`24h`).
///
/// # Errors
/// It is neither.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let ago = fleet_wire::parse_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| Utc::now().checked_sub_signed(ago))
        .ok_or_else(|| "give a time such as 2026-11-24T00:00:00Z, or how long ago it was, such as 24h".to_owned())
}

/// A number with its noun: `1 file`, `2 files`.
pub(crate) fn count(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Text that a host or a person gave, without what would command a terminal.
pub(crate) fn printable(text: &str) -> String {
    let safe = |character: char| match character {
        '\n' | '\t' => character,
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        // These make text read in another order than it stands there.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        other => other,
    };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_readable() {
        assert_eq!([0, 1023, 1536, 1 << 40].map(bytes), ["0 B", "1023 B", "1.5 KiB", "1.0 TiB"]);
        assert_eq!(
            [-5, 0, 59, 60, 307, 3_600, 11_520, 172_800, 705_600].map(span),
            ["0s", "0s", "59s", "1m", "5m 7s", "1h", "3h 12m", "2d", "8d 4h"]
        );
        assert_eq!((count(1, "file"), count(2, "file")), ("1 file".to_owned(), "2 files".to_owned()));
    }

    #[test]
    fn times_are_seen_from_now() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().expect("a time");
        let at = |text: &str| when(text.parse().expect("a time"), now);
        assert_eq!(at("2026-03-01T11:59:18Z"), "42s ago");
        assert_eq!(at("2026-03-01T15:00:00Z"), "in 3h");
        assert_eq!(at("2026-02-01T12:00:00Z"), "28d ago");
        assert_eq!(at("2026-03-01T12:00:00.5Z"), "now");
    }

    #[test]
    fn moments_are_times_or_spans() {
        assert_eq!(
            parse_moment("2026-03-01T12:00:00+01:00").map(|at| at.to_rfc3339()),
            Ok("2026-03-01T11:00:00+00:00".to_owned())
        );
        let hour_ago = parse_moment("1h").expect("a moment");
        assert!((3_595..=3_605).contains(&(Utc::now() - hour_ago).num_seconds()));
        for bad in ["", "yesterday", "-1h", "2026-03-01"] {
            assert!(parse_moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_text_commands_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\tc\nd\u{202e}e\r"), "a\u{fffd}[2Jb\tc\nd\u{fffd}e\u{fffd}");
    }
}
