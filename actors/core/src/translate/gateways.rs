//! Gateways, each seen alone: what it claims, before other Gateways are looked at.

use proxy_config::name::ObjectName;

use crate::objects;
use crate::snapshot::gateway::{AllowedNamespaces, From, Gateway};
use crate::snapshot::meta::{Kind, Meta};

use super::AddressSource;
use super::addresses::pool::Ask;
use super::addresses::{Provider, Refused};
use super::claims::{Claims, Holder, claim_listener, find_conflicts};
use super::conditions::Fault;
use super::derived::Result as Derivation;
use super::grants::Referrer;
use super::reader::{Lookup, Reader};
use super::{certificates, frontend};

/// Translates a Gateway, seen alone.
pub(super) fn claim(reader: &Reader<'_>, name: &ObjectName) -> Derivation {
    let claims = match reader.gateway(name) {
        Lookup::Missing => None,
        Lookup::Malformed(malformed) => {
            let class =
                malformed.named.owner.as_deref().and_then(|class| reader.class(&ObjectName::new("", class)));
            class.map(|_| {
                let fault =
                    Fault::new("Invalid", format!("the Gateway can't be read: {}", malformed.message()));
                rejected(&malformed.meta, fault)
            })
        }
        Lookup::Found(gateway) => claim_found(reader, gateway),
    };
    Derivation::Claims(claims.map(Box::new))
}

/// What a Gateway asks of the pool of its class.
pub(super) fn ask(reader: &Reader<'_>, name: &ObjectName) -> Option<Ask> {
    let gateway = reader.gateway(name).found()?;
    provider_of(reader, gateway)?.ok()?.ask(gateway)
}

/// Where a Gateway's addresses come from; `None` where its class is not ours. A class whose parameters are
/// deleted or changed into what can't be used takes nothing from the Gateways that are served.
fn provider_of(reader: &Reader<'_>, gateway: &Gateway) -> Option<Result<Provider, Fault>> {
    let provider = class_of(reader, &gateway.spec.gateway_class_name)?;
    Some(provider.or_else(|fault| Provider::held(reader, gateway).ok_or(fault)))
}

/// What a Gateway's class provides; `None` where the class is not ours. Without a cluster nobody has
/// written a class down: then one that is not there is ours.
pub(super) fn class_of(reader: &Reader<'_>, name: &str) -> Option<Result<Provider, Fault>> {
    let name = ObjectName::new("", name);
    match (reader.class(&name), reader.settings.addresses) {
        (Some(class), _) => Some(class.provider.clone()),
        (None, AddressSource::AsWritten { default }) => {
            matches!(reader.gateway_class(&name), Lookup::Missing).then_some(Ok(Provider::AsWritten(default)))
        }
        (None, AddressSource::Class) => None,
    }
}

/// A Gateway whose translation failed.
pub(super) fn failed(meta: &Meta, message: &str) -> Claims {
    rejected(meta, Fault::new("Invalid", message))
}

fn rejected(meta: &Meta, fault: Fault) -> Claims {
    Claims {
        kind: Kind::Gateway,
        meta: meta.clone(),
        gateway: meta.clone(),
        assigned: Err(fault.clone()),
        rejected: Some(fault),
        waiting: None,
        listeners: Vec::new(),
        service: None,
        allowed_sets: AllowedNamespaces { from: From::None, selector: None },
        provider: Provider::Node,
        backend_certificate: None,
        is_default: false,
        insecure: false,
    }
}

fn claim_found(reader: &Reader<'_>, gateway: &Gateway) -> Option<Claims> {
    let provider = provider_of(reader, gateway)?;
    let mut claims = Claims {
        kind: Kind::Gateway,
        meta: gateway.meta.clone(),
        gateway: gateway.meta.clone(),
        rejected: unsupported(gateway),
        waiting: None,
        assigned: Err(Fault::new("AddressNotAssigned", "no address is assigned yet")),
        listeners: Vec::new(),
        service: Some(objects::of_gateway(gateway)),
        allowed_sets: gateway.spec.allowed_listeners.namespaces.clone(),
        provider: Provider::Node,
        backend_certificate: None,
        is_default: gateway.spec.default_scope.as_deref() == Some("All"),
        insecure: frontend::is_insecure(&gateway.spec.tls.frontend),
    };
    let provider = match provider {
        Ok(provider) => provider,
        Err(fault) => {
            let class = &gateway.spec.gateway_class_name;
            claims.waiting = Some(format!("GatewayClass {class} is not accepted: {}", fault.message));
            Provider::Node
        }
    };
    match provider.assign(reader, gateway) {
        Ok(assigned) => claims.assigned = Ok(assigned),
        Err(Refused::NotUsable(fault)) => claims.assigned = Err(fault),
        Err(Refused::Unsupported(fault)) => {
            claims.rejected.get_or_insert(fault);
        }
    }
    let referrer = Referrer { kind: Kind::Gateway, namespace: &gateway.meta.name.namespace };
    let tls = &gateway.spec.tls;
    let shown = tls.backend.client_certificate_ref.as_ref();
    let resolve = |reference| {
        certificates::resolve_client(reader, referrer, "spec.tls.backend.clientCertificateRef", reference)
    };
    claims.backend_certificate = shown.map(resolve);
    let holder =
        Holder { referrer, provider: &provider, gateway: &gateway.meta.name, frontend: &tls.frontend };
    let listeners = gateway.spec.listeners.iter();
    claims.listeners = listeners.map(|listener| claim_listener(reader, &holder, listener)).collect();
    claims.provider = provider;
    find_conflicts(&mut claims.listeners);
    Some(claims)
}

/// What would have to be ignored is refused.
fn unsupported(gateway: &Gateway) -> Option<Fault> {
    let reference = gateway.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
    let message = format!(
        "spec.infrastructure.parametersRef names {} {}: there is no such kind for Gateways, remove it",
        reference.kind, reference.name
    );
    Some(Fault::new("InvalidParameters", message))
}
