//! Owns: TLS 1.3 between controllers and proxies, both ends authenticated by the URI of their certificate.
//! Called by the proxy clients (they dial) and by the admin actor (it accepts).
//! Refuses to know: where the certificates come from (`identity.rs`, `credentials.rs`).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::{Identity, IdentityError, Role, speaks_for};

/// What a controller dials a proxy with: only a proxy of exactly that role is spoken to.
///
/// # Errors
/// Where the identity can't be used for TLS.
pub fn client(identity: &Identity, peer: &Role) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Pinned { roots: Arc::new(identity.roots()?), uri: peer.uri(), provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain_der()?, identity.key_der()?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What a server accepts with: only peers of exactly that role are let in.
///
/// # Errors
/// Where the identity can't be used for TLS.
pub fn server(identity: &Identity, peer: &Role) -> Result<ServerConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(identity.roots()?), provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(OnlyRole { inner, uri: peer.uri() }))
        .with_single_cert(identity.chain_der()?, identity.key_der()?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What a server accepts with that asks for no certificate: who dials proves itself otherwise.
///
/// # Errors
/// Where the identity can't be used for TLS.
pub fn open_server(identity: &Identity) -> Result<ServerConfig, IdentityError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(identity.chain_der()?, identity.key_der()?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The server name that goes with [`client`]: it is sent to nobody's benefit and checked by nobody.
pub fn any_name() -> ServerName<'static> {
    ServerName::try_from("portreeve.invalid").expect("a constant that is a DNS name")
}

/// Accepts a server whose certificate is signed by an authority and speaks for one URI.
#[derive(Debug)]
struct Pinned {
    roots: Arc<RootCertStore>,
    uri: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if speaks_for(end_entity, &self.uri) {
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
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts a client whose certificate is signed by an authority and speaks for one URI.
#[derive(Debug)]
struct OnlyRole {
    inner: Arc<dyn ClientCertVerifier>,
    uri: String,
}

impl ClientCertVerifier for OnlyRole {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if speaks_for(end_entity, &self.uri) {
            Ok(verified)
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::super::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE, Lives};
    use super::*;

    /// Whether a byte crosses in both directions.
    async fn speak(client: ClientConfig, server: ServerConfig) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let server = async move {
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
            let byte = stream.read_u8().await?;
            stream.write_u8(byte).await?;
            stream.flush().await
        };
        let client = async move {
            let mut stream = TlsConnector::from(Arc::new(client)).connect(any_name(), near).await?;
            stream.write_u8(7).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        let (server, client) = tokio::join!(server, client);
        server.is_ok() && client.is_ok_and(|byte| byte == 7)
    }

    fn issue(authority: &Authority, role: &Role) -> Identity {
        authority.issue(role, SystemTime::now(), LEAF_LIFE).unwrap()
    }

    fn authority() -> Authority {
        Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap()
    }

    #[tokio::test]
    async fn only_the_meant_proxy_and_only_a_controller_are_spoken_to() {
        let ours = authority();
        let proxy = Role::Proxy("a".into());
        let controller = issue(&ours, &Role::Controller);
        let served = issue(&ours, &proxy);
        let accept = || server(&served, &Role::Controller).unwrap();
        assert!(speak(client(&controller, &proxy).unwrap(), accept()).await);
        assert!(!speak(client(&controller, &Role::Proxy("b".into())).unwrap(), accept()).await);
        assert!(!speak(client(&issue(&ours, &Role::Proxy("c".into())), &proxy).unwrap(), accept()).await);
        let stranger = issue(&authority(), &Role::Controller);
        assert!(!speak(client(&stranger, &proxy).unwrap(), accept()).await);
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused() {
        let ours = authority();
        let proxy = Role::Proxy("a".into());
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        let expired = ours.issue(&Role::Controller, long_ago, Duration::from_secs(3600)).unwrap();
        let accept = server(&issue(&ours, &proxy), &Role::Controller).unwrap();
        assert!(!speak(client(&expired, &proxy).unwrap(), accept).await);
    }

    #[tokio::test]
    async fn while_the_authority_changes_old_and_new_certificates_are_both_good() {
        let lives = Lives { authority: Duration::from_secs(3600), leaf: Duration::from_secs(10) };
        let now = SystemTime::now();
        let old = Authority::generate(now - Duration::from_secs(3500), lives.authority).unwrap();
        let announced = old.step(now - Duration::from_secs(50), lives).unwrap().unwrap();
        let new = announced.step(now, lives).unwrap().unwrap();
        assert_ne!(new.key_pem(), announced.key_pem());
        let proxy = Role::Proxy("a".into());
        for (dials, accepts) in [(&announced, &new), (&new, &announced)] {
            let accept = server(&issue(accepts, &proxy), &Role::Controller).unwrap();
            assert!(speak(client(&issue(dials, &Role::Controller), &proxy).unwrap(), accept).await);
        }
        // What the announcement is for.
        let accept = server(&issue(&old, &proxy), &Role::Controller).unwrap();
        assert!(!speak(client(&issue(&new, &Role::Controller), &proxy).unwrap(), accept).await);
    }
}
