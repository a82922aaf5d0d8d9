//! Connections of the admin actor over TLS: the handshake, then the answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::accept::{CONNECTION_WITHIN, answer_for};
use crate::push::identity::{Identity, IdentityError};
use crate::tree::edges::Edges;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A port over TLS.
#[derive(Clone, Copy)]
pub(super) struct Port {
    /// What it is called in logs.
    pub(super) name: &'static str,
    /// Whom it asks for what in a handshake, under the controller's identity.
    pub(super) tls: fn(&Identity) -> Result<ServerConfig, IdentityError>,
}

impl Port {
    /// Serves one connection, under the identity as it is now: a new certificate serves from the next one on.
    pub(super) async fn serve(self, stream: TcpStream, peer: SocketAddr, edges: Edges, router: Router) {
        let Some(identity) = edges.identity.borrow().clone() else { return };
        let tls = match (self.tls)(&identity) {
            Ok(tls) => TlsAcceptor::from(Arc::new(tls)),
            Err(error) => {
                tracing::error!(%error, "the {} port has no identity that can be used", self.name);
                return;
            }
        };
        match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => answer_for(CONNECTION_WITHIN, stream, peer, router).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a handshake on the {} port failed", self.name),
            Err(_) => tracing::debug!(%peer, "a handshake on the {} port took too long", self.name),
        }
    }
}
