//! A proxy as the command runs it, a controller that pushes to it, and origins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use proxy::admin::identity::TlsSource;
use proxy::enrolment::Enrolment;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::metrics::WorkerMetrics;
use proxy::settings::Settings;
use proxy::tree::{Proxy, run};
use proxy_config::set::UnitSet;
use proxy_config::wire::{NeedUnits, Push, Reply, Version, WIRE_VERSION};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::authority::{Authority, Leaf};

/// The node's address: this suite's own.
pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 21));
const ANY: SocketAddr = SocketAddr::new(NODE, 0);
/// How long a drain still accepts.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
const CONTROLLER: &str = "urn:portreeve:controller";

/// An HTTP/1.1 server whose every answer is its name.
pub(crate) struct Origin {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    _server: AbortOnDropHandle<()>,
}

impl Origin {
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::gated(name, Arc::new(Semaphore::new(Semaphore::MAX_PERMITS))).await
    }

    /// It answers once per permit.
    pub(crate) async fn gated(name: &'static str, gate: Arc<Semaphore>) -> Self {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, name, gate.clone()));
            }
        });
        let name = name.replace(' ', "-");
        Self { name, address, _server: AbortOnDropHandle::new(server) }
    }
}

async fn answer(mut stream: TcpStream, name: &str, gate: Arc<Semaphore>) {
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            gate.acquire().await.unwrap().forget();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }
}

pub(crate) struct Rig {
    proxy: Option<Proxy>,
    pub(crate) authority: Authority,
    pub(crate) port: u16,
    /// What keeps the port from everybody else until it is listened at.
    _bound: TcpSocket,
    folder: tempfile::TempDir,
    tls: TlsSource,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(TlsSource::Files).await
    }

    /// One that keeps its identity good by itself, as in a Pod.
    pub(crate) async fn enrolled() -> Self {
        let enrolment = |folder: PathBuf| Enrolment {
            controllers: Vec::new(),
            token: folder.join("token"),
            authorities: folder.join("ca.crt"),
            folder,
        };
        Self::with(|folder| TlsSource::Enrolled(enrolment(folder))).await
    }

    async fn with(tls: impl FnOnce(PathBuf) -> TlsSource) -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.set_reuseaddr(true).unwrap();
        bound.bind(ANY).unwrap();
        let port = bound.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let tls = tls(folder.path().join("tls"));
        let authority = Authority::new();
        let mut rig = Self { proxy: None, authority, port, _bound: bound, folder, tls };
        rig.write_identity(&rig.authority);
        rig.restart().await;
        rig
    }

    pub(crate) async fn restart(&mut self) {
        let settings = Settings {
            identity: "edge-1".to_owned(),
            node_address: NODE,
            admin_bind: ANY,
            status_bind: ANY,
            status_socket: None,
            tls: self.tls.clone(),
            state_dir: Some(self.folder.path().join("state")),
            workers: 2,
            limits: Limits::new(1000),
            drain: DrainSettings { accept_for: DRAIN, finish_within: 10 * DRAIN },
            resolver: proxy::resolver::ResolverSettings::default(),
        };
        self.proxy = Some(run(settings).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        self.proxy.take().unwrap().stop().await.unwrap();
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    /// Where clients are served.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(NODE, self.port)
    }

    /// How many connections the workers have, and how many requests they serve.
    pub(crate) fn under_way(&self) -> (i64, i64) {
        let workers = (0..2).map(|worker| self.proxy().metrics().worker(worker));
        let count = |worker: &WorkerMetrics| {
            (worker.open_connections.load(Relaxed), worker.active_requests.load(Relaxed))
        };
        workers.map(count).fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    }

    pub(crate) fn write_identity(&self, authority: &Authority) {
        let folder = self.folder.path().join("tls");
        std::fs::create_dir_all(&folder).unwrap();
        let leaf = authority.issue(&["urn:portreeve:proxy:edge-1"]);
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("ca.crt", &authority.pem);
        write("tls.key", &leaf.key);
        write("tls.crt", &leaf.chain);
    }

    /// Changes the newest journal's bytes.
    pub(crate) fn damage_journal(&self, damage: impl FnOnce(&mut Vec<u8>)) {
        let is_journal = |path: &Path| path.extension().is_some_and(|suffix| suffix == "journal");
        let entries = std::fs::read_dir(self.folder.path().join("state")).unwrap();
        let newest =
            entries.map(|entry| entry.unwrap().path()).filter(|path| is_journal(path)).max().unwrap();
        let mut bytes = std::fs::read(&newest).unwrap();
        damage(&mut bytes);
        std::fs::write(newest, bytes).unwrap();
    }

    /// The body of the answer to a GET through the proxy, once its listener is up.
    pub(crate) async fn get(&self, path: &str) -> String {
        let local = self.address();
        for _ in 0..2000 {
            if let Ok(stream) = TcpStream::connect(local).await {
                return fetch(stream, "GET", path, Vec::new()).await.1;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("nothing listens at {local}");
    }

    /// Status and body of the status port's answer.
    pub(crate) async fn status(&self, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.proxy().status_address()).await.unwrap();
        fetch(stream, "GET", path, Vec::new()).await
    }

    pub(crate) fn controller(&self) -> Controller {
        Controller {
            address: self.proxy().admin_address(),
            leaf: self.authority.issue(&[CONTROLLER]),
            assumed: UnitSet::default(),
        }
    }

    /// Status and body of the admin port's answer to a client with this certificate; none where it has no say.
    pub(crate) async fn ask(
        &self,
        leaf: Option<Leaf>,
        (method, path): (&str, &str),
        body: Vec<u8>,
    ) -> Option<(u16, String)> {
        let stream = connect(self.proxy().admin_address(), leaf).await.ok()?;
        try_fetch(stream, method, path, body).await
    }

    /// Status and body of the status port's answer to this method.
    pub(crate) async fn status_by(&self, method: &str, path: &str) -> (u16, String) {
        let stream = TcpStream::connect(self.proxy().status_address()).await.unwrap();
        fetch(stream, method, path, Vec::new()).await
    }

    /// Whether the admin port answers a client with this certificate.
    pub(crate) async fn knock(&self, leaf: Option<Leaf>) -> bool {
        let Ok(mut stream) = connect(self.proxy().admin_address(), leaf).await else { return false };
        let request = b"GET /config HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        let asked = stream.write_all(request).await.is_ok();
        asked && stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200")
    }
}

/// A controller, as far as the proxy sees it.
pub(crate) struct Controller {
    address: SocketAddr,
    leaf: Leaf,
    assumed: UnitSet,
}

impl Controller {
    /// Says what it takes the proxy to hold.
    pub(crate) fn assume(&mut self, units: &UnitSet) {
        self.assumed = units.clone();
    }

    /// The push that leads from what it assumes to other units.
    pub(crate) fn difference(&self, units: &UnitSet, generation: u64) -> Push {
        let (put, delete) = units.diff(&self.assumed);
        Push {
            wire: WIRE_VERSION,
            proxy: "edge-1".to_owned(),
            version: Version { term: 1, generation },
            base: self.assumed.root(),
            root: units.root(),
            replace: Vec::new(),
            put,
            delete,
            keep: Vec::new(),
            traceparent: None,
        }
    }

    /// The push that answers a proxy which holds another base.
    pub(crate) fn buckets(&self, need: &NeedUnits, units: &UnitSet, generation: u64) -> Push {
        let hashes = units.bucket_hashes().into_iter().zip(&need.buckets);
        let differ = (0..=u8::MAX).zip(hashes).filter(|(_, (mine, theirs))| mine != *theirs);
        let replace: Vec<u8> = differ.map(|(bucket, _)| bucket).collect();
        let put = replace.iter().flat_map(|bucket| units.bucket(*bucket)).cloned().collect();
        Push { base: need.root, replace, put, delete: Vec::new(), ..self.difference(units, generation) }
    }

    pub(crate) async fn push(&mut self, units: &UnitSet, generation: u64) -> Reply {
        let reply = self.send(&self.difference(units, generation)).await;
        if let Reply::Ack(_) = reply {
            self.assume(units);
        }
        reply
    }

    /// Pushes until the proxy takes it or refuses it.
    pub(crate) async fn converge(&mut self, units: &UnitSet, generation: u64) -> Reply {
        let mut reply = self.push(units, generation).await;
        while let Reply::NeedUnits(need) = &reply {
            reply = self.send(&self.buckets(need, units, generation)).await;
        }
        reply
    }

    pub(crate) async fn send(&self, push: &Push) -> Reply {
        serde_json::from_slice(&self.post("/push", serde_json::to_vec(push).unwrap()).await).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: Vec<u8>) -> Vec<u8> {
        self.fetch("POST", path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Vec<u8> {
        self.fetch("GET", path, Vec::new()).await
    }

    async fn fetch(&self, method: &str, path: &str, body: Vec<u8>) -> Vec<u8> {
        let stream = connect(self.address, Some(self.leaf.clone())).await.unwrap();
        let (status, body) = fetch(stream, method, path, body).await;
        assert_eq!(status, 200, "{body}");
        body.into_bytes()
    }
}

async fn connect(
    address: SocketAddr,
    leaf: Option<Leaf>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain_der(), leaf.key_der()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("proxy").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The client's own trust is not what is tested here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn fetch<S>(stream: S, method: &str, path: &str, body: Vec<u8>) -> (u16, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    try_fetch(stream, method, path, body).await.unwrap()
}

async fn try_fetch<S>(stream: S, method: &str, path: &str, body: Vec<u8>) -> Option<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "shop.example.com")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8(body.to_vec()).unwrap()))
}
