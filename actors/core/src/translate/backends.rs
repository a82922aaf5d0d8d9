//! Backends: what a rule's backendRefs come to, and the units of Services and EndpointSlices.

use proxy_config::backend::{self, Backend, BackendProtocol, Destination, EndpointSlice};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::route::{Target, WeightedBackend};
use proxy_config::unit::{EncodedUnit, Unit};

use crate::snapshot::cluster::{Service, ServicePort};
use crate::snapshot::http_route::BackendRef;
use crate::snapshot::meta::{EXPERIMENTAL_GROUP, Kind, ObjectRef};

use super::Problem;
use super::conditions::Fault;
use super::emission::Emission;
use super::external;
use super::filters;
use super::grants::{Referrer, permits};
use super::graph::BackendPort;
use super::policies;
use super::reader::{Lookup, Reader};
use super::rules::Rules;
use super::traffic;

/// The greatest weight. Source: BackendRef.weight.
const MAX_WEIGHT: u32 = 1_000_000;
/// The reason of a reference to another namespace that has no grant for it. Source: GEP-709.
const REF_NOT_PERMITTED: &str = "RefNotPermitted";

/// The rule whose backends are looked at.
pub(super) struct Scope<'a, 'b> {
    pub(super) reader: &'b Reader<'a>,
    pub(super) route: &'b ObjectRef,
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
        let field = format!("backendRefs[{index}]");
        let filters = filters::translate(scope, &format!("{field}.filters"), &reference.filters, all);
        let filters = filters.unwrap_or_else(|found| {
            fault.get_or_insert(found);
            Vec::new()
        });
        let target = target(scope, &field, reference, all);
        backends.push(WeightedBackend { target, weight: reference.weight.min(MAX_WEIGHT), filters });
    }
    backends
}

/// Where a reference leads; one that is not resolved leads nowhere and says so.
pub(super) fn target(scope: &Scope<'_, '_>, field: &str, reference: &BackendRef, all: &mut Rules) -> Target {
    match resolve(scope, reference, all) {
        Ok(id) => Target::Backend(id),
        Err(found) => {
            let field = format!("spec.rules[{}].{field}", scope.rule);
            all.problems.push(Problem::of(&field, &found));
            let message = format!("{field}: {}", found.message);
            all.unresolved.get_or_insert(Fault::new(found.reason, message));
            match found.reason {
                REF_NOT_PERMITTED => Target::NotPermitted(found.message),
                _ => Target::Invalid(found.message),
            }
        }
    }
}

impl BackendPort {
    fn unit_id(&self) -> UnitId {
        let Self { service, port, udp } = self;
        if *udp { UnitId::udp_backend(service, *port) } else { UnitId::backend(service, *port) }
    }

    /// The port as the Service describes it.
    fn of<'s>(&self, service: &'s Service) -> Option<&'s ServicePort> {
        let protocol = if self.udp { "UDP" } else { "TCP" };
        service.ports.iter().find(|known| known.port == self.port && known.protocol == protocol)
    }
}

/// The backend that a reference leads to. What it names and may is kept in `all`.
fn resolve(scope: &Scope<'_, '_>, reference: &BackendRef, all: &mut Rules) -> Result<UnitId, Fault> {
    let (group, written) = (&reference.group, &reference.kind);
    let is_named = |kind: &Kind| group == kind.group() && written == kind.as_str();
    let Some(kind) = [Kind::Service, Kind::Backend].into_iter().find(is_named) else {
        let message = format!(
            "kind `{written}` of group `{group}` is not supported: use Service of the core group or XBackend of {EXPERIMENTAL_GROUP}"
        );
        return Err(Fault::new("InvalidKind", message));
    };
    let ObjectRef { kind: route, name: ObjectName { namespace, .. } } = scope.route;
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), &*reference.name);
    if !permits(scope.reader, Referrer { kind: *route, namespace }, kind, &name) {
        let message = format!("{kind} {name} is in another namespace, which has no ReferenceGrant for it");
        return Err(Fault::new(REF_NOT_PERMITTED, message));
    }
    if kind == Kind::Backend {
        return external::resolve(scope, reference.port, name, all);
    }
    let port = port_of_service(scope, reference.port, name)?;
    let id = port.unit_id();
    all.backends.insert(port);
    Ok(id)
}

fn port_of_service(scope: &Scope<'_, '_>, port: Option<u16>, name: ObjectName) -> Result<BackendPort, Fault> {
    let route = scope.route.kind;
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
    let port = port.ok_or_else(|| missing(format!("port of Service {name} is missing: name one")))?;
    let port = BackendPort { service: name, port, udp: route == Kind::UdpRoute };
    let found = port.of(service).ok_or_else(|| {
        let (name, port, protocol) = (&port.service, port.port, if port.udp { "UDP" } else { "TCP" });
        missing(format!("Service {name} has no {protocol} port {port}"))
    })?;
    if matches!(route, Kind::HttpRoute | Kind::GrpcRoute) {
        let name = found.name.as_deref();
        protocol(found, || policies::of_port(scope.reader, &port.service, name).is_some())?;
    }
    Ok(port)
}

/// What a port speaks. Source: GEP-1911; what it does not name is taken for HTTP/1.1.
fn protocol(port: &ServicePort, has_tls: impl Fn() -> bool) -> Result<BackendProtocol, Fault> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c" | "http2" | "h2c" | "grpc") => Ok(BackendProtocol::H2c),
        Some(tls @ ("https" | "kubernetes.io/wss")) if !has_tls() => {
            let message = format!("appProtocol `{tls}` needs a BackendTLSPolicy, which says whom to trust");
            Err(Fault::new("UnsupportedProtocol", message))
        }
        _ => Ok(BackendProtocol::Http1),
    }
}

/// The unit of a Service's port that routes name.
pub(super) fn emit_backend(reader: &Reader<'_>, port: &BackendPort) -> Emission {
    let mut emission = Emission::default();
    if !reader.is_backend(port) {
        return emission;
    }
    let service = reader.service(&port.service).found();
    let Some(found) = service.and_then(|service| port.of(service)) else { return emission };
    let name = found.name.as_deref().filter(|name| !name.is_empty());
    let policy = if port.udp { None } else { policies::of_port(reader, &port.service, name) };
    let (tls, unread) = policy.unzip();
    emission.waiting.extend(unread.filter(|unread| *unread).map(|_| port.unit_id()));
    let protocol = if port.udp {
        BackendProtocol::Udp
    } else {
        // What a GRPCRoute sends goes over HTTP/2 whatever this says: a matter of that route, not of others.
        protocol(found, || tls.is_some()).unwrap_or_default()
    };
    let unit = Backend {
        destination: Destination::Service(backend::ServicePort {
            service: port.service.clone(),
            port: port.port,
            port_name: name.map(str::to_owned),
        }),
        protocol,
        tls,
        traffic: if port.udp {
            None
        } else {
            let service = ObjectRef::new(Kind::Service, port.service.clone());
            traffic::of_backend(reader, &service, &port.unit_id())
        },
    };
    emission.units.push(EncodedUnit::new(port.unit_id(), &Unit::Backend(unit)));
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
