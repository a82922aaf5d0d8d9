//! The status of a policy: one entry for each Gateway from which routes lead to what it is for.

use std::collections::{BTreeMap, BTreeSet};

use proxy_config::name::ObjectName;

use crate::snapshot::meta::{Kind, Meta, ObjectRef};
use crate::status::{AncestorStatus, Condition, DesiredStatus, StatusContent};

use super::Problem;
use super::conditions::{ACCEPTED, Fault, RESOLVED_REFS, keeps, unless};
use super::emission::Emission;
use super::policies::{self, PolicyView};
use super::reader::Reader;

/// Makes the status of a BackendTLSPolicy.
pub(super) fn translate(reader: &Reader<'_>, name: &ObjectName) -> Emission {
    let object = ObjectRef::new(Kind::BackendTlsPolicy, name.clone());
    let Some(view) = reader.policy_view(name) else {
        let mut emission = Emission::of(object.clone());
        emission.problems.extend(reader.malformed(&object).map(Problem::malformed));
        return emission;
    };
    // Whether any of it stands, by Gateway.
    let mut standing: BTreeMap<&ObjectName, Result<(), Fault>> = BTreeMap::new();
    for (service, section) in &view.targets {
        let stands = stands(reader, name, service, section.as_deref());
        for gateway in reader.ancestors(&ObjectRef::new(Kind::Service, service.clone())) {
            let entry = standing.entry(gateway).or_insert_with(|| stands.clone());
            if stands.is_ok() {
                *entry = Ok(());
            }
        }
    }
    let mut problems = BTreeSet::new();
    problems.extend(view.verification.as_ref().err().map(|fault| Problem::of("", fault)));
    problems.extend(view.unresolved.as_ref().map(|fault| Problem::of("", fault)));
    let mut ancestors = Vec::new();
    for (gateway, stands) in standing {
        let fault = stands.err();
        problems.extend(fault.as_ref().map(|fault| Problem::of("", fault)));
        let conditions = conditions(view, fault.as_ref());
        ancestors.push(AncestorStatus { gateway: gateway.clone(), conditions });
    }
    make(reader, object, &view.meta, ancestors, problems)
}

/// Makes the status of a policy. What is wrong with one that is for no Gateway concerns nobody.
pub(super) fn make(
    reader: &Reader<'_>,
    object: ObjectRef,
    meta: &Meta,
    ancestors: Vec<AncestorStatus>,
    problems: BTreeSet<Problem>,
) -> Emission {
    let mut emission = Emission::of(object);
    if !ancestors.is_empty() {
        emission.problems.extend(problems);
    }
    let controller = reader.settings.controller_name.as_str().into();
    emission.status = Some(DesiredStatus::new(meta, StatusContent::Policy { controller, ancestors }));
    emission
}

/// Whether a policy is accepted.
pub(super) fn accepted(refused: Option<&Fault>) -> Condition {
    unless(ACCEPTED, refused, "Accepted", "the policy is accepted")
}

/// Whether what is referred to can be used; `unread` is why something of it is not known yet.
pub(super) fn resolved(unresolved: Option<&Fault>, unread: Option<&String>) -> Condition {
    match (unresolved, unread) {
        (None, Some(message)) => keeps(RESOLVED_REFS, message.clone()),
        (fault, _) => unless(RESOLVED_REFS, fault, "ResolvedRefs", "all references are resolved"),
    }
}

/// Whether a policy stands for a target: that is there, and no older policy is for the same.
fn stands(
    reader: &Reader<'_>,
    name: &ObjectName,
    service: &ObjectName,
    section: Option<&str>,
) -> Result<(), Fault> {
    let found = reader.service(service).found();
    let has_port = |section| {
        found.is_none_or(|service| service.ports.iter().any(|port| port.name.as_deref() == Some(section)))
    };
    if let Some(section) = section.filter(|section| !has_port(section)) {
        let message = format!("spec.targetRefs: Service {service} has no port named `{section}`");
        return Err(Fault::new("TargetNotFound", message));
    }
    let standing = policies::standing(reader, service, section);
    if standing.is_some_and(|standing| standing.meta.name == *name) {
        return Ok(());
    }
    Err(Fault::new("Conflicted", "an older BackendTLSPolicy is for the same Service and port"))
}

fn conditions(view: &PolicyView, fault: Option<&Fault>) -> Vec<Condition> {
    let refused = fault.or(view.verification.as_ref().err());
    vec![accepted(refused), resolved(view.unresolved.as_ref(), view.unread.as_ref())]
}
