//! How a process of ours lives: its runtime, its log, the signals that end it.

use std::future::Future;
use std::process::ExitCode;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::logging::{self, Format};
use crate::settings::Values;

/// Reads how a process logs; problems are kept with the others.
pub(crate) fn logging(values: &mut Values) -> (Option<EnvFilter>, Option<Format>) {
    (values.get("log"), values.get("log-format"))
}

/// Starts logging and runs a process to its end.
///
/// # Errors
/// What the process ended with.
pub(crate) fn run(
    (filter, format): (Option<EnvFilter>, Option<Format>),
    process: impl Future<Output = Result<ExitCode>>,
) -> Result<ExitCode> {
    logging::start(format.unwrap_or(Format::Text), filter.unwrap_or_else(|| EnvFilter::new("info")))?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(process)
}

/// The signals that ask a process to end.
pub(crate) struct Ending {
    terminate: Signal,
    interrupt: Signal,
}

impl Ending {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the system refuses to.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits until the process is asked to end.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
