//! Units of small configurations.

use proxy_config::backend::{
    Backend, BackendProtocol, Destination, Endpoint, EndpointPort, EndpointSlice, ServicePort,
};
use proxy_config::certificate::PrivateKey;
use proxy_config::listener::{Address, Bind, Listener, Protocol};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::route::{Attachment, Match, PathMatch, RouteUnit, Rule, Target, WeightedBackend};
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};

use crate::rig::Origin;

/// A Gateway with one listener, to which routes are added.
pub(crate) struct World {
    units: Vec<(UnitId, Unit)>,
}

impl World {
    pub(crate) fn new(port: u16) -> Self {
        Self { units: Vec::new() }.listener("web", port)
    }

    pub(crate) fn units(&self) -> UnitSet {
        self.units.iter().map(|(id, unit)| EncodedUnit::new(id.clone(), unit)).collect()
    }

    pub(crate) fn listener(mut self, name: &str, port: u16) -> Self {
        let gateway = ObjectName::new("infra", "edge");
        let listener = Listener {
            passthrough: false,
            client_validation: None,
            backend_certificate: None,
            bind: Bind { address: Address::Node, port },
            further: Vec::new(),
            protocol: Protocol::Http,
            hostname: None,
            certificates: Vec::new(),
            gateway: gateway.clone(),
            name: name.to_owned(),
        };
        self.units.push((UnitId::listener(&gateway, name), Unit::Listener(listener)));
        self
    }

    pub(crate) fn key(mut self, pem: &str) -> Self {
        let id = UnitId::key(&ObjectName::new("shop", "tls"));
        self.units.push((id, Unit::Key(PrivateKey { pem: pem.to_owned() })));
        self
    }

    /// A route that takes a prefix to an origin.
    pub(crate) fn route(mut self, prefix: &str, origin: &Origin) -> Self {
        let service = ObjectName::new("shop", origin.name.as_str());
        let backend = UnitId::backend(&service, 80);
        let name = ObjectName::new("shop", format!("route{}", prefix.replace('/', "-")));
        let path = PathMatch::Prefix(prefix.to_owned());
        let rule = Rule {
            matches: vec![Match { path, method: None, headers: Vec::new(), query: Vec::new() }],
            backends: vec![WeightedBackend {
                target: Target::Backend(backend.clone()),
                weight: 1,
                filters: Vec::new(),
            }],
            ..Rule::default()
        };
        let listener = UnitId::listener(&ObjectName::new("infra", "edge"), "web");
        let route = RouteUnit {
            kind: "HTTPRoute".to_owned(),
            name: name.clone(),
            created: 1,
            attachments: vec![Attachment { listener, hostnames: Vec::new() }],
            rules: vec![rule],
        };
        self.units.push((UnitId::route("HTTPRoute", &name), Unit::Route(route)));
        let port = 80;
        let protocol = BackendProtocol::Http1;
        let unit = Backend {
            tls: None,
            traffic: None,
            destination: Destination::Service(ServicePort {
                service: service.clone(),
                port,
                port_name: None,
            }),
            protocol,
        };
        self.units.push((backend, Unit::Backend(unit)));
        let endpoint = Endpoint {
            address: origin.address.ip(),
            ready: true,
            serving: true,
            terminating: false,
            zone: None,
        };
        let slice = EndpointSlice {
            service: service.clone(),
            ports: vec![EndpointPort { name: None, port: origin.address.port() }],
            endpoints: vec![endpoint],
        };
        self.units.push((UnitId::endpoints(&service), Unit::Endpoints(slice)));
        self
    }
}
