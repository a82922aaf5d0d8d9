//! Owns TLS to endpoints: what an endpoint must prove, what it is shown, and the handshake.
//!
//! A [`Peer`] is compiled once per policy and told from others by a digest of all that it asks for, so that
//! a swap finds again what it had: sessions to be resumed and connections are shared by equal ones and by
//! nobody else. Called by the compiler (peers) and by [`pool`](super::pool) (handshakes). Refuses to know
//! HTTP, but for the names in ALPN.
//! Source: GEP-1897, GEP-3155, RFC 8446, RFC 9525.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proxy_config::backend::{BackendVerification, Subject};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, version};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::warn;

use crate::table::authority::{Bundle, roots};
use crate::tcp::Tcp;

mod verify;

use verify::Verifier;

/// How long a handshake may take, once there is a connection.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Server names whose sessions are remembered for an endpoint: it has one.
const SESSIONS: usize = 1;

/// What is to be spoken inside, as ALPN names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1 (RFC 7301 section 6).
    Http1,
    /// HTTP/2 (RFC 9113 section 3.1).
    Http2,
    /// Whatever the client speaks: nothing is said of it.
    Stream,
}

impl Inside {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
            Self::Stream => Vec::new(),
        }
    }
}

/// The certificate that a Gateway shows to endpoints that ask for one.
pub struct Shown {
    key: Arc<CertifiedKey>,
    digest: [u8; 32],
}

impl Shown {
    /// A certificate with its key.
    pub fn new(key: Arc<CertifiedKey>) -> Self {
        let mut digest = Sha256::new();
        for certificate in &key.cert {
            digest.update(certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        Self { key, digest: digest.finalize().into() }
    }

    /// The certificate with its key.
    pub fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

/// Equal certificates are for the same key.
impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// Shows no key.
impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

/// Who may have signed the certificate of an endpoint.
#[derive(Clone, Debug)]
pub enum Authorities {
    /// Those of these bundles.
    Bundles(Vec<Arc<Bundle>>),
    /// Those that the system trusts.
    System(Arc<RootCertStore>),
}

/// Why endpoints can't be reached as a policy says.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The name can't be sent.
    #[error("`{0}` is no DNS name that a handshake can ask for")]
    Hostname(String),
    /// There is nobody to trust.
    #[error("none of the bundles of authorities can be used")]
    NoBundle,
    /// There is nobody to trust.
    #[error("the proxy's system has no authorities: install ca-certificates, or set SSL_CERT_FILE")]
    NoSystem,
    /// rustls refuses.
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
}

/// What endpoints must prove, and what they are shown.
pub struct Peer {
    digest: [u8; 32],
    name: ServerName<'static>,
    config: ClientConfig,
}

impl Peer {
    /// Compiles what a policy says.
    ///
    /// # Errors
    /// Where nothing could ever be verified by it.
    pub fn compile(policy: &BackendVerification, authorities: &Authorities) -> Result<Self, PeerError> {
        let name = ServerName::try_from(policy.hostname.clone())
            .ok()
            .filter(|name| matches!(name, ServerName::DnsName(_)))
            .ok_or_else(|| PeerError::Hostname(policy.hostname.clone()))?;
        let (trusted, pinned) = match authorities {
            Authorities::System(system) if system.is_empty() => return Err(PeerError::NoSystem),
            Authorities::System(system) => (Arc::clone(system), Vec::new()),
            Authorities::Bundles(bundles) if bundles.is_empty() => return Err(PeerError::NoBundle),
            Authorities::Bundles(bundles) => {
                (Arc::new(roots(bundles.iter().map(|bundle| &**bundle))), bundles.clone())
            }
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier::new(trusted, pinned, policy.subjects.as_slice().into(), algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(PeerError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { digest: digest(policy, authorities), name, config })
    }

    /// What tells a peer from others: its digest, before it is compiled.
    pub fn digest_of(policy: &BackendVerification, authorities: &Authorities) -> [u8; 32] {
        digest(policy, authorities)
    }

    /// The same, shown a certificate.
    #[must_use]
    pub fn showing(&self, shown: &Shown) -> Self {
        let mut config = self.config.clone();
        let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(shown.key.clone()));
        config.client_auth_cert_resolver = resolver;
        let mut digest = Sha256::new();
        digest.update(self.digest);
        digest.update(shown.digest);
        Self { digest: digest.finalize().into(), name: self.name.clone(), config }
    }

    /// The means for one endpoint: sessions are resumed at the endpoint that gave them.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Arc::new(config)
    }

    /// Makes a connection secure.
    ///
    /// # Errors
    /// Where the endpoint does not prove what it must, is too slow, or wants something else. HTTP/2 is spoken only
    /// where the endpoint has chosen it (RFC 9113 section 3.2).
    pub(super) async fn handshake(
        &self,
        config: &Arc<ClientConfig>,
        stream: Tcp,
        inside: Inside,
    ) -> io::Result<Box<TlsStream<Tcp>>> {
        let connector = TlsConnector::from(Arc::clone(config));
        let handshake = connector.with_alpn(inside.alpn()).connect(self.name.clone(), stream);
        let stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
        if inside == Inside::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("the endpoint does not choose HTTP/2 by ALPN"));
        }
        Ok(Box::new(stream))
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = URL_SAFE_NO_PAD.encode(&self.digest[..6]);
        f.debug_struct("Peer").field("name", &self.name).field("digest", &digest).finish_non_exhaustive()
    }
}

/// The authorities that the system trusts; what can't be read of them is left out.
pub(super) fn system_roots() -> Arc<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        warn!(%error, "an authority of the system can't be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
}

/// A digest of all that is verified. Every part is preceded by its kind and its length.
fn digest(policy: &BackendVerification, authorities: &Authorities) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut part = |kind: u8, bytes: &[u8]| {
        digest.update([kind]);
        digest.update(bytes.len().to_be_bytes());
        digest.update(bytes);
    };
    part(b'n', policy.hostname.as_bytes());
    for subject in &policy.subjects {
        match subject {
            Subject::Hostname(name) => part(b'h', name.as_bytes()),
            Subject::Uri(uri) => part(b'u', uri.as_bytes()),
        }
    }
    match authorities {
        Authorities::System(_) => part(b's', &[]),
        Authorities::Bundles(bundles) => bundles.iter().for_each(|bundle| part(b'b', bundle.digest())),
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests;
