//! Asking a controller: TLS that accepts nobody but a controller, one request, one answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::header::{AUTHORIZATION, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use proxy_config::wire::Enrolled;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, RootCertStore,
    SignatureScheme, version,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::EnrolmentError;
use crate::admin::identity::{certificates, is_controller};

/// How long one controller may take.
const WITHIN: Duration = Duration::from_secs(5);
/// The largest answer, in bytes.
const ANSWER: usize = 1 << 20;

/// What the first controller says that says something.
pub(super) async fn any(
    controllers: &[String],
    authorities: &str,
    token: &str,
    request: String,
) -> Result<Enrolled, EnrolmentError> {
    let tls = client(authorities).map_err(|error| EnrolmentError::Refused(error.to_string()))?;
    let mut refusals = Vec::new();
    for controller in controllers {
        match timeout(WITHIN, one(controller, &tls, token, request.clone())).await {
            Ok(Ok(enrolled)) => return Ok(enrolled),
            Ok(Err(error)) => refusals.push(format!("{controller}: {error}")),
            Err(_) => refusals.push(format!("{controller}: no answer within {WITHIN:?}")),
        }
    }
    Err(EnrolmentError::Refused(refusals.join("; ")))
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn one(
    controller: &str,
    tls: &TlsConnector,
    token: &str,
    request: String,
) -> Result<Enrolled, Failure> {
    let stream = TcpStream::connect(controller).await?;
    // Nobody checks the name: who it is, the certificate's URI says.
    let name = ServerName::try_from("portreeve.invalid")?;
    let stream = tls.connect(name, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _driven = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/enrol")
        .header(HOST, controller)
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from(request))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let content = Limited::new(body, ANSWER).collect().await?.to_bytes();
    if head.status == StatusCode::OK {
        Ok(serde_json::from_slice(&content)?)
    } else {
        let said: String = String::from_utf8_lossy(&content).trim().chars().take(300).collect();
        Err(format!("{}: {said}", head.status).into())
    }
}

fn client(authorities: &str) -> Result<TlsConnector, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates("list of authorities", authorities)? {
        roots.add(authority)?;
    }
    let verifier = ControllersOnly { roots, provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts a server whose certificate comes from the authorities and speaks for controllers: the token must
/// reach nobody else.
#[derive(Debug)]
struct ControllersOnly {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ControllersOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if is_controller(leaf) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
