//! BackendTLSPolicies, each seen alone, and which one stands where several are for one port.
//!
//! Source: GEP-1897.

use std::collections::BTreeSet;

use proxy_config::backend::{BackendTls, BackendVerification, Subject};
use proxy_config::name::ObjectName;

use crate::snapshot::meta::{Kind, Meta, ObjectRef};
use crate::snapshot::tls_policy::{BackendTlsPolicy, PolicyTarget, SubjectAltName, Validation};

use super::authorities::{Authorities, Reasons, Reference};
use super::conditions::Fault;
use super::derived::Result as Derivation;
use super::grants::Referrer;
use super::graph::Role;
use super::hostnames;
use super::reader::{Lookup, Reader};

const REASONS: Reasons = Reasons { kind: "InvalidKind", content: "InvalidCACertificateRef" };

/// What follows from a policy, seen alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyView {
    /// Its metadata.
    pub(super) meta: Meta,
    /// The Services that it is for, each with the name of one port, or for all.
    pub(super) targets: BTreeSet<(ObjectName, Option<String>)>,
    /// What backends must show, or why the policy is not accepted.
    pub(super) verification: Result<BackendVerification, Fault>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
    /// Why something is not known yet.
    pub(super) unread: Option<String>,
    /// What may be read for it.
    pub(super) wanted: BTreeSet<(ObjectRef, Role)>,
}

impl PolicyView {
    /// The Services that it is for.
    pub(super) fn services(&self) -> BTreeSet<ObjectName> {
        self.targets.iter().map(|(service, _)| service.clone()).collect()
    }

    /// Of two for the same the older counts, then the one whose name sorts first.
    fn rank(&self) -> impl Ord + use<'_> {
        (self.meta.created, &self.meta.name)
    }

    /// What it comes to for a backend.
    fn tls(&self) -> BackendTls {
        match &self.verification {
            Ok(verification) if verification.authorities.is_empty() && self.unread.is_some() => {
                let why = self.unread.as_deref().unwrap_or_default();
                BackendTls::Invalid(format!("BackendTLSPolicy {}: {why}", self.meta.name))
            }
            Ok(verification) => BackendTls::Verified(verification.clone()),
            Err(fault) => {
                BackendTls::Invalid(format!("BackendTLSPolicy {}: {}", self.meta.name, fault.message))
            }
        }
    }
}

/// Translates a policy, seen alone.
pub(super) fn translate(reader: &Reader<'_>, name: &ObjectName) -> Derivation {
    Derivation::Policy(match reader.policy(name) {
        Lookup::Found(policy) => Some(view(reader, policy)),
        Lookup::Missing | Lookup::Malformed(_) => None,
    })
}

/// The policy that stands for a target, of all those for the Service.
pub(super) fn standing<'a>(
    reader: &Reader<'a>,
    service: &ObjectName,
    section: Option<&str>,
) -> Option<&'a PolicyView> {
    let target = (service.clone(), section.map(str::to_owned));
    let rivals = reader.policies(service).filter(|view| view.targets.contains(&target));
    rivals.min_by(|one, other| one.rank().cmp(&other.rank()))
}

/// How a port of a Service is reached over TLS, and whether that is not fully known yet: a policy for that
/// port counts before one for all.
pub(super) fn of_port(
    reader: &Reader<'_>,
    service: &ObjectName,
    port: Option<&str>,
) -> Option<(BackendTls, bool)> {
    let own = port.and_then(|port| standing(reader, service, Some(port)));
    let standing = own.or_else(|| standing(reader, service, None))?;
    Some((standing.tls(), standing.unread.is_some()))
}

fn view(reader: &Reader<'_>, policy: &BackendTlsPolicy) -> PolicyView {
    let namespace = &*policy.meta.name.namespace;
    let is_service = |target: &&PolicyTarget| target.group.is_empty() && target.kind == "Service";
    let targets = policy.spec.target_refs.iter().filter(is_service);
    let targets = targets
        .map(|target| (ObjectName::new(namespace, &*target.name), target.section_name.clone()))
        .collect();
    let holder = Referrer { kind: Kind::BackendTlsPolicy, namespace };
    let (verification, found) = verify(reader, holder, "spec.validation", &policy.spec.validation);
    PolicyView {
        meta: policy.meta.clone(),
        targets,
        verification,
        unresolved: found.fault,
        unread: found.unread,
        wanted: found.wanted,
    }
}

/// What a backend must show, and the authorities that are named for it; `field` is where it is written.
pub(super) fn verify(
    reader: &Reader<'_>,
    holder: Referrer<'_>,
    field: &str,
    written: &Validation,
) -> (Result<BackendVerification, Fault>, Authorities) {
    let mut found = Authorities::default();
    for (index, reference) in written.ca_certificate_refs.iter().enumerate() {
        let field = format!("{field}.caCertificateRefs[{index}]");
        let name = ObjectName::new(holder.namespace, &*reference.name);
        let reference = Reference { group: &reference.group, kind: &reference.kind, name };
        found.add(reader, holder, &REASONS, &field, reference);
    }
    (verification(field, written, &found), found)
}

fn verification(
    field: &str,
    written: &Validation,
    found: &Authorities,
) -> Result<BackendVerification, Fault> {
    let invalid = |message: String| Fault::new("Invalid", message);
    let has_refs = !written.ca_certificate_refs.is_empty();
    match (written.well_known.as_deref().filter(|name| !name.is_empty()), has_refs) {
        (None, true) if found.is_useless() => {
            let why = found.fault.as_ref().map_or("", |fault| &fault.message);
            return Err(Fault::new("NoValidCACertificate", format!("no authority can be used: {why}")));
        }
        (None, true) | (Some("System"), false) => {}
        (Some("System"), true) | (None, false) => {
            let message =
                format!("{field}: name either caCertificateRefs or wellKnownCACertificates: System");
            return Err(invalid(message));
        }
        (Some(other), _) => {
            let message = format!("{field}.wellKnownCACertificates `{other}` is not supported: use System");
            return Err(invalid(message));
        }
    }
    let fault = hostnames::fault(&written.hostname).filter(|_| !written.hostname.is_empty());
    if let Some(reason) = fault.or_else(|| written.hostname.is_empty().then(|| "it is empty".into())) {
        return Err(invalid(format!("{field}.hostname: {reason}")));
    }
    let subjects = written.subject_alt_names.iter().map(subject).collect::<Result<_, _>>();
    let subjects =
        subjects.map_err(|reason: String| invalid(format!("{field}.subjectAltNames: {reason}")))?;
    Ok(BackendVerification {
        hostname: written.hostname.clone(),
        subjects,
        authorities: found.units(),
        client_certificate: None,
    })
}

fn subject(written: &SubjectAltName) -> Result<Subject, String> {
    match (&*written.kind, &written.hostname, &written.uri) {
        ("Hostname", Some(name), _) => match hostnames::fault(name) {
            None => Ok(Subject::Hostname(name.clone())),
            Some(reason) => Err(reason),
        },
        ("URI", _, Some(uri)) => Ok(Subject::Uri(uri.clone())),
        (kind, _, _) => Err(format!("one of type `{kind}` has no value")),
    }
}
