//! Delays after failed attempts. Failures of accounts are stored by the [service](crate::service);
//! failures of addresses are kept in memory, here.
//!
//! # Invariants
//!
//! - The first five failures cause no delay; each further one doubles it, from 1 s to 60 s, counted
//!   from the last failure. A rejected attempt is not a failure, so an attempt a minute later is
//!   admitted: no account is locked out for good.
//! - Users behind one address mistype now and then: one failure of an address is forgotten every 30
//!   s, which slows a guesser but not an office.
//! - A failure in the future, recorded by a clock that was ahead, causes no delay once it is ahead
//!   by more than the longest delay: a clock that was set back blocks no login.
//! - An account is identified by an HMAC of its address: the counters reveal no accounts.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Email, secret::Subkey, subkey::mac};

/// Time without a failure after which earlier ones are forgotten.
pub const FAILURE_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// Failures before delays start.
const FREE_FAILURES: u32 = 5;

/// Interval at which one failure of an address is forgotten.
const ADDRESS_LEAK_INTERVAL: TimeDelta = TimeDelta::seconds(30);

/// First delay, and the longest.
const MIN_WAIT: TimeDelta = TimeDelta::seconds(1);
const MAX_WAIT: TimeDelta = TimeDelta::seconds(60);

/// Maximum number of tracked addresses.
const MAX_ADDRESSES: usize = 10_000;

/// Recent failures of an account or an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Number of failures.
    pub count: u32,
    /// Time of the last failure.
    pub last_at: DateTime<Utc>,
}

impl Failures {
    /// Returns the delay at `now` before the next attempt at an account, or `None` if it is
    /// admitted.
    pub fn wait(&self, now: DateTime<Utc>) -> Option<Duration> {
        self.wait_beyond(FREE_FAILURES, now)
    }

    fn wait_beyond(&self, free: u32, now: DateTime<Utc>) -> Option<Duration> {
        let is_ahead = self.last_at.signed_duration_since(now) > MAX_WAIT;
        let is_over = is_ahead || self.is_forgotten(now);
        let beyond = self.count.checked_sub(free).filter(|_| !is_over)?;
        let wait = MIN_WAIT * 2_i32.pow(beyond.min(6));
        let wait = wait.min(MAX_WAIT);
        let left = wait - self.age(now);
        (left > TimeDelta::zero()).then(|| left.to_std().unwrap_or_default())
    }

    /// Returns the failures after one more at `now`.
    #[must_use]
    pub fn failed(self, now: DateTime<Utc>) -> Self {
        let count = if self.is_forgotten(now) { 0 } else { self.count };
        Self { count: count.saturating_add(1), last_at: now }
    }

    fn is_forgotten(&self, now: DateTime<Utc>) -> bool {
        now.signed_duration_since(self.last_at) >= FAILURE_LIFETIME
    }

    /// Returns the failures that are left when one is forgotten every 30 s.
    fn leaked(self, now: DateTime<Utc>) -> Self {
        let forgotten = self.age(now).num_seconds() / ADDRESS_LEAK_INTERVAL.num_seconds();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        Self { count: self.count.saturating_sub(forgotten), ..self }
    }

    /// Returns the age of the last failure, zero if the clock was set back.
    fn age(&self, now: DateTime<Utc>) -> TimeDelta {
        now.signed_duration_since(self.last_at).max(TimeDelta::zero())
    }
}

/// Failures by address, in a bounded table.
#[derive(Debug)]
pub struct AddressLimiter {
    failures: Mutex<HashMap<IpAddr, Failures>>,
    most: usize,
    free: u32,
}

impl Default for AddressLimiter {
    fn default() -> Self {
        Self::with_capacity(MAX_ADDRESSES)
    }
}

impl AddressLimiter {
    /// Returns a table of at most `most` addresses; when full, it drops the addresses with the
    /// oldest failures.
    pub fn with_capacity(most: usize) -> Self {
        Self { failures: Mutex::default(), most, free: FREE_FAILURES }
    }

    /// Returns a table that admits `free` attempts of an address without delay.
    pub fn with_free(free: u32) -> Self {
        Self { free, ..Self::default() }
    }

    /// Counts an attempt from `ip`, whatever its outcome.
    ///
    /// # Errors
    ///
    /// The delay, if the attempt is rejected; it is then not counted.
    pub fn try_acquire(&self, ip: IpAddr, now: DateTime<Utc>) -> Result<(), Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(ip);
        if failures.len() >= self.most && !failures.contains_key(&network) {
            evict_oldest(&mut failures, self.most);
        }
        let of_network = failures.entry(network).or_default();
        let leaked = of_network.leaked(now);
        if let Some(wait) = leaked.wait_beyond(self.free, now) {
            return Err(wait);
        }
        *of_network = leaked.failed(now);
        Ok(())
    }

    /// Checks that an attempt from `ip` is admitted.
    ///
    /// # Errors
    ///
    /// The delay.
    pub fn check(&self, ip: IpAddr, now: DateTime<Utc>) -> Result<(), Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let wait =
            failures.get(&network(ip)).and_then(|it| it.leaked(now).wait_beyond(self.free, now));
        wait.map_or(Ok(()), Err)
    }

    /// Counts a failed attempt from `ip`. A success clears nothing, since a guesser may have an
    /// account of their own.
    pub fn failed(&self, ip: IpAddr, now: DateTime<Utc>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let network = network(ip);
        if failures.len() >= self.most && !failures.contains_key(&network) {
            evict_oldest(&mut failures, self.most);
        }
        let of_network = failures.entry(network).or_default();
        *of_network = of_network.leaked(now).failed(now);
    }
}

/// Evicts the oldest eighth of the table, which amortizes the sort.
fn evict_oldest(failures: &mut HashMap<IpAddr, Failures>, most: usize) {
    let mut times: Vec<_> = failures.values().map(|it| it.last_at).collect();
    times.sort_unstable();
    let Some(oldest_kept) = times.get(most / 8).copied() else { return failures.clear() };
    failures.retain(|_, it| it.last_at > oldest_kept);
}

/// Returns the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address
/// (RFC 6177).
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// Returns the key of an account's failures; the account may not exist.
pub(crate) fn account_key(key: &Subkey, email: &Email) -> [u8; 32] {
    *mac(key.expose(), &[email.normalized().as_bytes()])
}

/// Returns the key of an account's failures from an address that its user has logged in from.
pub(crate) fn address_key(key: &Subkey, email: &Email, ip: IpAddr) -> [u8; 32] {
    let of_account = account_key(key, email);
    let ip = match network(ip) {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    *mac(key.expose(), &[&of_account, &ip.octets()])
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    fn failed(times: u32) -> Failures {
        (0..times).fold(Failures::default(), |failures, _| failures.failed(at(0)))
    }

    #[test]
    fn delays_start_after_five_failures_and_double_to_a_minute() {
        for (times, seconds) in [
            (4, None),
            (5, Some(1)),
            (6, Some(2)),
            (7, Some(4)),
            (10, Some(32)),
            (11, Some(60)),
            (u32::MAX, Some(60)),
        ] {
            let failures = Failures { count: times, last_at: at(0) };
            assert_eq!(failures.wait(at(0)), seconds.map(Duration::from_secs), "{times}");
        }
        assert_eq!(failed(6), Failures { count: 6, last_at: at(0) });
    }

    #[test]
    fn delay_counts_from_the_last_failure() {
        let failures = failed(20);
        assert_eq!(failures.wait(at(59)), Some(Duration::from_secs(1)));
        assert_eq!(failures.wait(at(60)), None);
    }

    #[test]
    fn failures_are_forgotten_after_a_day() {
        let day = FAILURE_LIFETIME.num_seconds();
        assert_eq!(failed(20).failed(at(day - 1)).count, 21);
        assert_eq!(failed(20).failed(at(day)).count, 1);
    }

    #[test]
    fn clock_that_was_set_back_blocks_nothing() {
        assert_eq!(failed(20).wait(at(-60)), Some(Duration::from_secs(60)));
        assert_eq!(failed(20).wait(at(-61)), None);
        assert_eq!(failed(20).wait(at(-1_000_000)), None);
        assert_eq!(failed(4).wait(at(-60)), None);
        // The next failure counts from the corrected time.
        let next = failed(20).failed(at(-1_000_000));
        assert_eq!(next.wait(at(-1_000_000)), Some(Duration::from_secs(60)));
        assert_eq!(next.wait(at(-1_000_000 + 60)), None);

        let (addresses, ip) = (AddressLimiter::default(), "192.0.2.1".parse().unwrap());
        for _ in 0..20 {
            addresses.failed(ip, at(0));
        }
        assert!(addresses.check(ip, at(0)).is_err());
        assert_eq!(addresses.check(ip, at(-1_000_000)), Ok(()));
    }

    #[test]
    fn address_waits_after_five_failures_and_others_do_not() {
        let addresses = AddressLimiter::default();
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..5 {
            assert_eq!(addresses.check(here, at(0)), Ok(()));
            addresses.failed(here, at(0));
        }
        assert_eq!(addresses.check(here, at(0)), Err(Duration::from_secs(1)));
        assert_eq!(addresses.check(there, at(0)), Ok(()));
        assert_eq!(addresses.check(here, at(1)), Ok(()));
    }

    #[test]
    fn occasional_failures_of_a_shared_address_cause_no_delay() {
        let (addresses, office) = (AddressLimiter::default(), "192.0.2.1".parse().unwrap());
        for minute in 0..1_000 {
            addresses.failed(office, at(minute * 60));
            addresses.failed(office, at(minute * 60));
            assert_eq!(addresses.check(office, at(minute * 60)), Ok(()));
        }
        for _ in 0..50 {
            addresses.failed(office, at(60_000));
        }
        assert_eq!(addresses.check(office, at(60_000)), Err(Duration::from_secs(60)));
        assert_eq!(addresses.check(office, at(60_060)), Ok(()), "and again, if it goes on");
        addresses.failed(office, at(60_060));
        assert_eq!(addresses.check(office, at(60_060)), Err(Duration::from_secs(60)));
    }

    #[test]
    fn client_is_an_ipv4_address_or_an_ipv6_network() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn table_is_bounded_and_keeps_recent_failures() {
        let addresses = AddressLimiter::with_capacity(100);
        for n in 0..1_000_u32 {
            addresses.failed(IpAddr::V4(n.into()), at(n.into()));
            assert!(addresses.failures.lock().unwrap().len() <= 100);
        }
        let failures = addresses.failures.lock().unwrap();
        assert!(failures.contains_key(&IpAddr::V4(999.into())));
        assert!(failures.len() > 80);
    }

    #[test]
    fn accounts_are_counted_apart_and_by_address() {
        let key = Subkey::new(Zeroizing::new([1; 32]));
        let (ada, bob) = (Email::parse("ada@example.org"), Email::parse("bob@example.org"));
        let (ada, bob) = (ada.unwrap(), bob.unwrap());
        let ip = "192.0.2.1".parse().unwrap();
        let keys = [
            account_key(&key, &ada),
            account_key(&key, &bob),
            address_key(&key, &ada, ip),
            address_key(&key, &bob, ip),
            address_key(&key, &ada, "192.0.2.2".parse().unwrap()),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key));
        }
        let shouted = Email::parse("ADA@Example.org").unwrap();
        assert_eq!(account_key(&key, &shouted), keys[0]);
    }
}
