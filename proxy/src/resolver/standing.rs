//! What an answer of DNS changes, and when to ask again.
//!
//! Pure. Addresses hold for as long as their records say, within bounds. While name servers fail the last good
//! answer goes on, and so for a while where the name is said to be gone. Called by the resolver alone.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// An answer is asked for again after its life, but not sooner than this.
pub const LEAST_LIFE: Duration = Duration::from_secs(1);
/// And not later: a record that says a day may be wrong for no longer.
pub const LONGEST_LIFE: Duration = Duration::from_secs(300);
/// After a failure; it doubles up to [`LAST_RETRY`].
pub const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait while name servers fail.
pub const LAST_RETRY: Duration = Duration::from_secs(30);
/// For how long addresses are still used where the name is said not to exist, or to have none.
pub const GONE_AFTER: Duration = Duration::from_secs(30);
/// How often it is asked whether that is still so.
pub const GONE_RETRY: Duration = Duration::from_secs(5);
/// The addresses of a name; those beyond are left out.
pub const MAX_ADDRESSES: usize = 32;

/// What name servers say of one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Family {
    /// These, for so long.
    Found(Vec<IpAddr>, Duration),
    /// There are none, or the name does not exist.
    None,
    /// They say nothing, or that they can't say.
    Failed(String),
}

impl Family {
    fn is_found(&self) -> bool {
        matches!(self, Self::Found(..))
    }

    /// Why nothing is known.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            Self::Found(..) | Self::None => None,
        }
    }
}

/// What they say of a name: of IPv4 and of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// A records.
    pub v4: Family,
    /// AAAA records.
    pub v6: Family,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// The addresses from now on; `None`: as before.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// When to ask again.
    pub after: Duration,
}

/// How a name has fared.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    failures: u32,
    gone_since: Option<Instant>,
}

impl Standing {
    /// Takes an answer. `before`: the addresses so far; `chance`: from 0 to 1, so that proxies do not ask at the
    /// same time.
    pub fn take(&mut self, answer: &Answer, before: &[IpAddr], now: Instant, chance: f64) -> Next {
        let families = [&answer.v4, &answer.v6];
        let has_failed = families.iter().any(|family| family.failure().is_some());
        self.failures = if has_failed { self.failures.saturating_add(1) } else { 0 };
        let retry = self.retry(chance);
        if families.iter().any(|family| family.is_found()) {
            self.gone_since = None;
            let life = families.iter().filter_map(|family| match family {
                Family::Found(_, life) => Some(*life),
                Family::None | Family::Failed(_) => None,
            });
            let life = life.min().unwrap_or_default().clamp(LEAST_LIFE, LONGEST_LIFE);
            let after = if has_failed { life.min(retry) } else { life };
            return Next { addresses: Some(found(answer, before)), after };
        }
        if has_failed {
            return Next { addresses: None, after: retry };
        }
        let since = *self.gone_since.get_or_insert(now);
        let is_gone = before.is_empty() || now.duration_since(since) >= GONE_AFTER;
        Next { addresses: is_gone.then(BTreeSet::new), after: GONE_RETRY.mul_f64(spread(chance)) }
    }

    /// Doubling, less up to a half.
    fn retry(&self, chance: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(10);
        let whole = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
        whole.mul_f64(spread(chance))
    }
}

fn spread(chance: f64) -> f64 {
    0.5 + chance.clamp(0.0, 1.0) / 2.0
}

/// The addresses of the families that were answered for, with those that are known of the other one.
fn found(answer: &Answer, before: &[IpAddr]) -> BTreeSet<IpAddr> {
    let known = |is_wanted: fn(&IpAddr) -> bool| before.iter().copied().filter(is_wanted).collect();
    let of = |family: &Family, is_wanted: fn(&IpAddr) -> bool| -> Vec<IpAddr> {
        match family {
            Family::Found(addresses, _) => addresses.clone(),
            Family::None => Vec::new(),
            Family::Failed(_) => known(is_wanted),
        }
    };
    let all = of(&answer.v4, IpAddr::is_ipv4).into_iter().chain(of(&answer.v6, IpAddr::is_ipv6));
    all.collect::<BTreeSet<_>>().into_iter().take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const SIX: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    fn some(address: IpAddr, seconds: u64) -> Family {
        Family::Found(vec![address], Duration::from_secs(seconds))
    }

    fn failed() -> Family {
        Family::Failed("no answer".to_owned())
    }

    fn take(standing: &mut Standing, v4: Family, v6: Family, before: &[IpAddr], now: Instant) -> Next {
        standing.take(&Answer { v4, v6 }, before, now, 1.0)
    }

    #[test]
    fn both_families_count_and_the_shorter_life_of_them_within_bounds() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let next = take(&mut standing, some(ONE, 60), some(SIX, 20), &[TWO], now);
        assert_eq!(next, Next { addresses: Some([ONE, SIX].into()), after: Duration::from_secs(20) });
        assert_eq!(take(&mut standing, some(ONE, 0), Family::None, &[], now).after, LEAST_LIFE);
        assert_eq!(take(&mut standing, some(ONE, 86400), Family::None, &[], now).after, LONGEST_LIFE);
    }

    #[test]
    fn what_is_known_goes_on_while_name_servers_fail_and_they_are_asked_ever_more_rarely() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let waits: Vec<u64> = (0..7)
            .map(|_| {
                let next = take(&mut standing, failed(), failed(), &[ONE], now);
                assert_eq!(next.addresses, None);
                next.after.as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        take(&mut standing, some(ONE, 60), Family::None, &[ONE], now);
        let answer = Answer { v4: failed(), v6: failed() };
        assert_eq!(
            standing.take(&answer, &[ONE], now, 0.0).after,
            FIRST_RETRY / 2,
            "begins anew, with jitter"
        );
    }

    #[test]
    fn a_family_that_fails_keeps_its_addresses_beside_the_others_new_ones() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let next = take(&mut standing, some(TWO, 60), failed(), &[ONE, SIX], now);
        assert_eq!(next, Next { addresses: Some([TWO, SIX].into()), after: FIRST_RETRY });
        assert_eq!(take(&mut standing, Family::None, failed(), &[ONE, SIX], now).addresses, None);
    }

    #[test]
    fn a_name_that_is_gone_loses_its_addresses_when_that_has_been_said_for_long_enough() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let mut gone = |before: &[IpAddr], after: Duration| {
            take(&mut standing, Family::None, Family::None, before, now + after).addresses
        };
        assert_eq!(gone(&[], Duration::ZERO), Some(BTreeSet::new()), "it never was there");
        assert_eq!(gone(&[ONE], GONE_AFTER - Duration::from_millis(1)), None);
        assert_eq!(gone(&[ONE], GONE_AFTER), Some(BTreeSet::new()));
        take(&mut standing, some(ONE, 60), Family::None, &[], now);
        let next = take(&mut standing, Family::None, Family::None, &[ONE], now + 2 * GONE_AFTER);
        assert_eq!(next.addresses, None, "it had come back meanwhile");
    }

    #[test]
    fn a_name_has_no_more_addresses_than_may_be() {
        let all: Vec<IpAddr> = (0..200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let next =
            take(&mut Standing::default(), Family::Found(all, LEAST_LIFE), Family::None, &[], Instant::now());
        assert_eq!(next.addresses.unwrap().len(), MAX_ADDRESSES);
    }
}
