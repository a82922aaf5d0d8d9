//! Owns: when a listener says that a certificate of its comes to its end.
//! Called by [`super::finalise`]. It refuses to read certificates.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proxy_config::name::{ObjectName, UnitId};

use super::{Condition, ConditionStatus};
use crate::translate::{Translation, Validity};

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

/// The certificates that come to their end by then.
pub(super) fn ending(translation: &Translation, now: i64) -> Ending {
    let soon = |validity: &Validity| {
        let life = validity.until.saturating_sub(validity.from);
        now >= validity.until.saturating_sub(SOON.min(life / 6))
    };
    let ending = translation.expiries.iter().filter(|(_, validity)| soon(validity));
    let entry = |(secret, validity): (&ObjectName, &Validity)| {
        let ends = Ends { at: validity.until, over: now > validity.until };
        (UnitId::certificate(secret), (secret.clone(), ends))
    };
    ending.map(entry).collect()
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
        let mut translation = Translation::default();
        translation.expiries.insert(secret.clone(), Validity { from: 0, until: days * DAY });
        let units = [UnitId::certificate(&ObjectName::new("shop", "other")), UnitId::certificate(&secret)];
        condition(&units, &ending(&translation, now)).map(|condition| condition.reason)
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
