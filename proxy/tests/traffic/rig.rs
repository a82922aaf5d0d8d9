//! A whole proxy on loopback, and the units that it is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use proxy::admin::identity::{Identity, TlsSource};
use proxy::handover::turn::Turn;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::resolver::ResolverSettings;
use proxy::settings::Settings;
use proxy::tree::{Proxy, run};
use proxy_config::backend::{
    Backend, BackendProtocol, BackendTls, Destination, Endpoint, EndpointPort, EndpointSlice, ExternalHost,
    ServicePort,
};
use proxy_config::certificate::{Certificate, PrivateKey};
use proxy_config::listener::{Address, Bind, Listener, Protocol};
use proxy_config::name::{HostPattern, ObjectName, UnitId};
use proxy_config::route::{
    Attachment, Field, Filter, HeaderEdits, Match, PathMatch, RouteUnit, Rule, Target, WeightedBackend,
};
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Nothing in these tests takes as long, unless something hangs.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// This suite's own address.
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 30));

/// A proxy.
pub struct Rig {
    pub proxy: Arc<Proxy>,
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Its own Unix socket, where it can hand over.
    pub status: PathBuf,
    resolver: ResolverSettings,
    /// The state folder, shared with its successors.
    folder: Option<Arc<TempDir>>,
    /// What keeps its ports from everybody else until it listens.
    bound: Arc<[TcpSocket; 2]>,
}

impl Rig {
    /// One that can hand over.
    pub async fn first(drain: DrainSettings) -> Self {
        Self::first_resolving(drain, ResolverSettings::default()).await
    }

    /// One that can hand over, and resolves names so.
    pub async fn first_resolving(drain: DrainSettings, resolver: ResolverSettings) -> Self {
        let folder = Some(Arc::new(tempfile::tempdir().unwrap()));
        Self::made((2, Limits::new(4000), drain), folder, resolver).await
    }

    /// One that resolves names so.
    pub async fn resolving(resolver: ResolverSettings) -> Self {
        Self::made((2, Limits::new(4000), DrainSettings::default()), None, resolver).await
    }

    async fn made(
        served: (usize, Limits, DrainSettings),
        folder: Option<Arc<TempDir>>,
        resolver: ResolverSettings,
    ) -> Self {
        let state_dir = folder.as_ref().map(|folder| folder.path());
        let (proxy, status) = start(served, state_dir, resolver.clone()).await;
        let ((one, http), (other, https)) = (nobody(NODE), nobody(NODE));
        Self { proxy, http, https, status, resolver, folder, bound: Arc::new([one, other]) }
    }

    /// The folder that it shares with its successors.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// One that takes over from this one, once it has.
    pub async fn successor(&self, drain: DrainSettings) -> Self {
        let served = (2, Limits::new(4000), drain);
        let (proxy, status) = start(served, Some(self.folder()), self.resolver.clone()).await;
        let mut turn = proxy.turn();
        let taken = timeout(PATIENCE, turn.wait_for(|turn| *turn == Turn::Ours)).await;
        taken.expect("it takes over").unwrap();
        let (resolver, folder, bound) = (self.resolver.clone(), self.folder.clone(), self.bound.clone());
        Self { proxy, status, resolver, folder, bound, ..*self }
    }

    pub async fn start(workers: usize) -> Self {
        Self::with(workers, DrainSettings::default()).await
    }

    pub async fn with(workers: usize, drain: DrainSettings) -> Self {
        Self::limited(workers, Limits::new(4000), drain).await
    }

    pub async fn limited(workers: usize, limits: Limits, drain: DrainSettings) -> Self {
        Self::made((workers, limits, drain), None, ResolverSettings::default()).await
    }

    /// A proxy that sends everything to one origin.
    pub async fn to(origin: SocketAddr) -> Self {
        let rig = Self::start(2).await;
        rig.hold(&Site::new(&rig, origin)).await;
        rig
    }

    /// Puts a site in force, and waits until it is listened for.
    pub async fn hold(&self, site: &Site) {
        let ack = self.proxy.hold(site.units()).await.unwrap();
        assert_eq!(ack.broken, []);
        let mut addresses = vec![self.http];
        addresses.extend((!site.certificates.is_empty()).then_some(self.https));
        let connected = async {
            for address in addresses {
                while TcpStream::connect(address).await.is_err() {
                    tokio::task::yield_now().await;
                }
            }
        };
        timeout(PATIENCE, connected).await.expect("it listens");
    }
}

async fn start(
    (workers, limits, drain): (usize, Limits, DrainSettings),
    state_dir: Option<&Path>,
    resolver: ResolverSettings,
) -> (Arc<Proxy>, PathBuf) {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let number = STARTED.fetch_add(1, Relaxed);
    let status = state_dir.map(|folder| folder.join(format!("status-{number}.sock")));
    let settings = Settings {
        identity: "edge-1".to_owned(),
        node_address: NODE,
        admin_bind: SocketAddr::new(NODE, 0),
        status_bind: SocketAddr::new(NODE, 0),
        status_socket: status.clone(),
        tls: TlsSource::Held(watch::channel(Arc::new(identity())).1),
        state_dir: state_dir.map(Path::to_owned),
        workers,
        limits,
        drain,
        resolver,
    };
    (Arc::new(run(settings).await.unwrap()), status.unwrap_or_default())
}

/// The admin port is not used here; it only has to come up.
fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(["edge-1".to_owned()]).unwrap();
    let chain: Arc<str> = made.cert.pem().into();
    Identity { authorities: chain.clone(), chain, key: made.signing_key.serialize_pem().into() }
}

/// An address at which nobody listens, though that is possible; while the socket is held, it is given to nobody else.
pub fn nobody(ip: impl Into<IpAddr>) -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(SocketAddr::new(ip.into(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What a proxy is told: one route to one backend, on HTTP and on HTTPS listeners.
#[derive(Clone)]
pub struct Site {
    http: SocketAddr,
    https: SocketAddr,
    /// What stands there instead of the endpoints.
    pub external: Option<ExternalHost>,
    /// The endpoints.
    pub origins: Vec<SocketAddr>,
    /// Hostname (empty: any) and the subject of its certificate.
    pub certificates: Vec<(&'static str, &'static str)>,
    /// Told to the origin as `X-Generation` and to the client as the same.
    pub generation: Option<u64>,
    /// What the endpoints speak.
    pub protocol: BackendProtocol,
    /// What is else about the route.
    pub shape: fn(&mut RouteUnit),
    /// How the endpoints are reached over TLS.
    pub tls: Option<BackendTls>,
    /// The subject of the certificate that they are shown.
    pub shown: Option<&'static str>,
    /// Units besides.
    pub more: Vec<EncodedUnit>,
}

impl Site {
    pub fn new(rig: &Rig, origin: SocketAddr) -> Self {
        Self {
            http: rig.http,
            https: rig.https,
            external: None,
            origins: vec![origin],
            certificates: Vec::new(),
            generation: None,
            protocol: BackendProtocol::Http1,
            shape: |_| (),
            tls: None,
            shown: None,
            more: Vec::new(),
        }
    }

    pub fn units(&self) -> UnitSet {
        let mut units = vec![listener("http", self.http, Protocol::Http, None, None, self.shown)];
        units.extend(self.more.iter().cloned());
        for (hostname, subject) in &self.certificates {
            let name = format!("https-{subject}");
            units.extend(certificate(subject));
            let hostname = (!hostname.is_empty()).then(|| HostPattern::new(hostname));
            units.push(listener(&name, self.https, Protocol::Https, hostname, Some(subject), self.shown));
        }
        let listeners = units.iter().filter(|unit| unit.id.as_str().starts_with("listener/"));
        let attachments =
            listeners.map(|unit| Attachment { listener: unit.id.clone(), hostnames: Vec::new() }).collect();
        units.push(route(attachments, self.generation, self.shape));
        units.extend(self.backend());
        units.into_iter().collect()
    }
}

impl Site {
    /// The route alone.
    pub fn route(&self) -> EncodedUnit {
        let https = self.certificates.iter().map(|(_, subject)| format!("https-{subject}"));
        let attachments = ["http".to_owned()].into_iter().chain(https).map(|listener| Attachment {
            listener: UnitId::listener(&name("gateway"), &listener),
            hostnames: Vec::new(),
        });
        route(attachments.collect(), self.generation, self.shape)
    }

    /// The backend and its endpoints alone; their zone follows the generation.
    pub fn backend(&self) -> Vec<EncodedUnit> {
        let zone = self.generation.map(|generation| generation.to_string());
        let mut units = backend(&self.origins, (self.protocol, self.tls.clone()), zone);
        if let Some(host) = &self.external {
            let destination = Destination::External(host.clone());
            let unit = Backend { tls: self.tls.clone(), traffic: None, destination, protocol: self.protocol };
            units[0] = EncodedUnit::new(UnitId::backend(&name("backend"), 80), &Unit::Backend(unit));
        }
        units
    }
}

pub fn name(name: &str) -> ObjectName {
    ObjectName::new("test", name)
}

fn listener(
    listener: &str,
    address: SocketAddr,
    protocol: Protocol,
    hostname: Option<HostPattern>,
    certificate: Option<&str>,
    shown: Option<&str>,
) -> EncodedUnit {
    let unit = Listener {
        passthrough: false,
        client_validation: None,
        backend_certificate: shown.map(|subject| UnitId::certificate(&name(subject))),
        bind: Bind { address: Address::Ip(address.ip()), port: address.port() },
        further: Vec::new(),
        protocol,
        hostname,
        certificates: certificate.map(|subject| UnitId::certificate(&name(subject))).into_iter().collect(),
        gateway: name("gateway"),
        name: listener.to_owned(),
    };
    EncodedUnit::new(UnitId::listener(&name("gateway"), listener), &Unit::Listener(unit))
}

pub fn certificate(subject: &str) -> [EncodedUnit; 2] {
    let made = rcgen::generate_simple_self_signed([subject.to_owned()]).unwrap();
    let key = UnitId::key(&name(subject));
    let chain = Certificate { chain: made.cert.pem(), key: key.clone() };
    let secret = PrivateKey { pem: made.signing_key.serialize_pem() };
    [
        EncodedUnit::new(key, &Unit::Key(secret)),
        EncodedUnit::new(UnitId::certificate(&name(subject)), &Unit::Certificate(chain)),
    ]
}

fn route(attachments: Vec<Attachment>, generation: Option<u64>, shape: fn(&mut RouteUnit)) -> EncodedUnit {
    let everything =
        Match { path: PathMatch::Prefix("/".into()), method: None, headers: Vec::new(), query: Vec::new() };
    let filters = generation.map_or_else(Vec::new, |generation| {
        let field = Field { name: "X-Generation".into(), value: generation.to_string() };
        let edits = HeaderEdits { set: vec![field], ..HeaderEdits::default() };
        vec![Filter::RequestHeaders(edits.clone()), Filter::ResponseHeaders(edits)]
    });
    let target = Target::Backend(UnitId::backend(&name("backend"), 80));
    let rule = Rule {
        matches: vec![everything],
        filters,
        backends: vec![WeightedBackend { target, weight: 1, filters: Vec::new() }],
        ..Rule::default()
    };
    let mut route = RouteUnit {
        kind: "HTTPRoute".into(),
        name: name("route"),
        created: 0,
        attachments,
        rules: vec![rule],
    };
    shape(&mut route);
    EncodedUnit::new(UnitId::route("HTTPRoute", &name("route")), &Unit::Route(route))
}

fn backend(
    endpoints: &[SocketAddr],
    (protocol, tls): (BackendProtocol, Option<BackendTls>),
    zone: Option<String>,
) -> Vec<EncodedUnit> {
    let service = name("backend");
    let destination =
        Destination::Service(ServicePort { service: service.clone(), port: 80, port_name: None });
    let unit = Backend { tls, traffic: None, destination, protocol };
    let mut units = vec![EncodedUnit::new(UnitId::backend(&service, 80), &Unit::Backend(unit))];
    for (index, endpoint) in endpoints.iter().enumerate() {
        let slice = EndpointSlice {
            service: service.clone(),
            ports: vec![EndpointPort { name: None, port: endpoint.port() }],
            endpoints: vec![Endpoint {
                address: endpoint.ip(),
                ready: true,
                serving: true,
                terminating: false,
                zone: zone.clone(),
            }],
        };
        let id = UnitId::endpoints(&name(&format!("backend-{index}")));
        units.push(EncodedUnit::new(id, &Unit::Endpoints(slice)));
    }
    units
}
