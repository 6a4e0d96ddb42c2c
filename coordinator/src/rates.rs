//! How many requests come in a second: of each token, and of those who have none of each address. Who asks faster is told when
//! to come back.
//!
//! A bucket fills evenly up to what two seconds bring, and each request takes from it. A token's bucket is its own, so there are
//! no more than tokens; addresses have `ADDRESSES` buckets at most, and those that are full are forgotten first: nobody can
//! tell a full bucket from a new one.

use crate::config::Rates as Rules;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Addresses that have a bucket of their own; others share one.
const ADDRESSES: usize = 4096;
/// What a full bucket holds, in seconds.
const BURST: f64 = 2.0;

/// Requests a second of a token that was made, unless somebody says.
const OF_TOKEN: u32 = 1000;
/// Requests a second of an address without a token, unless somebody says.
const OF_ADDRESS: u32 = 100;

/// How much of a bucket is used up, and when that was so. It leaks at its rate.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Option<(f64, Instant)>>);

impl Bucket {
    /// Takes one request out of a bucket that brings `rate` a second.
    ///
    /// # Errors
    /// When to come back: it is empty until then.
    pub fn take(&self, rate: NonZeroU32, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(rate.get());
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let would_be = left_over(*used, rate, now) + 1.0;
        // Where a second brings less than one, a request goes all the same.
        let holds = (rate * BURST).max(1.0);
        if would_be > holds {
            return Err(Duration::from_secs_f64((would_be - holds) / rate));
        }
        *used = Some((would_be, now));
        Ok(())
    }

    fn is_full(&self, rate: NonZeroU32, now: Instant) -> bool {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        left_over(*used, f64::from(rate.get()), now) <= 0.0
    }
}

/// What is used up now.
fn left_over(used: Option<(f64, Instant)>, rate: f64, now: Instant) -> f64 {
    used.map_or(0.0, |(used, at)| (used - now.saturating_duration_since(at).as_secs_f64() * rate).max(0.0))
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Rates {
    of_token: Option<NonZeroU32>,
    of_admin: Option<NonZeroU32>,
    of_address: Option<NonZeroU32>,
    addresses: Mutex<HashMap<IpAddr, Bucket>>,
    /// Of those that have none of their own.
    others: Bucket,
}

impl Rates {
    /// The rates that somebody has set, and the usual ones. The built-in admin has one only if it was set.
    pub fn new(rules: &Rules) -> Self {
        let of = |set: Option<u32>, usual| NonZeroU32::new(set.unwrap_or(usual));
        Self {
            of_token: of(rules.token, OF_TOKEN),
            of_admin: of(rules.token, 0),
            of_address: of(rules.address, OF_ADDRESS),
            ..Self::default()
        }
    }

    /// Counts a request with a token.
    ///
    /// # Errors
    /// When to come back.
    pub fn of_token(&self, bucket: &Bucket, is_admin: bool, now: Instant) -> Result<(), Duration> {
        let rate = if is_admin { self.of_admin } else { self.of_token };
        rate.map_or(Ok(()), |rate| bucket.take(rate, now))
    }

    /// Counts a request without one.
    ///
    /// # Errors
    /// When to come back.
    pub fn of_address(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.of_address else { return Ok(()) };
        let Some(address) = address.map(network) else { return self.others.take(rate, now) };
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.contains_key(&address) && addresses.len() >= ADDRESSES {
            addresses.retain(|_, bucket| !bucket.is_full(rate, now));
            if addresses.len() >= ADDRESSES {
                return self.others.take(rate, now);
            }
        }
        addresses.entry(address).or_default().take(rate, now)
    }
}

/// Who has one IPv6 address has as many as there are in its network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => long.to_ipv4_mapped().map_or_else(
            || {
                let [first, second, third, fourth, ..] = long.segments();
                Ipv6Addr::new(first, second, third, fourth, 0, 0, 0, 0).into()
            },
            IpAddr::V4,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).expect("a rate")
    }

    #[test]
    fn a_bucket_fills_evenly_and_not_beyond() {
        let (bucket, start) = (Bucket::default(), Instant::now());
        let take = |after: f64| bucket.take(rate(2), start + Duration::from_secs_f64(after));
        for _ in 0..4 {
            assert_eq!(take(0.0), Ok(()));
        }
        assert_eq!(take(0.0), Err(Duration::from_millis(500)));
        assert_eq!(take(0.25), Err(Duration::from_millis(250)));
        assert_eq!(take(0.5), Ok(()));
        for _ in 0..4 {
            assert_eq!(take(1000.0), Ok(()));
        }
        assert!(take(1000.0).is_err(), "a long rest brings no more than a full bucket");
    }

    #[test]
    fn addresses_are_bounded_and_those_that_rest_are_forgotten() {
        let rules = Rules { token: None, address: Some(1) };
        let (rates, start) = (Rates::new(&rules), Instant::now());
        let address = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        let most = u32::try_from(ADDRESSES).expect("a number");
        for number in 0..most {
            assert_eq!(rates.of_address(address(number), start), Ok(()));
        }
        // The others share one.
        assert_eq!(rates.of_address(address(most), start), Ok(()));
        assert_eq!(rates.of_address(address(most + 1), start), Ok(()));
        assert!(rates.of_address(address(most + 2), start).is_err());
        assert_eq!(rates.of_address(address(0), start), Ok(()), "it has its own");
        assert!(rates.of_address(address(0), start).is_err());
        let later = start + Duration::from_secs(60);
        assert_eq!(rates.of_address(address(most + 2), later), Ok(()));
        assert_eq!(rates.addresses.lock().expect("no panic").len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let rules = Rules { token: None, address: Some(1) };
        let (rates, now) = (Rates::new(&rules), Instant::now());
        for last in 1..=2 {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, last);
            assert_eq!(rates.of_address(Some(address.into()), now), Ok(()));
        }
        let third = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 1, 0, 0, 3);
        assert!(rates.of_address(Some(third.into()), now).is_err());
    }

    #[test]
    fn what_is_not_set_limits_made_tokens_only() {
        let now = Instant::now();
        let usual = Rates::new(&Rules { token: None, address: None });
        let bucket = Bucket::default();
        assert!((0..10_000).all(|_| usual.of_token(&bucket, true, now).is_ok()));
        assert!(!(0..10_000).all(|_| usual.of_token(&bucket, false, now).is_ok()));
        let none = Rates::new(&Rules { token: Some(0), address: Some(0) });
        assert!((0..10_000).all(|_| none.of_token(&bucket, false, now).is_ok() && none.of_address(None, now).is_ok()));
    }
}
