//! What stands for an operating system's process in the demonstration: a runtime of its own, which can be
//! killed with everything that runs on it.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// A process of the demonstration and the handle on what it runs.
pub(crate) struct Process<H> {
    /// How to talk to what runs in it.
    pub(crate) handle: H,
    runtime: Runtime,
}

impl<H: Send + 'static> Process<H> {
    /// Starts a process and waits until its tree stands.
    pub(crate) async fn start<E>(
        name: &str,
        tree: impl Future<Output = Result<H, E>> + Send + 'static,
    ) -> Result<Self>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        let started = runtime.spawn(tree).await;
        match started.context("its runtime ended").and_then(|tree| Ok(tree?)) {
            Ok(handle) => Ok(Self { handle, runtime }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error).with_context(|| format!("starting {name}"))
            }
        }
    }

    /// Ends it at once, as SIGKILL would: nothing in it gets to say goodbye.
    pub(crate) fn kill(self) {
        let Self { handle, runtime } = self;
        drop(handle);
        runtime.shutdown_background();
    }
}
