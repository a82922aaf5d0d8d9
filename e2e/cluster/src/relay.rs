//! The way from the host's loopback to the API server: accepts outside, dials inside the control plane's namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use crate::namespace::Namespace;

/// A relay that runs on a thread of its own until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it accepts, on loopback.
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Relay {
    /// Starts to relay to `to`, dialled from within `inside`.
    pub(crate) fn start(inside: Namespace, to: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("api-server-relay")
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        runtime.spawn(async move { serve(TcpListener::from_std(listener)?, inside, to).await });
        Ok(Self { address, runtime: Some(runtime) })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Its port is free when this returns. On a thread, since an asynchronous one may not block.
            let stop = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(1)));
            let _stopped = stop.join();
        }
    }
}

/// Relays every connection that `listener` accepts to `to`, dialled from within `inside`; one that can't be made is
/// closed, as a dead API server's would be.
pub async fn serve(listener: TcpListener, inside: Namespace, to: SocketAddr) -> Result<()> {
    loop {
        let (mut outside, _) = listener.accept().await?;
        let inside = inside.clone();
        tokio::spawn(async move {
            let mut within = inside.connect(to, Duration::from_secs(5)).await?;
            outside.set_nodelay(true)?;
            copy_bidirectional(&mut outside, &mut within).await?;
            anyhow::Ok(())
        });
    }
}
