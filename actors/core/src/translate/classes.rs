//! GatewayClasses: which are ours, what is supported, where the addresses of their Gateways come from.

use actors_api::edge::AddressProvider;
use proxy_config::name::ObjectName;

use crate::snapshot::gateway::GatewayClass;
use crate::snapshot::meta::{Kind, Meta, ObjectRef};
use crate::status::{Condition, DesiredStatus, StatusContent};

use super::addresses::Provider;
use super::conditions::{ACCEPTED, Fault, SUPPORTED_VERSION, fails, holds, unless};
use super::derived::Result as Derivation;
use super::emission::Emission;
use super::reader::{Lookup, Reader};
use super::{Problem, features};

/// The minor versions of Gateway API v1 whose objects are read as they are meant.
const SUPPORTED_MINORS: std::ops::RangeInclusive<u32> = 5..=6;

/// What follows from a class of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassView {
    /// Where addresses come from, or why the class is not accepted.
    pub(super) provider: Result<Provider, Fault>,
}

/// Translates a class.
pub(super) fn translate(reader: &Reader<'_>, name: &ObjectName) -> (Derivation, Emission) {
    let ours = |controller: &str| controller == reader.settings.controller_name;
    let (meta, provider) = match reader.gateway_class(name) {
        Lookup::Found(class) if ours(&class.controller) => (&class.meta, provider(reader, class)),
        Lookup::Malformed(malformed) if malformed.named.owner.as_deref().is_some_and(ours) => {
            (&*malformed.meta, Err(Fault::new("InvalidParameters", malformed.message())))
        }
        _ => return (Derivation::Class(None), Emission::default()),
    };
    let mut emission = Emission::of(ObjectRef::new(Kind::GatewayClass, name.clone()));
    if let Err(fault) = &provider {
        emission.problems.push(Problem::of("spec.parametersRef", fault));
    }
    emission.status = Some(status(meta, provider.as_ref(), reader));
    (Derivation::Class(Some(ClassView { provider })), emission)
}

fn provider(reader: &Reader<'_>, class: &GatewayClass) -> Result<Provider, Fault> {
    let invalid = |message: String| Err(Fault::new("InvalidParameters", message));
    let Some(reference) = &class.parameters else {
        return Provider::choose(reader.settings, &AddressProvider::default());
    };
    if reference.group != actors_api::edge::GROUP || reference.kind != "EdgeParameters" {
        let (group, kind) = (&reference.group, &reference.kind);
        return invalid(format!(
            "spec.parametersRef names {kind} of group {group}: only EdgeParameters of portreeve.dev are read"
        ));
    }
    match reader.edge_parameters(&ObjectName::new("", &*reference.name)) {
        Lookup::Found(parameters) => Provider::choose(reader.settings, &parameters.address_provider),
        Lookup::Missing => invalid(format!(
            "EdgeParameters {} is not there, or its CustomResourceDefinition is not installed",
            reference.name
        )),
        Lookup::Malformed(malformed) => {
            invalid(format!("EdgeParameters {} can't be read: {}", reference.name, malformed.message()))
        }
    }
}

fn status(meta: &Meta, provider: Result<&Provider, &Fault>, reader: &Reader<'_>) -> DesiredStatus {
    let fault = provider.err().map(|fault| {
        let message = format!("{}; Gateways that have addresses keep them, others get none", fault.message);
        Fault::new(fault.reason, message)
    });
    let served = "Portreeve serves Gateways of this class";
    let mut conditions = vec![unless(ACCEPTED, fault.as_ref(), "Accepted", served)];
    conditions.extend(supported_version(reader));
    let supported_features =
        provider.map(|provider| features::published(reader, provider)).unwrap_or_default();
    DesiredStatus::new(meta, StatusContent::GatewayClass { conditions, supported_features })
}

/// Nothing where no definition is known, as without a cluster.
fn supported_version(reader: &Reader<'_>) -> Option<Condition> {
    let mut known = false;
    for definition in reader.definitions() {
        known = true;
        let version = definition.version.unwrap_or("an unknown version");
        if !is_supported(version) {
            let (first, last) = (SUPPORTED_MINORS.start(), SUPPORTED_MINORS.end());
            let message = format!(
                "the CustomResourceDefinitions of Gateway API are of {version}; v1.{first} to v1.{last} are supported"
            );
            return Some(fails(SUPPORTED_VERSION, &Fault::new("UnsupportedVersion", message)));
        }
    }
    known.then(|| {
        let message = "the CustomResourceDefinitions of Gateway API are of a supported version";
        holds(SUPPORTED_VERSION, "SupportedVersion", message)
    })
}

fn is_supported(version: &str) -> bool {
    let minor = version.strip_prefix("v1.").and_then(|rest| rest.split('.').next());
    minor.and_then(|minor| minor.parse().ok()).is_some_and(|minor: u32| SUPPORTED_MINORS.contains(&minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_supported_by_their_minor() {
        assert!(is_supported("v1.6.1") && is_supported("v1.5.0"));
        assert!(!is_supported("v1.4.1") && !is_supported("v1.7.0") && !is_supported("v2.6.0"));
        assert!(!is_supported("an unknown version") && !is_supported(""));
    }
}
