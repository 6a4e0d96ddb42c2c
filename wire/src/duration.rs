//! Durations as people give them to both programs.

use std::time::Duration;

/// Reads a number of seconds, or one with a unit: 90s, 15m, 24h, 7d.
///
/// # Errors
/// It is none; the text says what is asked for.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number: u32 = number.parse().map_err(|_| "give a number with s, m, h or d, such as 90s or 24h".to_owned())?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(
            (seconds("90"), seconds("90s"), seconds("15m"), seconds("2d")),
            (Ok(90), Ok(90), Ok(900), Ok(172_800))
        );
        assert!(["", "m", "-1s", "1w", "1.5h"].into_iter().all(|bad| seconds(bad).is_err()));
    }
}
