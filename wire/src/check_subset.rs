//! Which part of a repository a check may be told to read: both sides must judge that alike.

/// Whether `subset` is one that `restic check --read-data-subset` takes: `N%`, `n/t`, or a size such as `500M`.
pub fn is_check_subset(subset: &str) -> bool {
    if let Some(percent) = subset.strip_suffix('%') {
        return number(percent).is_some_and(|percent| percent > 0.0 && percent <= 100.0);
    }
    if let Some((part, parts)) = subset.split_once('/') {
        let (part, parts) = (part.parse::<u32>(), parts.parse::<u32>());
        return matches!((part, parts), (Ok(part), Ok(parts)) if part >= 1 && part <= parts && parts <= 256);
    }
    let size = subset.strip_suffix(['K', 'k', 'M', 'm', 'G', 'g', 'T', 't']);
    size.is_some_and(|size| size.bytes().all(|byte| byte.is_ascii_digit()) && size.parse::<u32>().is_ok_and(|n| n > 0))
}

/// A plain decimal number, without sign or exponent.
fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_that_restic_refuses_are_known() {
        for good in ["5%", "0.5%", "100%", "1/10", "10/10", "256/256", "500M", "1G", "20k"] {
            assert!(is_check_subset(good), "{good}");
        }
        for bad in
            ["", "50", "0%", "101%", "-1%", "1e1%", "%", "3/2", "0/5", "1/", "/2", "1/257", "M", "5 M", "-5M", "5MB"]
        {
            assert!(!is_check_subset(bad), "{bad}");
        }
    }
}
