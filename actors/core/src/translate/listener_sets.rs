//! ListenerSets, each seen beside its Gateway: what it claims, before other holders are looked at.
//!
//! Source: GEP-1713. A ListenerSet whose Gateway is not ours, or not there, is left alone.

use proxy_config::name::ObjectName;

use crate::snapshot::gateway::ListenerSet;
use crate::snapshot::http_route::ParentRef;
use crate::snapshot::meta::{GATEWAY_GROUP, Kind, Meta, ObjectRef};

use super::claims::{Claims, Holder, claim_listener};
use super::conditions::Fault;
use super::derived::Result as Derivation;
use super::grants::Referrer;
use super::reader::{Lookup, Reader};
use super::selectors;

/// Translates a ListenerSet, seen beside its Gateway.
pub(super) fn claim(reader: &Reader<'_>, name: &ObjectName) -> Derivation {
    let claims = match reader.listener_set(name) {
        Lookup::Missing => None,
        Lookup::Malformed(malformed) => {
            let message = format!("the ListenerSet can't be read: {}", malformed.message());
            malformed
                .named
                .parents
                .first()
                .and_then(|parent| failed(reader, &malformed.meta, parent, &message))
        }
        Lookup::Found(set) => claim_found(reader, set),
    };
    Derivation::Claims(claims.map(Box::new))
}

/// A ListenerSet that can't be translated at all.
pub(super) fn failed(reader: &Reader<'_>, meta: &Meta, parent: &ParentRef, message: &str) -> Option<Claims> {
    let gateway = gateway_of(reader, meta, parent)?;
    let mut claims = beside(gateway, meta);
    claims.rejected = Some(Fault::new("Invalid", message));
    Some(claims)
}

fn claim_found(reader: &Reader<'_>, set: &ListenerSet) -> Option<Claims> {
    let gateway = gateway_of(reader, &set.meta, &set.spec.parent_ref)?;
    let mut claims = beside(gateway, &set.meta);
    let namespace = &set.meta.name.namespace;
    if !selectors::admits(reader, &gateway.allowed_sets, &gateway.meta.name.namespace, namespace) {
        let message = format!(
            "Gateway {} allows no ListenerSet of namespace {namespace}: see its allowedListeners",
            gateway.meta.name
        );
        claims.rejected = Some(Fault::new("NotAllowed", message));
        return Some(claims);
    }
    if let Some(fault) = &gateway.rejected {
        let message = format!("Gateway {} is not accepted: {}", gateway.meta.name, fault.message);
        claims.rejected = Some(Fault::new("ParentNotAccepted", message));
    }
    let parent = reader.gateway(&gateway.meta.name).found();
    let frontend = parent.map(|gateway| gateway.spec.tls.frontend.clone()).unwrap_or_default();
    let holder = Holder {
        referrer: Referrer { kind: Kind::ListenerSet, namespace },
        provider: &gateway.provider,
        gateway: &gateway.meta.name,
        frontend: &frontend,
    };
    let listeners = set.spec.listeners.iter();
    claims.listeners = listeners.map(|listener| claim_listener(reader, &holder, listener)).collect();
    Some(claims)
}

/// The Gateway that a ListenerSet adds to, where it is ours.
fn gateway_of<'a>(reader: &Reader<'a>, set: &Meta, parent: &ParentRef) -> Option<&'a Claims> {
    if parent.group != GATEWAY_GROUP || parent.kind != "Gateway" {
        return None;
    }
    let gateway = ObjectRef::new(Kind::Gateway, parent.target(&set.name.namespace));
    reader.claims(&gateway)
}

/// What a ListenerSet has from its Gateway.
fn beside(gateway: &Claims, set: &Meta) -> Claims {
    Claims {
        kind: Kind::ListenerSet,
        meta: set.clone(),
        rejected: None,
        listeners: Vec::new(),
        is_default: false,
        service: None,
        ..gateway.clone()
    }
}
