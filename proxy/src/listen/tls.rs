//! TLS that ends here: who may speak it, with which certificate, and how long a handshake may take.
//!
//! Owns the keys of the session tickets (one set per process, so that a swap of the configuration does not
//! end resumption; where clients are validated each rule has its own) and the rustls configuration. Called by a
//! worker for a connection of an HTTPS port. The certificate is looked up in the table of the moment of
//! the handshake, through [`Certificates`]. How many run at once is bounded with the connections, and not besides:
//! most of a handshake is waiting for its client, and those who never answer would take the place of all others.
//! Refuses to know HTTP, but for the names in ALPN.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, ServerConfig, ServerConnection, version};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::table::clients::Clients;

/// A fatal alert `unrecognized_name` (RFC 6066 section 3) as a TLS record that is not encrypted, for no key
/// has been agreed yet: type alert, version 3.3, length 2, level fatal, description 112.
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];
/// The name of HTTP/2 in ALPN (RFC 9113 section 3.1).
const H2: &[u8] = b"h2";
/// The name of HTTP/1.1 in ALPN (RFC 7301 section 6).
const HTTP_1_1: &[u8] = b"http/1.1";

/// Where certificates come from.
pub trait Certificates: Send + Sync {
    /// The terms for a server name on an address and port, in the configuration of this moment; `sni` is
    /// lower case.
    fn terms(&self, local: SocketAddr, sni: Option<&str>) -> Option<Terms>;

    /// Whether a client whose name nobody serves is told so by an alert. Where streams are told apart by
    /// name it is not: what ends there is nobody's TLS (Gateway API `TLSRoute`: the connection is closed).
    fn tells_unknown_names(&self, local: SocketAddr) -> bool;
}

/// On what terms a handshake is made.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The certificate that is shown.
    pub certificate: Arc<CertifiedKey>,
    /// Whether HTTP is spoken inside.
    pub http: bool,
    /// How the client is validated, where it is.
    pub clients: Option<Arc<Clients>>,
}

/// How long handshakes take.
#[derive(Clone, Copy, Debug)]
pub struct TlsSettings {
    /// From the accept to the end of the handshake.
    pub handshake_timeout: Duration,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(5) }
    }
}

/// Why a handshake did not come to an end.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// Neither a listener with that hostname nor one without.
    #[error("no listener serves the server name {name:?}")]
    UnknownName {
        /// The name that the client sent.
        name: Option<String>,
    },
    /// The client was too slow.
    #[error("the handshake did not end in time")]
    TimedOut,
    /// The client resumed a session, but would not be let in today.
    #[error("the certificate of the session that was resumed is not valid any more")]
    Stale(#[source] rustls::Error),
    /// TLS says why.
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

/// A connection whose handshake has ended.
#[derive(Debug)]
pub struct Secured<S> {
    /// What carries the plain text.
    pub stream: TlsStream<S>,
    /// The server name that the client asked for, lower case.
    pub sni: Option<Arc<str>>,
    /// What is spoken inside.
    pub protocol: Spoken,
    /// How the client was validated, where it was.
    pub validated: Option<Arc<Clients>>,
}

/// What is spoken inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/2, as was agreed on.
    Http2,
    /// HTTP/1.1.
    Http1,
    /// Whatever the backend understands.
    Stream,
}

/// What ends TLS; one per process, shared by all workers.
pub struct Tls {
    certificates: Arc<dyn Certificates>,
    base: ServerConfig,
    timeout: Duration,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// TLS 1.2 and 1.3 with fresh ticket keys.
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub fn new(certificates: Arc<dyn Certificates>, settings: TlsSettings) -> Result<Self, rustls::Error> {
        let tickets = aws_lc_rs::Ticketer::new()?;
        let base = server_config(tickets, None)?;
        Ok(Self { certificates, base, timeout: settings.handshake_timeout })
    }

    /// When the handshake of a connection that was accepted at `accepted` must have ended.
    pub fn deadline(&self, accepted: Instant) -> Instant {
        accepted + self.timeout
    }

    /// Does the handshake of a connection that was accepted at `accepted` on `local`.
    ///
    /// # Errors
    /// [`HandshakeError`]; the client has been told by an alert where it can be.
    pub async fn accept<S>(
        &self,
        stream: S,
        local: SocketAddr,
        accepted: Instant,
    ) -> Result<Secured<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = self.handshake(stream, local);
        timeout_at(self.deadline(accepted), handshake).await.unwrap_or(Err(HandshakeError::TimedOut))
    }

    async fn handshake<S>(&self, stream: S, local: SocketAddr) -> Result<Secured<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let mut start = acceptor.await.map_err(HandshakeError::Failed)?;
        let sni = start.client_hello().server_name().map(str::to_ascii_lowercase);
        let Some(terms) = self.certificates.terms(local, sni.as_deref()) else {
            // The connection ends either way, so a client that is gone already does not matter.
            if self.certificates.tells_unknown_names(local) {
                let _ = start.io.write_all(&UNRECOGNIZED_NAME).await;
            }
            let _ = start.io.shutdown().await;
            return Err(HandshakeError::UnknownName { name: sni });
        };
        let config = self.config(&terms).map_err(|error| HandshakeError::Failed(io::Error::other(error)))?;
        let stream = start.into_stream(Arc::new(config)).await.map_err(HandshakeError::Failed)?;
        if let Some(clients) = &terms.clients {
            check_resumed(clients, stream.get_ref().1)?;
        }
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(H2) => Spoken::Http2,
            _ if terms.http => Spoken::Http1,
            _ => Spoken::Stream,
        };
        Ok(Secured { stream, sni: sni.map(Into::into), protocol, validated: terms.clients })
    }

    /// What rustls is told for a handshake on these terms.
    fn config(&self, terms: &Terms) -> Result<ServerConfig, rustls::Error> {
        let mut config = match &terms.clients {
            None => self.base.clone(),
            Some(clients) => server_config(clients.tickets(), Some(clients.verifier()))?,
        };
        config.cert_resolver = Arc::new(Chosen(Arc::clone(&terms.certificate)));
        if !terms.http {
            config.alpn_protocols = Vec::new();
        }
        Ok(config)
    }
}

fn check_resumed(clients: &Clients, connection: &ServerConnection) -> Result<(), HandshakeError> {
    match connection.handshake_kind() {
        Some(HandshakeKind::Resumed) => clients.check_resumed(connection).map_err(HandshakeError::Stale),
        _ => Ok(()),
    }
}

fn server_config(
    tickets: Arc<dyn ProducesTickets>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(Arc::new(NotChosen));
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    config.ticketer = tickets;
    // Tickets carry all that resumption needs; nothing is kept per session.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// The certificate that was chosen for this one handshake.
#[derive(Debug)]
struct Chosen(Arc<CertifiedKey>);

impl ResolvesServerCert for Chosen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Stands in the configuration that each handshake copies.
#[derive(Debug)]
struct NotChosen;

impl ResolvesServerCert for NotChosen {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests;
