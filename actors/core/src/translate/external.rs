//! XBackends: which routes may lead to one, what proxies are told of it, and its status.
//!
//! Source: GEP-4894. Routes look at the object alone; what its TLS refers to is looked up here, and only while a
//! route of a Gateway of ours leads to it.

mod destination;
mod tls;

use std::collections::BTreeSet;

use proxy_config::backend::{Backend as BackendUnit, BackendTls, Destination};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::{EncodedUnit, Unit};

use crate::snapshot::backend::Backend;
use crate::snapshot::meta::{Kind, Meta, ObjectRef};
use crate::status::{AncestorStatus, Condition, DesiredStatus, StatusContent};

use super::Problem;
use super::backends::Scope;
use super::conditions::{ACCEPTED, Fault, RESOLVED_REFS, fails, pending, unless};
use super::derived::Result as Derivation;
use super::emission::Emission;
use super::policy_status;
use super::reader::{Lookup, Reader};
use super::rules::Rules;
use super::traffic;
use tls::Tls;

/// The unit of an XBackend.
pub(super) fn unit_id(name: &ObjectName) -> UnitId {
    UnitId::external_backend(Kind::Backend.as_str(), name)
}

/// Whether a route leads to an XBackend that it names and may name. `port` is as the route writes it.
pub(super) fn resolve(
    scope: &Scope<'_, '_>,
    port: Option<u16>,
    name: ObjectName,
    all: &mut Rules,
) -> Result<UnitId, Fault> {
    let missing = |message: String| Fault::new("BackendNotFound", format!("XBackend {name} {message}"));
    let found = scope.reader.backend(&name);
    if !matches!(found, Lookup::Missing) {
        // Its own status is for its Gateways, whatever is wrong with it.
        all.externals.insert(name.clone());
    }
    let backend = match found {
        Lookup::Found(backend) => backend,
        Lookup::Missing => return Err(missing("is not there".into())),
        Lookup::Malformed(found) => return Err(missing(format!("can't be read: {}", found.message()))),
    };
    let host = destination::host(&backend.spec)
        .map_err(|fault| missing(format!("can't be used: {}", fault.message)))?;
    if let Some(port) = port.filter(|port| *port != host.port) {
        let message = format!("has no port {port}: write {}, which is its only one, or none", host.port);
        return Err(missing(message));
    }
    destination::check_route(scope.route.kind, &name, &backend.spec)?;
    let id = unit_id(&name);
    all.destinations.insert(name);
    Ok(id)
}

/// Translates an XBackend: its unit and its status, as far as a route of ours leads to it.
pub(super) fn translate(reader: &Reader<'_>, name: &ObjectName) -> (Derivation, Emission) {
    let object = ObjectRef::new(Kind::Backend, name.clone());
    let gateways: Vec<_> = reader.ancestors(&object).cloned().collect();
    let mut emission = Emission::of(object);
    match reader.backend(name) {
        Lookup::Missing => (Derivation::External(None), emission),
        Lookup::Malformed(malformed) => {
            emission.problems.push(Problem::malformed(malformed));
            let fault = format!("the XBackend can't be read: {}", malformed.message());
            emission.status = Some(unusable(reader, &malformed.meta, &gateways, fault));
            (Derivation::External(None), emission)
        }
        Lookup::Found(backend) if gateways.is_empty() => {
            emission.status = Some(status(reader, &backend.meta, &gateways, &[]));
            (Derivation::External(None), emission)
        }
        Lookup::Found(backend) => translate_found(reader, backend, &gateways, emission),
    }
}

/// An XBackend whose translation failed.
pub(super) fn failed(reader: &Reader<'_>, name: &ObjectName, problem: Problem) -> (Derivation, Emission) {
    let object = ObjectRef::new(Kind::Backend, name.clone());
    let gateways: Vec<_> = reader.ancestors(&object).cloned().collect();
    let mut emission = Emission::of(object);
    if let Some(backend) = reader.backend(name).found() {
        emission.status = Some(unusable(reader, &backend.meta, &gateways, problem.message.clone()));
        emission.problems.push(problem);
    }
    (Derivation::External(None), emission)
}

fn translate_found(
    reader: &Reader<'_>,
    backend: &Backend,
    gateways: &[ObjectName],
    mut emission: Emission,
) -> (Derivation, Emission) {
    let name = &backend.meta.name;
    let (host, protocol) = (destination::host(&backend.spec), destination::protocol(&backend.spec));
    let tls = Tls::of(reader, backend);
    let faults = [host.as_ref().err(), protocol.as_ref().err(), tls.refused.as_ref()];
    let refused = faults.into_iter().flatten().next();
    let is_clear = backend.spec.tls.as_ref().is_none_or(|tls| tls.mode == "None");
    let message =
        if is_clear { "the backend is accepted: it is reached in clear" } else { "the backend is accepted" };
    let conditions = [
        unless(ACCEPTED, refused, "Accepted", message),
        policy_status::resolved(tls.unresolved.as_ref(), tls.unread.as_ref()),
    ];
    emission.status = Some(status(reader, &backend.meta, gateways, &conditions));
    let faults: BTreeSet<_> =
        faults.into_iter().flatten().chain(&tls.unresolved).map(|fault| Problem::of("", fault)).collect();
    emission.problems.extend(faults);
    // One that is only named, with a wrong port as it may be, is nothing that proxies need resolve.
    let host = host.ok().filter(|_| reader.is_destination(name));
    // What waits to be read leaves proxies what they hold, and the authorities that this needs.
    let is_used = host.is_some() && (tls.unread.is_some() || (protocol.is_ok() && tls.terms.is_ok()));
    let wanted = tls.wanted(is_used);
    if let Some(host) = host {
        let id = unit_id(name);
        emission.waiting.extend(tls.unread.is_some().then(|| id.clone()));
        let terms = protocol.as_ref().map_err(|fault| fault.message.clone()).and(tls.terms);
        let invalid = |message| Some(BackendTls::Invalid(format!("XBackend {name}: {message}")));
        let tls = terms.map_or_else(invalid, |terms| terms.map(BackendTls::Verified));
        let unit = BackendUnit {
            destination: Destination::External(host),
            protocol: protocol.unwrap_or_default(),
            tls,
            traffic: traffic::of_backend(reader, &ObjectRef::new(Kind::Backend, name.clone()), &id),
        };
        emission.units.push(EncodedUnit::new(id, &Unit::Backend(unit)));
    }
    (Derivation::External(Some(wanted)), emission)
}

/// The status of one that can't be used at all.
fn unusable(reader: &Reader<'_>, meta: &Meta, gateways: &[ObjectName], message: String) -> DesiredStatus {
    let conditions = [
        fails(ACCEPTED, &Fault::new("Invalid", message)),
        pending(RESOLVED_REFS, "the XBackend can't be read"),
    ];
    status(reader, meta, gateways, &conditions)
}

/// One entry for each Gateway; where there is none, ours are taken back.
fn status(
    reader: &Reader<'_>,
    meta: &Meta,
    gateways: &[ObjectName],
    conditions: &[Condition],
) -> DesiredStatus {
    let controller = reader.settings.controller_name.as_str().into();
    let entry =
        |gateway: &ObjectName| AncestorStatus { gateway: gateway.clone(), conditions: conditions.to_vec() };
    let parents = gateways.iter().map(entry).collect();
    DesiredStatus::new(meta, StatusContent::Backend { controller, parents })
}
