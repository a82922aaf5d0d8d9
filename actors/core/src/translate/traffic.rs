//! XBackendTrafficPolicies: each seen alone, which one stands where several are for one backend, and their
//! statuses.
//!
//! Source: GEP-3388, GEP-1619.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use proxy_config::name::{ObjectName, UnitId};
use proxy_config::resilience::{BackendTraffic, RetryConstraint};

use crate::snapshot::meta::{Kind, Meta, ObjectRef};
use crate::snapshot::rule_extras::SessionPersistence;
use crate::snapshot::tls_policy::PolicyTarget;
use crate::snapshot::traffic_policy::{self, BackendTrafficPolicy};
use crate::status::AncestorStatus;

use super::Problem;
use super::conditions::Fault;
use super::derived::Result as Derivation;
use super::durations;
use super::emission::Emission;
use super::policy_status;
use super::reader::{Lookup, Reader};
use super::rule_extras;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// What follows from a policy, seen alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TrafficView {
    /// Its metadata.
    pub(super) meta: Meta,
    /// The Services and XBackends that it is for.
    pub(super) targets: BTreeSet<ObjectRef>,
    /// What it says, or why it is not accepted.
    terms: Result<Terms, Fault>,
}

/// What a policy says; how a session is called may depend on the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Terms {
    retries: Option<RetryConstraint>,
    session: Option<SessionPersistence>,
}

impl TrafficView {
    /// Of two for the same the older counts, then the one whose name sorts first.
    fn rank(&self) -> impl Ord + use<'_> {
        (self.meta.created, &self.meta.name)
    }
}

/// Translates a policy, seen alone.
pub(super) fn translate(reader: &Reader<'_>, name: &ObjectName) -> Derivation {
    Derivation::Traffic(match reader.traffic_policy(name) {
        Lookup::Found(policy) => Some(view(policy)),
        Lookup::Missing | Lookup::Malformed(_) => None,
    })
}

fn view(policy: &BackendTrafficPolicy) -> TrafficView {
    let namespace = &*policy.meta.name.namespace;
    let target = |target: &PolicyTarget| {
        let is_meant = |kind: &Kind| target.group == kind.group() && target.kind == kind.as_str();
        let kind = [Kind::Service, Kind::Backend].into_iter().find(is_meant)?;
        Some(ObjectRef::new(kind, ObjectName::new(namespace, &*target.name)))
    };
    let terms = || {
        let retries = policy.spec.retry_constraint.as_ref().map(constraint).transpose()?;
        let session = policy.spec.session_persistence.clone();
        // Under any name that it may get.
        session.as_ref().map(|session| rule_extras::session(session, String::from("x"))).transpose()?;
        Ok(Terms { retries, session })
    };
    TrafficView {
        meta: policy.meta.clone(),
        targets: policy.spec.target_refs.iter().filter_map(target).collect(),
        terms: terms().map_err(|fault: Fault| Fault::new("Invalid", format!("spec.{}", fault.message))),
    }
}

fn constraint(written: &traffic_policy::RetryConstraint) -> Result<RetryConstraint, Fault> {
    let (budget, rate) = (&written.budget, &written.min_retry_rate);
    let percent = budget.percent.unwrap_or(20);
    if percent > 100 {
        let message = format!("retryConstraint.budget.percent: {percent} is more than 100");
        return Err(Fault::new("Invalid", message));
    }
    Ok(RetryConstraint {
        percent,
        interval: interval("budget.interval", budget.interval.as_deref(), 10 * SECOND, SECOND..=HOUR)?,
        min_count: rate.count.unwrap_or(10),
        min_interval: interval("minRetryRate.interval", rate.interval.as_deref(), SECOND, 1..=HOUR)?,
    })
}

fn interval(
    field: &str,
    written: Option<&str>,
    default: u64,
    allowed: RangeInclusive<u64>,
) -> Result<u64, Fault> {
    let Some(text) = written else { return Ok(default) };
    let found = durations::milliseconds(text).filter(|found| allowed.contains(found));
    found.ok_or_else(|| {
        let (least, most) = allowed.into_inner();
        let message = format!("retryConstraint.{field} `{text}` is no duration of {least}ms to {most}ms");
        Fault::new("Invalid", message)
    })
}

/// The policy that stands for a Service or XBackend: the oldest, accepted or not.
fn standing<'a>(reader: &Reader<'a>, backend: &ObjectRef) -> Option<&'a TrafficView> {
    reader.traffic_policies(backend).min_by(|one, other| one.rank().cmp(&other.rank()))
}

/// What holds for all traffic to a Service or XBackend, by the unit of a port of it.
pub(super) fn of_backend(reader: &Reader<'_>, backend: &ObjectRef, unit: &UnitId) -> Option<BackendTraffic> {
    let terms = standing(reader, backend)?.terms.as_ref().ok()?;
    let session = terms.session.as_ref().and_then(|session| {
        // Two backends of one policy must not read each other's cookies, nor two ports of one Service.
        rule_extras::session(session, rule_extras::session_name(unit, "")).ok()
    });
    let traffic = BackendTraffic { retries: terms.retries, session };
    (traffic != BackendTraffic::default()).then_some(traffic)
}

/// Makes the status of a policy.
pub(super) fn status(reader: &Reader<'_>, name: &ObjectName) -> Emission {
    let object = ObjectRef::new(Kind::BackendTrafficPolicy, name.clone());
    let Some(view) = reader.traffic_view(name) else {
        let mut emission = Emission::of(object.clone());
        emission.problems.extend(reader.malformed(&object).map(Problem::malformed));
        return emission;
    };
    // What stands of it, by Gateway.
    let mut stands: BTreeMap<&ObjectName, bool> = BTreeMap::new();
    for backend in &view.targets {
        let is_first = standing(reader, backend).is_some_and(|standing| standing.meta.name == *name);
        for gateway in reader.ancestors(backend) {
            *stands.entry(gateway).or_default() |= is_first;
        }
    }
    let mut problems = BTreeSet::new();
    let ancestors = stands.into_iter().map(|(gateway, stands)| {
        let conflict = (!stands)
            .then(|| Fault::new("Conflicted", "an older XBackendTrafficPolicy is for the same backend"));
        let refused = conflict.as_ref().or(view.terms.as_ref().err());
        problems.extend(refused.map(|fault| Problem::of("", fault)));
        AncestorStatus { gateway: gateway.clone(), conditions: vec![policy_status::accepted(refused)] }
    });
    let ancestors = ancestors.collect();
    policy_status::make(reader, object, &view.meta, ancestors, problems)
}
