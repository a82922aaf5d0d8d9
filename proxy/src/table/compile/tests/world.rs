//! Small configurations and requests that are likely to meet.

use std::borrow::Cow;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proxy_config::backend::{
    Backend, BackendTls, BackendVerification, Destination, Endpoint, EndpointPort, EndpointSlice, ServicePort,
};
use proxy_config::certificate::Authority;
use proxy_config::listener::{Address, Bind, Listener, Protocol};
use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::route::{
    Attachment, Match, PathMatch, RouteUnit, Rule, Target, ValueMatch, ValuePattern, WeightedBackend,
};
use proxy_config::unit::Unit;

use crate::table::request::RequestView;

type Named = (UnitId, Unit);

pub(crate) fn listener(name: &str, port: u16, hostname: Option<&str>) -> Named {
    let gateway = ObjectName::new("infra", "edge");
    let unit = Listener {
        passthrough: false,
        client_validation: None,
        backend_certificate: None,
        bind: Bind { address: Address::Node, port },
        further: Vec::new(),
        protocol: Protocol::Http,
        hostname: hostname.map(HostPattern::new),
        certificates: Vec::new(),
        gateway: gateway.clone(),
        name: name.to_owned(),
    };
    (UnitId::listener(&gateway, name), Unit::Listener(unit))
}

pub(crate) fn rule(path: PathMatch, backend: Option<&str>) -> Rule {
    let matches = vec![Match { path, method: None, headers: Vec::new(), query: Vec::new() }];
    let backends = backend.map(|name| WeightedBackend {
        target: Target::Backend(UnitId::backend(&ObjectName::new("shop", name), 80)),
        weight: 1,
        filters: Vec::new(),
    });
    Rule { matches, backends: backends.into_iter().collect(), ..Rule::default() }
}

pub(crate) fn route(
    name: &str,
    created: i64,
    listeners: &[&str],
    hostnames: &[&str],
    rules: Vec<Rule>,
) -> Named {
    let object = ObjectName::new("shop", name);
    let attachments = listeners.iter().map(|listener| Attachment {
        listener: UnitId::listener(&ObjectName::new("infra", "edge"), listener),
        hostnames: hostnames.iter().map(|name| HostPattern::new(name)).collect(),
    });
    let id = UnitId::route("HTTPRoute", &object);
    let attachments = attachments.collect();
    (id, Unit::Route(RouteUnit { kind: "HTTPRoute".to_owned(), name: object, created, attachments, rules }))
}

pub(crate) fn backend(name: &str) -> Named {
    let service = ObjectName::new("shop", name);
    let id = UnitId::backend(&service, 80);
    let protocol = proxy_config::backend::BackendProtocol::Http1;
    let destination = Destination::Service(ServicePort { service, port: 80, port_name: None });
    (id, Unit::Backend(Backend { tls: None, traffic: None, destination, protocol }))
}

pub(crate) fn endpoints(service: &str, slice: &str, hosts: &[u8]) -> Named {
    let endpoints = hosts.iter().map(|host| Endpoint {
        address: [10, 0, 0, *host].into(),
        ready: host % 4 != 0,
        serving: true,
        terminating: host % 4 == 0,
        zone: None,
    });
    let unit = EndpointSlice {
        service: ObjectName::new("shop", service),
        ports: vec![EndpointPort { name: None, port: 8080 }],
        endpoints: endpoints.collect(),
    };
    (UnitId::endpoints(&ObjectName::new("shop", format!("{service}-{slice}"))), Unit::Endpoints(unit))
}

const LISTENERS: [&str; 4] = ["any", "wild", "deep", "exact"];
const HOSTNAMES: [&str; 5] = ["shop.example.com", "*.example.com", "*.shop.example.com", "*.com", "x.org"];
const PATHS: [&str; 8] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/A", "/a//b"];
const PATTERNS: [&str; 4] = ["/a.*", "/[a-b]+", "/", ".*b"];

/// Conditions that often hold together, on few paths: what is left to decide is the order.
fn a_close_match() -> impl Strategy<Value = Match> {
    let path = select(vec![PathMatch::Prefix("/".to_owned()), PathMatch::Exact("/a".to_owned())]);
    let method = prop_oneof![Just(None), Just(Some("POST".to_owned()))];
    let values = || {
        subsequence(vec!["x-a", "x-b"], 0..=2).prop_map(|names| {
            let one =
                |name: &str| ValueMatch { name: name.to_owned(), value: ValuePattern::Exact("1".to_owned()) };
            names.into_iter().map(one).collect::<Vec<_>>()
        })
    };
    (path, method, values(), values()).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

fn a_close_route() -> impl Strategy<Value = Named> {
    let rules = prop::collection::vec(prop::collection::vec(a_close_match(), 1..4), 1..3);
    (select(vec!["r1", "r2", "r3", "r4"]), 0..3_i64, rules).prop_map(|(name, created, rules)| {
        let rule = |matches| Rule { matches, ..rule(PathMatch::Prefix("/".to_owned()), None) };
        route(name, created, &["any"], &[], rules.into_iter().map(rule).collect())
    })
}

/// One listener with routes that differ in little.
pub(super) fn close_world() -> impl Strategy<Value = Vec<Named>> {
    prop::collection::vec(a_close_route(), 2..6).prop_map(|routes| {
        let all = routes.into_iter().chain([listener("any", 80, None)]);
        all.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
    })
}

/// Requests to it.
pub(super) fn close_requests() -> impl Strategy<Value = Vec<Request>> {
    let values = || subsequence(vec![("x-a", "1"), ("x-b", "1")], 0..=2);
    let method = select(vec!["GET", "POST"]);
    let one = (select(vec!["/", "/a", "/b"]), method, values(), values());
    let one =
        one.prop_map(|(path, method, headers, query)| a_request(80, "x.org", path, method, headers, query));
    prop::collection::vec(one, 40)
}

fn path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        3 => select(&PATHS[..]).prop_map(|path| PathMatch::Prefix(path.to_owned())),
        2 => select(&PATHS[..]).prop_map(|path| PathMatch::Exact(path.to_owned())),
        1 => select(&PATTERNS[..]).prop_map(|pattern| PathMatch::Regex(pattern.to_owned())),
    ]
}

fn value() -> impl Strategy<Value = ValuePattern> {
    prop_oneof![
        select(vec!["1", "2"]).prop_map(|value| ValuePattern::Exact(value.to_owned())),
        Just(ValuePattern::Regex("[12]".to_owned())),
    ]
}

fn values() -> impl Strategy<Value = Vec<ValueMatch>> {
    let one = (select(vec!["x-a", "x-b"]), value())
        .prop_map(|(name, value)| ValueMatch { name: name.to_owned(), value });
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(one, 1..3)]
}

fn a_match() -> impl Strategy<Value = Match> {
    let method = prop_oneof![3 => Just(None), 1 => Just(Some("POST".to_owned()))];
    (path(), method, values(), values()).prop_map(|(path, method, headers, query)| Match {
        path,
        method,
        headers,
        query,
    })
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let backend = select(vec![None, Some("cart"), Some("pay"), Some("gone")]);
    (prop::collection::vec(a_match(), 1..3), backend)
        .prop_map(|(matches, backend)| Rule { matches, ..rule(PathMatch::Prefix("/".to_owned()), backend) })
}

fn a_route() -> impl Strategy<Value = Named> {
    (
        select(vec!["r1", "r2", "r3", "r4"]),
        0..3_i64,
        subsequence(&LISTENERS[..], 1..3),
        subsequence(&HOSTNAMES[..], 0..3),
        prop::collection::vec(a_rule(), 1..3),
    )
        .prop_map(|(name, created, listeners, hostnames, rules)| {
            route(name, created, &listeners, &hostnames, rules)
        })
}

const AUTHORITIES: [&str; 2] = ["one", "two"];

/// Bundles of two authorities.
pub(super) static BUNDLES: LazyLock<[String; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem())
});

pub(super) fn authority(name: &str, bundle: &str) -> Named {
    let id = UnitId::authority("ConfigMap", &ObjectName::new("shop", name));
    (id, Unit::Authority(Authority { bundle: bundle.to_owned() }))
}

/// A backend that is reached over TLS, or not.
pub(super) fn secured(name: &str, tls: Option<BackendTls>) -> Named {
    let (id, mut unit) = backend(name);
    if let Unit::Backend(backend) = &mut unit {
        backend.tls = tls;
    }
    (id, unit)
}

pub(super) fn verified(hostname: &str, authorities: &[&str]) -> BackendTls {
    let id = |name: &&str| UnitId::authority("ConfigMap", &ObjectName::new("shop", *name));
    let authorities = authorities.iter().map(id).collect();
    let hostname = hostname.to_owned();
    BackendTls::Verified(BackendVerification {
        hostname,
        subjects: Vec::new(),
        authorities,
        client_certificate: None,
    })
}

fn a_tls() -> impl Strategy<Value = Option<BackendTls>> {
    let policy = (select(vec!["a.example", "b.example"]), subsequence(&AUTHORITIES[..], 1..=2));
    let policy = policy.prop_map(|(hostname, authorities)| verified(hostname, &authorities));
    prop_oneof![
        2 => Just(None),
        2 => policy.prop_map(Some),
        1 => Just(Some(BackendTls::Invalid("no authority can be used".to_owned()))),
    ]
}

/// Units whose names may repeat: the last one counts.
pub(super) fn world() -> impl Strategy<Value = Vec<Named>> {
    let ports = prop::array::uniform4(80..82_u16);
    let listeners = (ports, subsequence(vec![0, 1, 2, 3], 1..=4)).prop_map(|(ports, which)| {
        let hostnames = [None, Some("*.example.com"), Some("*.shop.example.com"), Some("shop.example.com")];
        which.into_iter().map(|n| listener(LISTENERS[n], ports[n], hostnames[n])).collect::<Vec<_>>()
    });
    let backends = prop::array::uniform2(prop::option::of(a_tls()));
    let bundles = prop::array::uniform2(prop::option::of(0..BUNDLES.len()));
    let slice = (select(vec!["cart", "pay"]), select(vec!["1", "2"]), subsequence(vec![1, 2, 3, 4, 8], 0..4))
        .prop_map(|(service, slice, hosts)| endpoints(service, slice, &hosts));
    let slices = prop::collection::vec(slice, 0..3);
    (listeners, prop::collection::vec(a_route(), 0..6), (backends, bundles), slices).prop_map(
        |(listeners, routes, (backends, bundles), slices)| {
            let backends = ["cart", "pay"].into_iter().zip(backends);
            let backends = backends.filter_map(|(name, tls)| Some(secured(name, tls?)));
            let bundles = AUTHORITIES.into_iter().zip(bundles);
            let bundles = bundles.filter_map(|(name, bundle)| Some(authority(name, &BUNDLES[bundle?])));
            let all = listeners.into_iter().chain(routes).chain(backends).chain(slices).chain(bundles);
            all.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
        },
    )
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) port: u16,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) method: String,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) query: Vec<(&'static str, &'static str)>,
    /// The query as text.
    pub(super) text: String,
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> &[u8] {
        self.text.as_bytes()
    }
    fn header(&self, lower_name: &str) -> Option<Cow<'_, [u8]>> {
        let sent = self.headers.iter().find(|(name, _)| *name == lower_name);
        sent.map(|(_, value)| Cow::Borrowed(value.as_bytes()))
    }
}

fn sent_values() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    prop::collection::vec((select(vec!["x-a", "x-b"]), select(vec!["1", "2", "3"])), 0..3)
}

fn request() -> impl Strategy<Value = Request> {
    let hosts =
        ["shop.example.com", "SHOP.Example.com", "a.example.com", "b.a.shop.example.com", "x.org", "y.net"];
    let paths = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c/d", "/A", "/abc", "/a//b", "//", "/b"];
    let method = select(vec!["GET", "POST"]);
    (80..82_u16, select(hosts.to_vec()), select(paths.to_vec()), method, sent_values(), sent_values())
        .prop_map(|(port, host, path, method, headers, query)| {
            a_request(port, host, path, method, headers, query)
        })
}

fn a_request(
    port: u16,
    host: &str,
    path: &str,
    method: &str,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
) -> Request {
    let pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (host, path, method) = (host.to_owned(), path.to_owned(), method.to_owned());
    Request { port, host, path, method, headers, query, text: pairs.join("&") }
}

pub(super) fn requests() -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec(request(), 40)
}
