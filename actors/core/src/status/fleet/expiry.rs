//! Owns: when a listener says that a certificate of its comes to its end.
//! Called by [`super::Finaliser`]. It refuses to read certificates.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;
use jiff::Timestamp;
use proxy_config::name::{ObjectName, UnitId};

use super::{Condition, ConditionStatus};
use crate::snapshot::key_of;
use crate::translate::Validity;

/// How long before its end a certificate should have been replaced, at the most; one of a short life: the last
/// sixth of that. Who renews begins much earlier, so something has gone wrong.
const SOON: i64 = 14 * 24 * 3600;
/// Of listeners, where there is something to say: True.
const CERTIFICATE_EXPIRING: &str = "portreeve.dev/CertificateExpiring";

/// Certificate units that come to their end or have ended, with their Secrets.
pub(super) type Ending = BTreeMap<UnitId, (ObjectName, Ends)>;

/// The end of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    at: i64,
    over: bool,
}

/// The certificates that come to their end, kept from one look to the next: nothing is looked at that can't have
/// changed.
#[derive(Debug, Default)]
pub(super) struct Endings {
    expiries: OrdMap<ObjectName, Validity>,
    now: Ending,
    /// When it was last looked.
    at: i64,
    /// Before then nothing changes with time alone.
    next: i64,
}

impl Endings {
    /// Those that come to their end, as last looked.
    pub(super) fn now(&self) -> &Ending {
        &self.now
    }

    /// Looks at what is served by now; the certificate units of which something else is true than before.
    pub(super) fn update(&mut self, expiries: &OrdMap<ObjectName, Validity>, now: i64) -> Vec<UnitId> {
        let old = std::mem::replace(&mut self.expiries, expiries.clone());
        let is_time = now >= self.next || now < self.at;
        self.at = now;
        let secrets: BTreeSet<_> = if is_time {
            self.next = i64::MAX;
            old.keys().chain(expiries.keys()).cloned().collect()
        } else {
            old.diff(expiries).map(|change| key_of(&change).clone()).collect()
        };
        secrets.into_iter().filter_map(|secret| self.look(secret)).collect()
    }

    /// Looks at one; its unit, if something else is true of it than before.
    fn look(&mut self, secret: ObjectName) -> Option<UnitId> {
        let validity = self.expiries.get(&secret);
        let unit = UnitId::certificate(&secret);
        self.next = self.next.min(validity.map_or(i64::MAX, |validity| next(validity, self.at)));
        let ends = validity.filter(|validity| self.at >= soon(validity));
        let ends = ends.map(|validity| Ends { at: validity.until, over: self.at > validity.until });
        let old = match ends {
            Some(ends) => self.now.insert(unit.clone(), (secret, ends)),
            None => self.now.remove(&unit),
        };
        (old.map(|(_, ends)| ends) != ends).then_some(unit)
    }
}

/// From when on a certificate is told of.
fn soon(validity: &Validity) -> i64 {
    let life = validity.until.saturating_sub(validity.from);
    validity.until.saturating_sub(SOON.min(life / 6))
}

/// When something else is next true of a certificate.
fn next(validity: &Validity, now: i64) -> i64 {
    let over = validity.until.saturating_add(1);
    [soon(validity), over].into_iter().find(|at| *at > now).unwrap_or(i64::MAX)
}

/// What a listener of these units says: of the certificate that ends first.
pub(super) fn condition(units: &[UnitId], ending: &Ending) -> Option<Condition> {
    let (secret, ends) = units.iter().filter_map(|unit| ending.get(unit)).min_by_key(|(_, ends)| ends.at)?;
    let at =
        Timestamp::from_second(ends.at).map_or_else(|_| "an unknown time".to_owned(), |at| at.to_string());
    let (reason, message) = if ends.over {
        ("Expired", format!("the certificate of Secret {secret} ended at {at}: clients refuse it"))
    } else {
        ("ExpiresSoon", format!("the certificate of Secret {secret} ends at {at} and has not been renewed"))
    };
    Some(Condition { kind: CERTIFICATE_EXPIRING, status: ConditionStatus::True, reason, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    /// What is said at a time of a certificate that is valid for so many days.
    fn said(days: i64, now: i64) -> Option<&'static str> {
        let secret = ObjectName::new("shop", "cert");
        let expiries = OrdMap::unit(secret.clone(), Validity { from: 0, until: days * DAY });
        let mut endings = Endings::default();
        endings.update(&expiries, now);
        let units = [UnitId::certificate(&ObjectName::new("shop", "other")), UnitId::certificate(&secret)];
        condition(&units, endings.now()).map(|condition| condition.reason)
    }

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end_and_a_short_one_in_its_last_sixth() {
        assert_eq!(said(90, 75 * DAY), None);
        assert_eq!(said(90, 76 * DAY), Some("ExpiresSoon"));
        assert_eq!(said(90, 90 * DAY), Some("ExpiresSoon"));
        assert_eq!(said(90, 90 * DAY + 1), Some("Expired"));
        assert_eq!(said(6, 5 * DAY - 1), None);
        assert_eq!(said(6, 5 * DAY), Some("ExpiresSoon"));
    }
}
