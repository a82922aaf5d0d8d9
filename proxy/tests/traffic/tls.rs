//! TLS through the proxy: certificates by server name, changed under handshakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http1;
use crate::http2;
use crate::origin::Origin;
use crate::rig::{Rig, Site};

/// A client that takes any certificate: the tests look at which one it is.
#[derive(Debug, Default)]
pub struct Trust;

impl Trust {
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Self))
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

impl ServerCertVerifier for Trust {
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

/// The name in the certificate that the proxy showed.
pub fn subject(stream: &TlsStream<TcpStream>) -> String {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    names.value.general_names[0].to_string()
}

async fn rig(certificates: &[(&'static str, &'static str)], origin: &Origin) -> (Rig, Site) {
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.certificates = certificates.to_vec();
    rig.hold(&site).await;
    (rig, site)
}

const LISTENERS: [(&str, &str); 3] =
    [("shop.example", "shop.example"), ("*.wild.example", "wild.example"), ("", "any.example")];

#[tokio::test]
async fn the_listener_whose_hostname_covers_the_server_name_best_shows_its_certificate() {
    let origin = Origin::start().await;
    let (rig, _) = rig(&LISTENERS, &origin).await;
    for (name, shown) in [
        ("shop.example", "shop.example"),
        ("a.b.wild.example", "wild.example"),
        ("other.example", "any.example"),
    ] {
        let stream = Trust.connect(rig.https, name, &[]).await.unwrap();
        assert!(subject(&stream).contains(shown), "{name}: {}", subject(&stream));
    }
}

#[tokio::test]
async fn both_protocols_are_served_over_tls_and_the_origin_is_told() {
    let origin = Origin::start().await;
    let (rig, _) = rig(&LISTENERS, &origin).await;
    let stream = Trust.connect(rig.https, "a.example", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    http2::Client::over(stream).await.get("/").await.check(200, b"ok");
    let stream = Trust.connect(rig.https, "a.example", &[b"http/1.1"]).await.unwrap();
    let mut client = http1::Client::over(stream);
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().content, b"ok");
    }
    assert!(origin.requests().iter().all(|request| request.contains("X-Forwarded-Proto: https\r\n")));
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test]
async fn a_host_of_another_listener_than_the_handshakes_is_misdirected() {
    let origin = Origin::start().await;
    let (rig, _) = rig(&LISTENERS, &origin).await;
    let stream = Trust.connect(rig.https, "shop.example", &[b"h2"]).await.unwrap();
    let client = http2::Client::over(stream).await;
    let of = |host: &str| http::Request::get(format!("https://{host}/")).body(()).unwrap();
    let (response, _) = client.send(of("other.example"), true).await;
    http2::answer(response).await.unwrap().check(421, b"Misdirected Request\n");
    let (response, _) = client.send(of("shop.example"), true).await;
    http2::answer(response).await.unwrap().check(200, b"ok");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_name_that_no_listener_serves_is_told_so() {
    let origin = Origin::start().await;
    let (rig, _) = rig(&LISTENERS[..1], &origin).await;
    let error = Trust.connect(rig.https, "other.example", &[]).await.unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(*error, Error::AlertReceived(rustls::AlertDescription::UnrecognisedName));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_handshakes_and_none_fails() {
    let origin = Origin::start().await;
    let (rig, mut site) = rig(&[("a.example", "old.example")], &origin).await;
    let (address, is_over) = (rig.https, Arc::new(AtomicBool::new(false)));
    let over = is_over.clone();
    let handshakes = tokio::spawn(async move {
        let mut count = 0;
        while !over.load(Relaxed) {
            let stream = Trust.connect(address, "a.example", &[b"http/1.1"]).await.unwrap();
            let mut client = http1::Client::over(stream);
            let answer = client.get("/quiet").await.expect("an answer");
            assert!(answer.is_ok(), "{answer:?}");
            count += 1;
        }
        count
    });
    for round in 0..100 {
        let subject = if round % 2 == 0 { "new.example" } else { "old.example" };
        site.certificates = vec![("a.example", subject)];
        rig.hold(&site).await;
        let stream = Trust.connect(rig.https, "a.example", &[]).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap().len(), 1);
        assert!(self::subject(&stream).contains(subject), "the new one is shown at once");
    }
    is_over.store(true, Relaxed);
    assert!(handshakes.await.expect("no handshake fails") > 10);
}

#[tokio::test]
async fn a_connection_whose_handshake_chose_a_listener_that_is_gone_ends() {
    let origin = Origin::start().await;
    let (rig, mut site) = rig(&LISTENERS, &origin).await;
    let mut clients = Vec::new();
    for name in ["shop.example", "other.example"] {
        let mut client = http1::Client::over(Trust.connect(rig.https, name, &[]).await.unwrap());
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
        assert!(client.ask(request.as_bytes()).await.unwrap().is_ok());
        clients.push(client);
    }
    // The listener without a hostname covers its name now, with another certificate.
    site.certificates.remove(0);
    rig.hold(&site).await;
    assert!(clients[0].answer().await.is_none(), "it ends");
    let answer = clients[1].ask(b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n").await.unwrap();
    assert!(answer.is_ok());
}
