//! Endpoints that are reached over TLS: what they must prove, what they are shown, and who shares what.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy_config::backend::{BackendProtocol, BackendTls, BackendVerification, Subject};
use proxy_config::certificate::{Authority, Certificate, PrivateKey};
use proxy_config::name::UnitId;
use proxy_config::route::{Filter, Mirror};
use proxy_config::unit::{EncodedUnit, Unit};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::h2c;
use crate::http1::Client;
use crate::origin::Origin;
use crate::rig::{Rig, Site, name};
use crate::server::listen;

/// The name that policies ask for.
pub const NAME: &str = "backend.example";

/// Who signs certificates.
pub struct Issuer(CertifiedIssuer<'static, KeyPair>);

/// A certificate, and its key as PEM.
pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pem: String,
    key: KeyPair,
}

impl Issuer {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn issue(&self, names: Vec<SanType>) -> Issued {
        self.shape(names, |_| ())
    }

    fn shape(&self, names: Vec<SanType>, shape: impl FnOnce(&mut CertificateParams)) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        shape(&mut params);
        let made = params.signed_by(&key, &self.0).unwrap();
        Issued { chain: vec![made.der().clone()], pem: made.pem(), key }
    }

    /// Its bundle, as a unit of this name.
    pub fn bundle(&self, of: &str) -> EncodedUnit {
        let unit = Unit::Authority(Authority { bundle: self.0.pem() });
        EncodedUnit::new(bundle(of), &unit)
    }
}

impl Issued {
    /// As a Secret's units.
    pub fn units(&self, secret: &str) -> [EncodedUnit; 2] {
        let key = UnitId::key(&name(secret));
        let chain = Certificate { chain: self.pem.clone(), key: key.clone() };
        let pem = self.key.serialize_pem();
        [
            EncodedUnit::new(key, &Unit::Key(PrivateKey { pem })),
            EncodedUnit::new(UnitId::certificate(&name(secret)), &Unit::Certificate(chain)),
        ]
    }

    pub fn server(&self) -> ServerConfig {
        self.server_asking(None)
    }

    /// Asks clients for a certificate of this issuer.
    pub fn server_asking(&self, issuer: Option<&Issuer>) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match issuer {
            None => builder.with_no_client_auth(),
            Some(issuer) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(issuer.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(self.chain.clone(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

pub fn dns(name: &str) -> Vec<SanType> {
    vec![SanType::DnsName(name.to_owned().try_into().unwrap())]
}

fn bundle(of: &str) -> UnitId {
    UnitId::authority("ConfigMap", &name(of))
}

/// What a policy says: the bundle `ca`, and these subjects.
pub fn policy(subjects: Vec<Subject>) -> Option<BackendTls> {
    let verification = BackendVerification {
        hostname: NAME.to_owned(),
        subjects,
        authorities: vec![bundle("ca")],
        client_certificate: None,
    };
    Some(BackendTls::Verified(verification))
}

/// What a handshake has told a front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub sni: Option<String>,
    pub alpn: Option<String>,
    /// The client's certificate.
    pub shown: Option<Vec<u8>>,
    resumed: bool,
}

/// Ends TLS in front of an origin that speaks in clear.
pub struct Front {
    pub address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    config: watch::Sender<Arc<ServerConfig>>,
    _server: AbortOnDropHandle<()>,
}

impl Front {
    pub async fn of(origin: SocketAddr, config: ServerConfig) -> Self {
        let told = Arc::<Mutex<Vec<Told>>>::default();
        let (config, current) = watch::channel(Arc::new(config));
        let seen = told.clone();
        let (address, server) = listen("127.0.0.33:0", move |stream| {
            let config = current.borrow().clone();
            pass_on(stream, config, origin, seen.clone())
        })
        .await;
        Self { address, told, config, _server: server }
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }
}

async fn pass_on(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    origin: SocketAddr,
    seen: Arc<Mutex<Vec<Told>>>,
) {
    stream.set_nodelay(true).unwrap();
    let Ok(mut near) = TlsAcceptor::from(config).accept(stream).await else { return };
    let session = near.get_ref().1;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    seen.lock().unwrap().push(Told {
        sni: session.server_name().map(str::to_owned),
        alpn: session.alpn_protocol().map(text),
        shown: session.peer_certificates().map(|chain| chain[0].to_vec()),
        resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
    });
    let mut far = TcpStream::connect(origin).await.unwrap();
    far.set_nodelay(true).unwrap();
    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
}

/// A proxy, a site of it with a policy, and what stands behind that.
struct World {
    rig: Rig,
    site: Site,
    origin: Origin,
    front: Front,
}

impl World {
    /// The endpoint shows this certificate; the bundle is that of `trusted`.
    async fn new(issued: &Issued, trusted: &Issuer, subjects: Vec<Subject>) -> Self {
        Self::serving(issued.server(), trusted, subjects).await
    }

    async fn serving(config: ServerConfig, trusted: &Issuer, subjects: Vec<Subject>) -> Self {
        let origin = Origin::start().await;
        let front = Front::of(origin.address, config).await;
        let rig = Rig::start(2).await;
        let mut site = Site::new(&rig, front.address);
        site.tls = policy(subjects);
        site.more.push(trusted.bundle("ca"));
        rig.hold(&site).await;
        Self { rig, site, origin, front }
    }

    async fn status(&self) -> String {
        let mut client = Client::connect(self.rig.http).await.unwrap();
        let answer = client.get("/seen").await.unwrap();
        answer.head.split(' ').nth(1).unwrap().to_owned()
    }

    /// How often the proxy has answered by itself for this reason.
    fn refused(&self, reason: &str) -> u64 {
        let metrics = proxy::metrics::text::render(self.rig.proxy.metrics());
        let needle = format!("{{reason=\"{reason}\"}} ");
        metrics.lines().find_map(|line| line.split_once(&needle)?.1.parse().ok()).unwrap_or(0)
    }
}

#[tokio::test]
async fn an_endpoint_with_the_right_name_of_the_right_authority_is_served_from() {
    let issuer = Issuer::new();
    let world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    assert_eq!(world.status().await, "200");
    let told = world.front.told();
    assert_eq!(told[0].sni.as_deref(), Some(NAME), "the policy's hostname is asked for");
    assert_eq!(told[0].alpn.as_deref(), Some("http/1.1"));
    assert_eq!(told[0].shown, None);
    let heads = world.origin.requests();
    assert!(heads[0].contains("Host: a.example\r\n"), "the request's own host stays: {}", heads[0]);
}

#[tokio::test]
async fn what_is_not_proven_is_a_bad_gateway_and_reaches_no_endpoint() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let old = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let new = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2120, 1, 1);
    for (what, issued) in [
        ("another authority", other.issue(dns(NAME))),
        ("another name", issuer.issue(dns("other.example"))),
        ("no name", issuer.issue(Vec::new())),
        ("no longer valid", issuer.shape(dns(NAME), old)),
        ("not yet valid", issuer.shape(dns(NAME), new)),
    ] {
        let world = World::new(&issued, &issuer, Vec::new()).await;
        assert_eq!(world.status().await, "502", "{what}");
        assert_eq!(world.origin.requests(), [] as [String; 0], "{what}");
        // It is counted once the answer is written.
        while world.refused("upstream_tls_failed") != 1 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn subjects_stand_instead_of_the_hostname() {
    let issuer = Issuer::new();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let mut names = dns("abc.example.com");
    names.push(uri("spiffe://abc.example.com/id"));
    let issued = issuer.issue(names);
    let hostname = |name: &str| Subject::Hostname(name.to_owned());
    let id = |text: &str| Subject::Uri(text.to_owned());
    for (subjects, want) in [
        (vec![hostname("abc.example.com")], "200"),
        (vec![hostname("xyz.example.com"), hostname("ABC.example.com")], "200"),
        (vec![id("spiffe://abc.example.com/id")], "200"),
        (vec![id("spiffe://abc.example.com/other"), hostname("xyz.example.com")], "502"),
        (vec![id("spiffe://abc.example.com")], "502"),
        (vec![hostname("*.example.com")], "502"),
        // Nor does the hostname, once there are subjects.
        (vec![hostname(NAME)], "502"),
    ] {
        let world = World::new(&issued, &issuer, subjects.clone()).await;
        assert_eq!(world.status().await, want, "{subjects:?}");
        assert!(world.front.told().iter().all(|told| told.sni.as_deref() == Some(NAME)));
    }
}

#[tokio::test]
async fn a_policy_that_can_not_be_used_fails_its_own_share_alone() {
    let issuer = Issuer::new();
    let mut world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    world.site.tls = Some(BackendTls::Invalid("no authority can be used".into()));
    world.rig.hold(&world.site).await;
    assert_eq!(world.status().await, "500");
    assert_eq!(world.front.told(), [], "nobody is connected to");
    // Without its bundle a backend is broken; with it again it serves.
    world.site.tls = policy(Vec::new());
    let bundle = world.site.more.pop().unwrap();
    let ack = world.rig.proxy.hold(world.site.units()).await.unwrap();
    assert_eq!(ack.broken.len(), 1);
    assert_eq!(ack.broken[0].unit, UnitId::backend(&name("backend"), 80));
    assert_eq!(ack.broken[0].reason, "none of the bundles of authorities can be used");
    assert_eq!(world.status().await, "500");
    world.site.more.push(bundle);
    world.rig.hold(&world.site).await;
    assert_eq!(world.status().await, "200");
}

#[tokio::test]
async fn connections_are_kept_over_swaps_and_shared_with_no_other_policy() {
    let issuer = Issuer::new();
    let mut world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    let mut client = Client::connect(world.rig.http).await.unwrap();
    for generation in 0..5 {
        world.site.generation = Some(generation);
        world.rig.hold(&world.site).await;
        assert!(client.get("/seen").await.unwrap().is_ok());
    }
    assert_eq!(world.front.told().len(), 1, "one connection serves all");
    world.site.tls = policy(vec![Subject::Hostname(NAME.to_owned())]);
    world.rig.hold(&world.site).await;
    assert!(client.get("/seen").await.unwrap().is_ok());
    let told = world.front.told();
    assert_eq!(told.len(), 2, "what one policy has verified is nothing to another");
    assert!(!told[1].resumed, "nor are its sessions");
    world.site.tls = policy(vec![Subject::Hostname("other.example".to_owned())]);
    world.rig.hold(&world.site).await;
    assert!(!client.get("/seen").await.unwrap().is_ok());
}

#[tokio::test]
async fn sessions_are_resumed_at_the_endpoint_that_gave_them() {
    let issuer = Issuer::new();
    let world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    // The first answer brings tickets.
    assert_eq!(world.status().await, "200");
    let mut clients = Vec::new();
    for waiting in 1..=3 {
        // Each holds the connection to its endpoint, so that the next one needs another.
        let mut client = Client::connect(world.rig.http).await.unwrap();
        client.stream.write_all(b"GET /gate HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        while world.origin.requests().len() <= waiting {
            tokio::task::yield_now().await;
        }
        clients.push(client);
    }
    world.origin.seen.gate.add_permits(3);
    let resumed: Vec<bool> = world.front.told().iter().map(|told| told.resumed).collect();
    assert!(!resumed[0] && resumed.len() >= 3 && resumed[1..].iter().all(|resumed| *resumed), "{resumed:?}");
}

#[tokio::test]
async fn a_gateway_shows_its_certificate_and_a_new_one_to_new_connections() {
    let issuer = Issuer::new();
    let server = issuer.issue(dns(NAME));
    let mut world = World::serving(server.server_asking(Some(&issuer)), &issuer, Vec::new()).await;
    assert_eq!(world.status().await, "502", "it shows nothing");
    let [old, new] = [issuer.issue(Vec::new()), issuer.issue(Vec::new())];
    world.site.shown = Some("shown");
    world.site.more.extend(old.units("shown"));
    world.rig.hold(&world.site).await;
    assert_eq!(world.status().await, "200");
    // One that is under way while the Secret changes finishes where it is.
    let mut client = Client::connect(world.rig.http).await.unwrap();
    client.stream.write_all(b"GET /gate HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    while !world.origin.requests().iter().any(|head| head.starts_with("GET /gate ")) {
        tokio::task::yield_now().await;
    }
    world.site.more.truncate(1);
    world.site.more.extend(new.units("shown"));
    world.rig.hold(&world.site).await;
    assert_eq!(world.status().await, "200");
    world.origin.seen.gate.add_permits(1);
    assert!(client.answer().await.unwrap().is_ok());
    let shown: Vec<_> = world.front.told().into_iter().filter_map(|told| told.shown).collect();
    assert_eq!(shown.first().unwrap(), &old.chain[0].to_vec());
    assert_eq!(shown.last().unwrap(), &new.chain[0].to_vec());
    assert_eq!(shown.iter().filter(|chain| **chain == new.chain[0].to_vec()).count(), 1);
}

#[tokio::test]
async fn authorities_and_certificates_change_under_load_and_no_request_fails() {
    let [old, new] = [Issuer::new(), Issuer::new()];
    let server = old.issue(dns(NAME));
    let mut world = World::serving(server.server_asking(Some(&old)), &old, Vec::new()).await;
    world.site.shown = Some("shown");
    world.site.more.extend(old.issue(Vec::new()).units("shown"));
    world.rig.hold(&world.site).await;
    let (is_over, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, served, http) = (is_over.clone(), served.clone(), world.rig.http);
            tokio::spawn(async move {
                while !is_over.load(Relaxed) {
                    let mut client = Client::connect(http).await.unwrap();
                    for _ in 0..5 {
                        let answer = client.get("/quiet").await.expect("an answer");
                        assert!(answer.is_ok(), "{answer:?}");
                        served.fetch_add(1, Relaxed);
                    }
                }
            })
        })
        .collect();
    let both =
        EncodedUnit::new(bundle("ca"), &Unit::Authority(Authority { bundle: old.0.pem() + &new.0.pem() }));
    for round in 0..10 {
        // First both are trusted, then the endpoint is changed, then the old one goes.
        let (from, to) = if round % 2 == 0 { (&old, &new) } else { (&new, &old) };
        for (bundle, server) in [(&both, None), (&both, Some(to)), (&to.bundle("ca"), None)] {
            if let Some(issuer) = server {
                let config = issuer.issue(dns(NAME)).server_asking(Some(&old));
                world.front.config.send_replace(Arc::new(config));
            }
            world.site.more[0] = bundle.clone();
            world.site.more.truncate(1);
            world.site.more.extend(old.issue(Vec::new()).units("shown"));
            world.rig.hold(&world.site).await;
            let enough = served.load(Relaxed) + 50;
            while served.load(Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_ne!(from.0.pem(), to.0.pem());
    }
    is_over.store(true, Relaxed);
    for load in load {
        load.await.unwrap();
    }
}

#[tokio::test]
async fn http2_is_agreed_on_where_the_backend_speaks_it() {
    let issuer = Issuer::new();
    let origin = h2c::Origin::start().await;
    let front = Front::of(origin.address, issuer.issue(dns(NAME)).server()).await;
    let rig = Rig::start(1).await;
    let mut site = Site::new(&rig, front.address);
    (site.tls, site.protocol) = (policy(Vec::new()), BackendProtocol::H2c);
    site.more.push(issuer.bundle("ca"));
    rig.hold(&site).await;
    let mut client = Client::connect(rig.http).await.unwrap();
    assert!(client.get("/one").await.unwrap().is_ok());
    assert!(client.get("/two").await.unwrap().is_ok());
    let told = front.told();
    assert_eq!(told.len(), 1, "one connection carries both");
    assert_eq!(told[0].alpn.as_deref(), Some("h2"));
    assert_eq!(told[0].sni.as_deref(), Some(NAME));
    let heads = origin.seen.heads.lock().unwrap();
    assert_eq!(heads[0].uri().scheme_str(), Some("https"));
    assert_eq!(heads[0].uri().authority().unwrap(), "a.example");
}

#[tokio::test]
async fn an_http2_backend_that_proves_nothing_is_a_bad_gateway() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let origin = h2c::Origin::start().await;
    let front = Front::of(origin.address, other.issue(dns(NAME)).server()).await;
    let rig = Rig::start(1).await;
    let mut site = Site::new(&rig, front.address);
    (site.tls, site.protocol) = (policy(Vec::new()), BackendProtocol::H2c);
    site.more.push(issuer.bundle("ca"));
    rig.hold(&site).await;
    let answer = Client::connect(rig.http).await.unwrap().get("/one").await.unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 502 "), "{answer:?}");
}

#[tokio::test]
async fn a_websocket_and_large_content_pass() {
    let issuer = Issuer::new();
    let world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    let mut client = Client::connect(world.rig.http).await.unwrap();
    let content = vec![b'x'; 3 << 20];
    let head =
        format!("POST /quiet-echo HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", content.len());
    let answer = client.ask(&[head.as_bytes(), &content].concat()).await.unwrap();
    assert_eq!(answer.content.len(), content.len());
    let request = b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert!(client.ask(request).await.unwrap().head.starts_with("HTTP/1.1 101 "));
    for _ in 0..3 {
        client.stream.write_all(b"message").await.unwrap();
        let mut echoed = [0; 7];
        client.stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"message");
    }
}

#[tokio::test]
async fn content_over_http2_reaches_an_endpoint_as_it_comes() {
    let issuer = Issuer::new();
    let world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    let client = crate::http2::Client::connect(&world.rig).await;
    let head = crate::http2::request(http::Method::POST, "/quiet-echo");
    let (response, mut stream) = client.send(head, false).await;
    for _ in 0..40 {
        crate::http2::write(&mut stream, vec![b'x'; 50_000].into(), false).await;
    }
    stream.send_data(bytes::Bytes::new(), true).unwrap();
    let answer = crate::http2::answer(response).await.unwrap();
    assert_eq!(answer.content.len(), 2_000_000);
}

#[tokio::test]
async fn a_mirror_is_reached_over_tls_too() {
    let issuer = Issuer::new();
    let mut world = World::new(&issuer.issue(dns(NAME)), &issuer, Vec::new()).await;
    world.site.shape = |route| {
        let target = route.rules[0].backends[0].target.clone();
        route.rules[0].filters.push(Filter::Mirror(Mirror { target, numerator: 1, denominator: 1 }));
    };
    world.rig.hold(&world.site).await;
    assert_eq!(world.status().await, "200");
    while world.origin.requests().len() < 2 {
        tokio::task::yield_now().await;
    }
}
