//! TLS listeners: by server name to a backend that ends TLS, or ended here.

use std::net::SocketAddr;
use std::sync::Arc;

use proxy_config::backend::BackendProtocol;
use proxy_config::listener::Protocol;
use proxy_config::name::{HostPattern, UnitId};
use proxy_config::unit::EncodedUnit;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::{Server, connect, encoded, line, listener, put, route, service, to};
use crate::http1;
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site, certificate, name};
use crate::server::listen;
use crate::tls::{Trust, subject};

/// A server that ends TLS itself and then says its name.
pub(super) async fn secure_server(subject: &'static str) -> (SocketAddr, AbortOnDropHandle<()>) {
    secure_server_at(([127, 0, 0, 31], 0).into(), subject).await
}

pub(super) async fn secure_server_at(
    address: SocketAddr,
    subject: &'static str,
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let made = rcgen::generate_simple_self_signed([subject.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listen(address, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(format!("{subject}\n").as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await
}

/// A TLS listener for a hostname, passed through or ended here.
pub(super) fn tls(rig: &Rig, id: &str, hostname: &str, certificate: Option<&str>) -> EncodedUnit {
    let mut unit = listener(id, rig.https, Protocol::Tls);
    unit.hostname = (!hostname.is_empty()).then(|| HostPattern::new(hostname));
    unit.passthrough = certificate.is_none();
    unit.certificates = certificate.map(|subject| UnitId::certificate(&name(subject))).into_iter().collect();
    encoded(unit)
}

/// Puts units in force, and waits until it is listened for.
pub(super) async fn hold(rig: &Rig, units: Vec<EncodedUnit>) {
    put(rig, units).await;
    timeout(PATIENCE, connect(rig.https)).await.expect("it listens");
}

/// The name in the certificate that a client of a server name gets, and what the server says first.
pub(super) async fn asked(rig: &Rig, sni: &str) -> Option<(String, String)> {
    let connecting = timeout(PATIENCE, Trust.connect(rig.https, sni, &[]));
    let mut stream = connecting.await.expect("an answer or an end").ok()?;
    let subject = subject(&stream);
    Some((subject, timeout(PATIENCE, line(&mut stream)).await.expect("it speaks")))
}

/// What [`asked`] finds of a server that ends TLS itself.
pub(super) fn answer(name: &str) -> Option<(String, String)> {
    Some((format!("DNSName({name})"), name.to_owned()))
}

#[tokio::test]
async fn the_most_specific_server_name_decides_to_whom_tls_is_passed_on() {
    let (exact, _exact) = secure_server("exact.example.com").await;
    let (wild, _wild) = secure_server("wild.example.com").await;
    let rig = Rig::start(2).await;
    let mut units = service("exact", &[exact], BackendProtocol::Http1);
    units.extend(service("wild", &[wild], BackendProtocol::Http1));
    units.push(tls(&rig, "tls", "*.example.com", None));
    units.push(route("wild", 0, ("tls", &["*.example.com"]), vec![to("wild", 1)]));
    units.push(route("exact", 9, ("tls", &["a.example.com"]), vec![to("exact", 1)]));
    hold(&rig, units).await;
    assert_eq!(asked(&rig, "a.example.com").await, answer("exact.example.com"));
    assert_eq!(asked(&rig, "b.example.com").await, answer("wild.example.com"));
    assert_eq!(asked(&rig, "b.example.org").await, None, "no listener has the name");
    let error = Trust.connect(rig.https, "b.example.org", &[]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "closed, and no word of TLS: {error}");
}

#[tokio::test]
async fn a_hello_in_pieces_reaches_the_backend_whole() {
    let (address, _server) = secure_server("a.example.com").await;
    let rig = Rig::start(1).await;
    let mut units = service("a", &[address], BackendProtocol::Http1);
    units.push(tls(&rig, "tls", "", None));
    units.push(route("a", 0, ("tls", &["a.example.com"]), vec![to("a", 1)]));
    hold(&rig, units).await;
    let relay = TcpListener::bind("127.0.0.31:0").await.unwrap();
    let (slow, https) = (relay.local_addr().unwrap(), rig.https);
    let _relay = AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut near, _) = relay.accept().await.unwrap();
        let mut far = TcpStream::connect(https).await.unwrap();
        far.set_nodelay(true).unwrap();
        for _ in 0..200 {
            let byte = near.read_u8().await.unwrap();
            far.write_u8(byte).await.unwrap();
        }
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    }));
    let mut stream = timeout(PATIENCE, Trust.connect(slow, "a.example.com", &[])).await.unwrap().unwrap();
    assert_eq!(timeout(PATIENCE, line(&mut stream)).await.unwrap(), "a.example.com");
}

#[tokio::test]
async fn tls_that_ends_here_is_plain_at_the_backend_whatever_alpn_says() {
    let server = Server::start("plain").await;
    let rig = Rig::start(1).await;
    let mut units = service("plain", &[server.address], BackendProtocol::Http1);
    units.extend(certificate("a.example.com"));
    units.push(tls(&rig, "tls", "a.example.com", Some("a.example.com")));
    units.push(route("a", 0, ("tls", &["a.example.com"]), vec![to("plain", 1)]));
    hold(&rig, units).await;
    let connecting = Trust.connect(rig.https, "a.example.com", &[b"mqtt"]);
    let mut stream = timeout(PATIENCE, connecting).await.unwrap().unwrap();
    assert_eq!(timeout(PATIENCE, line(&mut stream)).await.unwrap(), "plain");
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    assert_eq!(rest, b"hellobye");
}

#[tokio::test]
async fn listeners_that_end_tls_pass_it_on_and_speak_http_share_a_port() {
    let (passed, _passed) = secure_server("passed.example.com").await;
    let (server, origin) = (Server::start("ended").await, Origin::start().await);
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.certificates = vec![("web.example.com", "web.example.com")];
    let mut units: Vec<EncodedUnit> = site.units().iter().cloned().collect();
    units.extend(service("passed", &[passed], BackendProtocol::Http1));
    units.extend(service("ended", &[server.address], BackendProtocol::Http1));
    units.extend(certificate("ended.example.com"));
    units.push(tls(&rig, "passed", "passed.example.com", None));
    units.push(tls(&rig, "ended", "ended.example.com", Some("ended.example.com")));
    units.push(route("passed", 0, ("passed", &["passed.example.com"]), vec![to("passed", 1)]));
    units.push(route("ended", 0, ("ended", &["ended.example.com"]), vec![to("ended", 1)]));
    hold(&rig, units).await;
    assert_eq!(asked(&rig, "passed.example.com").await, answer("passed.example.com"));
    let ended = asked(&rig, "ended.example.com").await.unwrap();
    assert_eq!(ended, ("DNSName(ended.example.com)".to_owned(), "ended".to_owned()));
    assert_eq!(asked(&rig, "other.example.com").await, None);
    let stream = Trust.connect(rig.https, "web.example.com", &[b"http/1.1"]).await.unwrap();
    let mut web = http1::Client::over(stream);
    let answer = web.ask(b"GET / HTTP/1.1\r\nHost: web.example.com\r\n\r\n").await.unwrap();
    assert!(answer.is_ok());
}
