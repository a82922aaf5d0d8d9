//! Clients that resume sessions, and what a rule is made of.

use std::net::SocketAddr;
use std::sync::Mutex;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::*;
use crate::listen::tls::{Certificates, HandshakeError, Terms, Tls, TlsSettings};

/// An authority, and what it has signed.
struct Signer {
    bundle: Arc<Bundle>,
    roots: Arc<RootCertStore>,
    issuer: Issuer<'static, KeyPair>,
}

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let unit = proxy_config::certificate::Authority { bundle: params.self_signed(&key).unwrap().pem() };
        let bundle = Arc::new(Bundle::compile(&unit).unwrap());
        let roots = Arc::new(roots([&*bundle]));
        Self { bundle, roots, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer);
        (certificate.unwrap().der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn clients(&self, mode: ClientValidationMode) -> Clients {
        let rule = ClientValidation { authorities: Vec::new(), mode };
        Clients::compile(&rule, vec![Arc::clone(&self.bundle)]).unwrap()
    }
}

/// One certificate for all names, and a rule that a test can change.
struct Site(Arc<CertifiedKey>, Mutex<Arc<Clients>>);

impl Certificates for Site {
    fn terms(&self, _: SocketAddr, _: Option<&str>) -> Option<Terms> {
        let clients = Some(self.1.lock().unwrap().clone());
        Some(Terms { certificate: self.0.clone(), http: true, clients })
    }

    fn tells_unknown_names(&self, _: SocketAddr) -> bool {
        true
    }
}

/// What a handshake comes to, on the side of the proxy.
async fn shake_hands(tls: &Tls, client: &Arc<ClientConfig>) -> Result<Option<HandshakeKind>, HandshakeError> {
    let (near, far) = duplex(64 * 1024);
    let name = ServerName::try_from("a.example").unwrap();
    let connect = TlsConnector::from(client.clone()).connect(name, near);
    let accept = async {
        let mut secured = tls.accept(far, "127.0.0.1:443".parse().unwrap(), Instant::now()).await?;
        // Tickets come with it.
        secured.stream.write_all(b"x").await.unwrap();
        Ok(secured.stream.get_ref().1.handshake_kind())
    };
    let (server, client) = tokio::join!(accept, connect);
    let _ = client.unwrap().read_u8().await;
    server
}

#[tokio::test]
async fn who_resumes_a_session_is_looked_at_again() {
    let (signer, other) = (Signer::new(), Signer::new());
    let (shown, key) = signer.sign("a.example");
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let strict = Arc::new(signer.clients(ClientValidationMode::AllowValidOnly));
    let site = Arc::new(Site(Arc::new(CertifiedKey::new(vec![shown], key)), Mutex::new(strict.clone())));
    let tls = Tls::new(site.clone(), TlsSettings::default()).unwrap();
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        *site.1.lock().unwrap() = strict.clone();
        let (leaf, key) = signer.sign("client");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let config = config.with_protocol_versions(versions).unwrap();
        let config = config.with_root_certificates(signer.roots.clone());
        let config = Arc::new(config.with_client_auth_cert(vec![leaf], key).unwrap());
        assert_eq!(shake_hands(&tls, &config).await.unwrap(), Some(HandshakeKind::Full));
        assert_eq!(shake_hands(&tls, &config).await.unwrap(), Some(HandshakeKind::Resumed));
        // As if the certificate had expired: the session is known, its certificate is not valid.
        let expired = other.clients(ClientValidationMode::AllowValidOnly);
        let expired = Clients { tickets: strict.tickets(), ..expired };
        *site.1.lock().unwrap() = Arc::new(expired);
        let error = shake_hands(&tls, &config).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Stale(_)), "{versions:?}: {error:?}");
    }
}

#[test]
fn it_is_the_same_while_its_rule_and_its_bundles_are() {
    let (signer, other) = (Signer::new(), Signer::new());
    let clients = signer.clients(ClientValidationMode::AllowValidOnly);
    let (rule, bundle) = (&clients.rule, &signer.bundle);
    assert!(clients.is_of(rule, std::slice::from_ref(bundle)));
    assert!(!clients.is_of(rule, std::slice::from_ref(&other.bundle)));
    assert!(!clients.is_of(rule, &[bundle.clone(), other.bundle.clone()]));
    let insecure = signer.clients(ClientValidationMode::AllowInsecureFallback);
    assert!(!clients.is_of(&insecure.rule, std::slice::from_ref(bundle)));
    assert!(!clients.asks_the_same_as(&insecure));
}

#[test]
fn clients_that_nobody_can_validate_are_an_error() {
    let rule = ClientValidation { authorities: Vec::new(), mode: ClientValidationMode::AllowValidOnly };
    assert!(Clients::compile(&rule, Vec::new()).unwrap_err().to_string().contains("none of the bundles"));
}
