//! What a task says to the outside: units, a status, problems.

use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::EncodedUnit;

use crate::snapshot::cluster::GatewayService;
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
    /// The Service that a Gateway owns, and its name.
    pub(super) service: Option<(ObjectName, GatewayService)>,
    /// Listeners and backends whose units can't be told for now.
    pub(super) waiting: Vec<UnitId>,
    /// A Secret or ConfigMap that must be read first.
    pub(super) unread: Option<ObjectRef>,
    /// A Secret that is served, and when its certificate is valid.
    pub(super) expiry: Option<(ObjectName, Validity)>,
}

impl Emission {
    pub(super) fn of(object: ObjectRef) -> Self {
        Self { object: Some(object), ..Self::default() }
    }
}
