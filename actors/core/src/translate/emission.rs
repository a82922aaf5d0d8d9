//! What a task says to the outside: units, a status, problems.

use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::EncodedUnit;

use crate::snapshot::meta::ObjectRef;
use crate::status::DesiredStatus;

use super::{Problem, Validity};

/// What a task says. Each object is spoken about by one task alone.
#[derive(Debug, Default)]
pub(super) struct Emission {
    /// The object that status and problems are about.
    pub(super) object: Option<ObjectRef>,
    /// Units; each id is made by one task alone.
    pub(super) units: Vec<EncodedUnit>,
    /// The object's status.
    pub(super) status: Option<DesiredStatus>,
    /// What is wrong with the object.
    pub(super) problems: Vec<Problem>,
    /// Listeners whose units can't be told for now.
    pub(super) waiting: Vec<UnitId>,
    /// What became of a Secret that listeners name.
    pub(super) secret: Option<(ObjectName, SecretState)>,
}

/// What became of a Secret that listeners name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretState {
    /// It must be read first.
    Unread,
    /// It is served, and its certificate is valid for that time.
    Served(Validity),
}

impl Emission {
    pub(super) fn of(object: ObjectRef) -> Self {
        Self { object: Some(object), ..Self::default() }
    }
}
