//! The API over HTTP, for kubectl, curl and other processes.
//!
//! Owns the listener and its connections. Called by the demo. It refuses TLS and authentication: it listens on loopback.

use std::{io, net::SocketAddr};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use crate::Sandbox;

/// A sandbox being served. Dropping it closes the listener and all connections.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig for it, in YAML.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: sandbox\n\
             clusters: [{{name: sandbox, cluster: {{server: \"http://{}\"}}}}]\n\
             users: [{{name: sandbox, user: {{}}}}]\n\
             contexts: [{{name: sandbox, context: {{cluster: sandbox, user: sandbox}}}}]\n",
            self.address
        )
    }
}

impl Sandbox {
    /// Serves the API over plain HTTP until the answer is dropped. Requests count as those of a client named `http`.
    ///
    /// # Errors
    /// When the address can not be bound.
    pub async fn serve(&self, address: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "sandbox API served");
        let task = tokio::spawn(accept(self.clone(), listener));
        Ok(Server { address, _task: AbortOnDropHandle::new(task) })
    }
}

async fn accept(sandbox: Sandbox, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let service = TowerToHyperService::new(sandbox.service("http"));
                    connections.spawn(async move {
                        let builder = auto::Builder::new(TokioExecutor::new());
                        let io = TokioIo::new(stream);
                        if let Err(error) = builder.serve_connection(io, service).await {
                            tracing::debug!(%peer, %error, "sandbox connection ended");
                        }
                    });
                }
                Err(error) => tracing::warn!(%error, "sandbox can not accept"),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
