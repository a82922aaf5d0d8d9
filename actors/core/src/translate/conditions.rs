//! Conditions of Gateway API as the translation states them: types, reasons, and what is wrong.

use crate::status::{Condition, ConditionStatus};

pub(super) const ACCEPTED: &str = "Accepted";
pub(super) const PROGRAMMED: &str = "Programmed";
pub(super) const RESOLVED_REFS: &str = "ResolvedRefs";
pub(super) const CONFLICTED: &str = "Conflicted";
pub(super) const PARTIALLY_INVALID: &str = "PartiallyInvalid";
pub(super) const INSECURE_FRONTEND: &str = "InsecureFrontendValidationMode";
pub(super) const SUPPORTED_VERSION: &str = "SupportedVersion";

/// How long a message may become; the API server takes 32768 bytes.
const MAX_MESSAGE: usize = 4096;

/// Why a condition does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The reason, one word of the specification.
    pub(super) reason: &'static str,
    /// What is wrong and what to do.
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// A condition that holds.
pub(super) fn holds(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    condition(kind, ConditionStatus::True, reason, message.into())
}

/// A condition that does not hold.
pub(super) fn fails(kind: &'static str, fault: &Fault) -> Condition {
    condition(kind, ConditionStatus::False, fault.reason, fault.message.clone())
}

/// A condition that is not known yet.
pub(super) fn pending(kind: &'static str, message: impl Into<String>) -> Condition {
    condition(kind, ConditionStatus::Unknown, "Pending", message.into())
}

/// A condition that stays as it stands until more is known.
pub(super) fn keeps(kind: &'static str, message: impl Into<String>) -> Condition {
    condition(kind, ConditionStatus::Keep, "Pending", message.into())
}

/// A condition that holds unless there is a fault.
pub(super) fn unless(
    kind: &'static str,
    fault: Option<&Fault>,
    reason: &'static str,
    message: &str,
) -> Condition {
    fault.map_or_else(|| holds(kind, reason, message), |fault| fails(kind, fault))
}

fn condition(
    kind: &'static str,
    status: ConditionStatus,
    reason: &'static str,
    mut message: String,
) -> Condition {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|index| message.is_char_boundary(*index)).unwrap_or(0);
        message.truncate(end);
        message.push_str(" ...");
    }
    Condition { kind, status, reason, message }
}
