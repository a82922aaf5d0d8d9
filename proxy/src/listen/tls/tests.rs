//! Handshakes: which certificate, how long.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::*;

/// Certificates by server name that a test can change.
#[derive(Default)]
struct ByName(Mutex<BTreeMap<Option<String>, Arc<CertifiedKey>>>);

impl ByName {
    fn put(&self, name: Option<&str>, subject: &str) {
        self.0.lock().unwrap().insert(name.map(Into::into), certificate(subject));
    }
}

impl Certificates for ByName {
    fn terms(&self, _: SocketAddr, sni: Option<&str>) -> Option<Terms> {
        let by_name = self.0.lock().unwrap();
        let certificate = by_name.get(&sni.map(Into::into)).or_else(|| by_name.get(&None)).cloned()?;
        Some(Terms { certificate, http: true, clients: None })
    }

    fn tells_unknown_names(&self, _: SocketAddr) -> bool {
        true
    }
}

fn certificate(subject: &str) -> Arc<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed([subject.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key))
}

/// Takes any certificate: the tests look at which one it is.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn client(versions: &[&'static rustls::SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    config
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];

struct Rig {
    certificates: Arc<ByName>,
    tls: Arc<Tls>,
}

type Outcome = Result<(tokio_rustls::client::TlsStream<DuplexStream>, Secured<DuplexStream>), Failure>;

#[derive(Debug)]
struct Failure {
    client: io::Error,
    server: HandshakeError,
}

impl Rig {
    fn new(settings: TlsSettings) -> Self {
        let certificates = Arc::new(ByName::default());
        let tls = Arc::new(Tls::new(certificates.clone(), settings).unwrap());
        Self { certificates, tls }
    }

    async fn connect(&self, config: &Arc<ClientConfig>, name: &str) -> Outcome {
        let (near, far) = duplex(64 * 1024);
        let local = "127.0.0.1:443".parse().unwrap();
        let accept = self.tls.accept(far, local, Instant::now());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connect = TlsConnector::from(config.clone()).connect(name, near);
        let (server, client) = tokio::join!(accept, connect);
        match (client, server) {
            (Ok(mut client), Ok(server)) => {
                // Session tickets come after the handshake; a look at the stream takes them in.
                let read = timeout_at(Instant::now(), client.read(&mut [0])).await;
                assert!(read.is_err(), "nothing was sent");
                Ok((client, server))
            }
            (client, server) => {
                let client = client.err().unwrap_or_else(|| io::Error::other("ended well"));
                Err(Failure { client, server: server.expect_err("the client failed") })
            }
        }
    }
}

fn subject(stream: &tokio_rustls::client::TlsStream<DuplexStream>) -> String {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    names.value.general_names[0].to_string()
}

#[tokio::test]
async fn the_certificate_follows_the_server_name_and_the_table_of_the_moment() {
    let rig = Rig::new(TlsSettings::default());
    rig.certificates.put(Some("shop.example.com"), "shop.example.com");
    rig.certificates.put(None, "fallback.example.com");
    for versions in [BOTH, &[&version::TLS12]] {
        let config = Arc::new(client(versions, &[]));
        let (stream, secured) = rig.connect(&config, "Shop.example.com").await.unwrap();
        assert!(subject(&stream).contains("shop.example.com"), "{}", subject(&stream));
        assert_eq!(secured.sni.as_deref(), Some("shop.example.com"));
        let (stream, _) = rig.connect(&config, "other.example.com").await.unwrap();
        assert!(subject(&stream).contains("fallback.example.com"));
    }
    rig.certificates.put(Some("shop.example.com"), "renewed.example.com");
    let (stream, _) = rig.connect(&Arc::new(client(BOTH, &[])), "shop.example.com").await.unwrap();
    assert!(subject(&stream).contains("renewed.example.com"));
}

#[tokio::test]
async fn an_unknown_name_is_told_so() {
    let rig = Rig::new(TlsSettings::default());
    rig.certificates.put(Some("shop.example.com"), "shop.example.com");
    let failure = rig.connect(&Arc::new(client(BOTH, &[])), "other.example.com").await.unwrap_err();
    assert!(
        matches!(failure.server, HandshakeError::UnknownName { name: Some(name) } if name == "other.example.com")
    );
    let error = failure.client.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::UnrecognisedName));
}

#[tokio::test]
async fn http2_is_agreed_on_by_alpn_only() {
    let rig = Rig::new(TlsSettings::default());
    rig.certificates.put(None, "any.example.com");
    for (offered, http2) in [(&[H2, HTTP_1_1][..], true), (&[HTTP_1_1], false), (&[], false)] {
        let (_, secured) = rig.connect(&Arc::new(client(BOTH, offered)), "a.example.com").await.unwrap();
        assert_eq!(secured.protocol == Spoken::Http2, http2, "{offered:?}");
    }
    let failure = rig.connect(&Arc::new(client(BOTH, &[b"spdy/1"])), "a.example.com").await.unwrap_err();
    let error = failure.client.get_ref().unwrap().downcast_ref::<rustls::Error>().unwrap();
    assert_eq!(*error, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[tokio::test]
async fn sessions_are_resumed_over_a_change_of_certificates_but_not_for_a_name_that_went_away() {
    let rig = Rig::new(TlsSettings::default());
    rig.certificates.put(Some("shop.example.com"), "shop.example.com");
    for versions in [BOTH, &[&version::TLS12]] {
        let config = Arc::new(client(versions, &[]));
        rig.connect(&config, "shop.example.com").await.unwrap();
        rig.certificates.put(Some("shop.example.com"), "renewed.example.com");
        let (stream, _) = rig.connect(&config, "shop.example.com").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "{versions:?}");
    }
    let config = Arc::new(client(BOTH, &[]));
    rig.connect(&config, "shop.example.com").await.unwrap();
    rig.certificates.0.lock().unwrap().clear();
    rig.connect(&config, "shop.example.com").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_cut_off() {
    let rig = Rig::new(TlsSettings::default());
    let begun = Instant::now();
    let (_near, silent) = duplex(64);
    let outcome = rig.tls.accept(silent, "127.0.0.1:443".parse().unwrap(), begun).await;
    assert!(matches!(outcome, Err(HandshakeError::TimedOut)));
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn those_who_stop_after_their_first_message_keep_nobody_waiting() {
    let rig = Rig::new(TlsSettings::default());
    rig.certificates.put(Some("shop.example.com"), "shop.example.com");
    let config = Arc::new(client(BOTH, &[]));
    let name = ServerName::try_from("shop.example.com").unwrap();
    let mut hello = Vec::<u8>::new();
    rustls::ClientConnection::new(config.clone(), name).unwrap().write_tls(&mut hello).unwrap();
    let (mut ends, mut handshakes) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(&hello).await.unwrap();
        ends.push(near);
        handshakes.push(rig.tls.accept(far, "127.0.0.1:443".parse().unwrap(), Instant::now()));
    }
    let mut stopped = std::pin::pin!(futures_util::future::join_all(handshakes));
    timeout_at(Instant::now() + Duration::from_secs(1), stopped.as_mut()).await.unwrap_err();
    tokio::select! {
        biased;
        _ = stopped => panic!("the others had to end first"),
        connected = rig.connect(&config, "shop.example.com") => drop(connected.unwrap()),
    }
}
