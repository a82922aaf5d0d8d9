//! What the tests play on: an API server, proxies, controllers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use actors::lease_leader;
use actors::push::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE};
use actors::push::credentials::Trust;
use actors::push::identity::{Identity, Role};
use actors::push::link::{Dial, Stream};
use actors::push::mtls;
use actors::settings::{Fleet, LeaseSettings, Settings};
use actors::term::Leadership;
use actors::tree::{self, Controller};
use actors_core::translate;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proxy_config::name::UnitId;
use proxy_config::set::UnitSet;
use proxy_config::wire::{self, Ack, Nack, NackReason, NeedUnits, Push, Reply, Version, WIRE_VERSION};
use sandbox::{Channel, Faults, Options, Sandbox};
use supervisor::Gate;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// How long a test waits, in the time that it pauses, before it gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A proxy that does what the wire says, and remembers what it was told.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) identity: String,
    pub(crate) held: Mutex<Held>,
    /// Counts its restarts: connections end with each.
    lives: watch::Sender<u64>,
    credentials: Mutex<Identity>,
}

/// What a proxy holds and has been told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) version: Version,
    pub(crate) units: UnitSet,
    /// The pushes that were taken: when, and how many units each moved.
    pub(crate) taken: Vec<(Instant, usize)>,
    pub(crate) nacked: usize,
    /// When it last answered that it holds another base.
    pub(crate) differed: Option<Instant>,
    pub(crate) connections: usize,
    /// Units that it says it can't use.
    pub(crate) broken: BTreeMap<UnitId, String>,
    /// It is asked, but does not answer.
    pub(crate) mute: bool,
}

impl Proxy {
    fn take(&self, push: Push) -> Reply {
        let proxy = self.identity.clone();
        let mut held = self.held.lock().unwrap();
        let nack = |reason| Nack { proxy: proxy.clone(), version: held.version, reason };
        let refusal = match () {
            () if push.wire != WIRE_VERSION => Some(NackReason::UnknownWire),
            () if push.proxy != self.identity => Some(NackReason::WrongProxy),
            () if push.version < held.version => Some(NackReason::Stale),
            () => None,
        };
        if let Some(reason) = refusal {
            let nack = nack(reason);
            held.nacked += 1;
            return Reply::Nack(nack);
        }
        if push.base != held.units.root() {
            held.differed = Some(Instant::now());
            let (buckets, kept) = (held.units.bucket_hashes(), wire::kept(&held.units, &push.keep));
            return Reply::NeedUnits(NeedUnits { proxy, root: held.units.root(), buckets, kept });
        }
        let moved = push.put.len() + push.delete.len();
        held.taken.push((Instant::now(), moved));
        let whole = push.replace.iter().flat_map(|&bucket| held.units.bucket(bucket));
        let kept = wire::kept(&held.units, &push.keep);
        let stays = |id: &UnitId| kept.iter().any(|kept| kept.id == *id);
        let dropped: Vec<UnitId> = whole.map(|unit| unit.id.clone()).filter(|id| !stays(id)).collect();
        assert!(push.put.iter().all(|unit| unit.is_intact()));
        held.units.apply([], dropped);
        held.units.apply(push.put, push.delete);
        assert_eq!(held.units.root(), push.root);
        held.version = push.version;
        let broken = held.broken.iter().filter(|(unit, _)| held.units.get(unit).is_some());
        let broken = broken
            .map(|(unit, reason)| proxy_config::wire::Broken { unit: unit.clone(), reason: reason.clone() })
            .collect();
        Reply::Ack(Ack { proxy, version: push.version, root: push.root, broken })
    }

    async fn serve(self: Arc<Self>, stream: tokio::io::DuplexStream) {
        let mut life = self.lives.subscribe();
        let tls = {
            self.held.lock().unwrap().connections += 1;
            mtls::server(&self.credentials.lock().unwrap(), &Role::Controller).unwrap()
        };
        let Ok(stream) = TlsAcceptor::from(Arc::new(tls)).accept(stream).await else { return };
        let service = service_fn(move |request: Request<Incoming>| {
            let proxy = self.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                if proxy.held.lock().unwrap().mute {
                    std::future::pending::<()>().await;
                }
                let reply = proxy.take(serde_json::from_slice(&body).unwrap());
                let reply = serde_json::to_vec(&reply).unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(reply))))
            }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            _ = connection => {}
            _ = life.changed() => {}
        }
    }

    /// It is replaced by one that holds nothing; its connections end.
    pub(crate) fn restart(&self) {
        let mut held = self.held.lock().unwrap();
        *held = Held { connections: held.connections, ..Held::default() };
        self.lives.send_modify(|life| *life += 1);
    }

    /// What it holds.
    pub(crate) fn held(&self) -> Held {
        self.held.lock().unwrap().clone()
    }
}

/// An API server with Gateway API installed, and proxies.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) authority: Arc<Authority>,
    pub(crate) proxies: BTreeMap<SocketAddr, Arc<Proxy>>,
}

impl Stage {
    /// With so many proxies, at 127.0.0.2 and on.
    pub(crate) async fn new(proxies: u8) -> Self {
        Self::with(proxies, Some(Channel::Standard)).await
    }

    pub(crate) async fn with(proxies: u8, channel: Option<Channel>) -> Self {
        let authority = Arc::new(Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap());
        let sandbox = Sandbox::new(Options { loopback_endpoints: true, ..Options::default() });
        if let Some(channel) = channel {
            sandbox.install_gateway_api(channel).await.unwrap();
        }
        let proxies = (0..proxies).map(|index| {
            let identity = format!("edge-{index}");
            let role = Role::Proxy(identity.clone());
            let credentials = authority.issue(&role, SystemTime::now(), LEAF_LIFE).unwrap();
            let proxy = Proxy {
                identity,
                held: Mutex::default(),
                lives: watch::Sender::default(),
                credentials: Mutex::new(credentials),
            };
            (SocketAddr::from(([127, 0, 0, 2 + index], 9901)), Arc::new(proxy))
        });
        Self { proxies: proxies.collect(), sandbox, authority }
    }

    /// The settings of a controller of this name.
    pub(crate) fn settings(&self, name: &str) -> Settings {
        let client = self.sandbox.client_with(name, Faults::none());
        let translate = translate::Settings {
            controller_name: "portreeve.dev/gateway-controller".into(),
            addresses: translate::AddressSource::Class,
            reserved_ports: Vec::new(),
        };
        let mut settings = Settings::new(name, client, translate, Trust::Memory(self.authority.clone()));
        let names = self.proxies.iter().map(|(address, proxy)| (proxy.identity.clone(), *address));
        settings.fleet = Fleet::Named(names.collect());
        let proxies = self.proxies.clone();
        settings.dial = Dial::new(move |address| {
            let proxy = proxies.get(&address).cloned();
            Box::pin(async move {
                let proxy = proxy.ok_or(std::io::ErrorKind::ConnectionRefused)?;
                let (near, far) = tokio::io::duplex(1 << 16);
                tokio::spawn(proxy.serve(far));
                Ok(Box::new(near) as Box<dyn Stream>)
            })
        });
        settings
    }

    /// The settings of one that stands for election.
    pub(crate) fn candidate(&self, name: &str) -> Settings {
        let mut settings = self.settings(name);
        settings.lease = Some(LeaseSettings {
            client: self.sandbox.client_with(name, Faults::none()),
            namespace: "default".to_owned(),
            name: "portreeve".to_owned(),
            identity: lease_leader::identity(name, "uid"),
        });
        settings
    }

    /// A controller that follows.
    pub(crate) async fn controller(&self, name: &str) -> Controller {
        tree::run(self.settings(name)).await.unwrap()
    }

    /// A controller that leads in a term, for as long as the test runs.
    pub(crate) async fn leader(&self, name: &str, term: u64) -> Controller {
        let controller = self.controller(name).await;
        lead(&controller, term);
        controller
    }

    pub(crate) fn proxy(&self, index: usize) -> &Arc<Proxy> {
        self.proxies.values().nth(index).unwrap()
    }

    pub(crate) async fn apply(&self, yaml: &str) {
        self.sandbox.apply_yaml(yaml).await.unwrap();
    }
}

/// Lets a controller lead.
pub(crate) fn lead(controller: &Controller, term: u64) {
    let valid_until = Instant::now() + Duration::from_secs(1_000_000);
    controller.edges.leadership.send_replace(Some(Leadership::new(term, valid_until)));
    controller.edges.gate.send_replace(Gate::Open(term));
}

/// Takes leadership from a controller.
pub(crate) fn resign(controller: &Controller) {
    controller.edges.leadership.send_replace(None);
    controller.edges.gate.send_replace(Gate::Closed);
}

/// Waits until something holds, in paused time.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let what = format!("{what} ({})", std::panic::Location::caller());
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A class, a Gateway on port 8080 and what a route needs, but no route.
pub(crate) const GROUND: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: portreeve}
spec: {controllerName: portreeve.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  gatewayClassName: portreeve
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {ports: [{name: http, port: 80, protocol: TCP}], clusterIP: 10.96.0.9}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: shop-1, namespace: default, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
ports: [{name: http, port: 8000, protocol: TCP}]
endpoints: [{addresses: [10.1.0.5], conditions: {ready: true}}]
";

/// A route of that Gateway.
pub(crate) fn route(name: &str, path: &str) -> String {
    format!(
        r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: default}}
spec:
  parentRefs: [{{name: edge}}]
  rules:
  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
    backendRefs: [{{name: shop, port: 80}}]
"
    )
}
