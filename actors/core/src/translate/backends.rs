//! Backends: what a rule's backendRefs come to, and the units of Services and EndpointSlices.

use proxy_config::backend::{Backend, BackendProtocol, EndpointSlice};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::route::{Target, WeightedBackend};
use proxy_config::unit::{EncodedUnit, Unit};

use crate::snapshot::cluster::{Service, ServicePort};
use crate::snapshot::http_route::BackendRef;
use crate::snapshot::meta::{Kind, ObjectRef};

use super::Problem;
use super::conditions::Fault;
use super::emission::Emission;
use super::filters;
use super::grants::{Referrer, permits};
use super::reader::{Lookup, Reader};
use super::rules::Rules;

/// The greatest weight. Source: BackendRef.weight.
const MAX_WEIGHT: u32 = 1_000_000;
/// The reason of a reference to another namespace that has no grant for it. Source: GEP-709.
const REF_NOT_PERMITTED: &str = "RefNotPermitted";

/// The rule whose backends are looked at.
pub(super) struct Scope<'a, 'b> {
    pub(super) reader: &'b Reader<'a>,
    pub(super) route: &'b ObjectName,
    pub(super) rule: usize,
}

/// Translates the backendRefs of a rule. One that is not resolved keeps its share, which is answered by
/// 500; one whose filters can't be served is a fault of the rule.
pub(super) fn translate(
    scope: &Scope<'_, '_>,
    written: &[BackendRef],
    all: &mut Rules,
    fault: &mut Option<Fault>,
) -> Vec<WeightedBackend> {
    let mut backends = Vec::new();
    for (index, reference) in written.iter().enumerate() {
        let filters = filters::translate(&format!("backendRefs[{index}].filters"), &reference.filters);
        let filters = filters.unwrap_or_else(|found| {
            fault.get_or_insert(found);
            Vec::new()
        });
        let target = match resolve(scope, reference) {
            Ok((service, port)) => {
                let id = UnitId::backend(&service, port);
                all.backends.insert((service, port));
                Target::Backend(id)
            }
            Err(found) => {
                let field = format!("spec.rules[{}].backendRefs[{index}]", scope.rule);
                all.problems.push(Problem::of(&field, &found));
                let message = format!("{field}: {}", found.message);
                all.unresolved.get_or_insert(Fault::new(found.reason, message));
                match found.reason {
                    REF_NOT_PERMITTED => Target::NotPermitted(found.message),
                    _ => Target::Invalid(found.message),
                }
            }
        };
        backends.push(WeightedBackend { target, weight: reference.weight.min(MAX_WEIGHT), filters });
    }
    backends
}

fn resolve(scope: &Scope<'_, '_>, reference: &BackendRef) -> Result<(ObjectName, u16), Fault> {
    let (group, kind) = (&reference.group, &reference.kind);
    if !(group.is_empty() && kind == "Service") {
        let message =
            format!("kind `{kind}` of group `{group}` is not supported: use Service of the core group");
        return Err(Fault::new("InvalidKind", message));
    }
    let namespace = &*scope.route.namespace;
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), &*reference.name);
    if !permits(scope.reader, Referrer { kind: "HTTPRoute", namespace }, "Service", &name) {
        let message = format!("Service {name} is in another namespace, which has no ReferenceGrant for it");
        return Err(Fault::new(REF_NOT_PERMITTED, message));
    }
    let missing = |message: String| Fault::new("BackendNotFound", message);
    let service = match scope.reader.service(&name) {
        Lookup::Found(service) => service,
        Lookup::Missing => return Err(missing(format!("Service {name} is not there"))),
        Lookup::Malformed(found) => {
            return Err(missing(format!("Service {name} can't be read: {}", found.message())));
        }
    };
    if service.external_name {
        let message = format!("Service {name} is of type ExternalName, which has no endpoints");
        return Err(Fault::new("InvalidKind", message));
    }
    let port =
        reference.port.ok_or_else(|| missing(format!("port of Service {name} is missing: name one")))?;
    let found =
        tcp_port(service, port).ok_or_else(|| missing(format!("Service {name} has no TCP port {port}")))?;
    protocol(found)?;
    Ok((name, port))
}

fn tcp_port(service: &Service, port: u16) -> Option<&ServicePort> {
    service.ports.iter().find(|known| known.port == port && known.protocol == "TCP")
}

/// What a port speaks. Source: GEP-1911; what it does not name is taken for HTTP/1.1.
fn protocol(port: &ServicePort) -> Result<BackendProtocol, Fault> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "http2" | "h2c" | "grpc") => Ok(BackendProtocol::H2c),
        Some(tls @ ("https" | "kubernetes.io/wss")) => {
            let message = format!("appProtocol `{tls}`: TLS to backends is not supported by this version");
            Err(Fault::new("UnsupportedProtocol", message))
        }
        _ => Ok(BackendProtocol::Http1),
    }
}

/// The unit of a Service's port that routes name.
pub(super) fn emit_backend(reader: &Reader<'_>, service: &ObjectName, port: u16) -> Emission {
    let mut emission = Emission::default();
    if !reader.is_backend(service, port) {
        return emission;
    }
    let found = reader.service(service).found();
    let Some(found) = found.and_then(|service| tcp_port(service, port)) else { return emission };
    let unit = Backend {
        service: service.clone(),
        port,
        port_name: found.name.clone().filter(|name| !name.is_empty()),
        protocol: protocol(found).unwrap_or_default(),
        tls: None,
    };
    emission.units.push(EncodedUnit::new(UnitId::backend(service, port), &Unit::Backend(unit)));
    emission
}

/// The unit of an EndpointSlice whose Service routes name.
pub(super) fn emit_endpoints(reader: &Reader<'_>, slice: &ObjectName) -> Emission {
    let mut emission = Emission::of(ObjectRef::new(Kind::EndpointSlice, slice.clone()));
    let found = match reader.endpoint_slice(slice) {
        Lookup::Found(found) => found,
        Lookup::Missing => return emission,
        Lookup::Malformed(malformed) => {
            emission.problems.push(Problem::malformed(malformed));
            return emission;
        }
    };
    if let Some(service) = found.service.as_ref().filter(|service| reader.has_backends(service)) {
        let (service, ports, endpoints) = (service.clone(), found.ports.clone(), found.endpoints.clone());
        let unit = EndpointSlice { service, ports, endpoints };
        emission.units.push(EncodedUnit::new(UnitId::endpoints(slice), &Unit::Endpoints(unit)));
    }
    emission
}
