//! A network namespace by name: running commands in it and opening sockets in it from a process that lives elsewhere.
//! A socket belongs for ever to the namespace of the thread that made it, so a thread of its own is enough.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpListener, TcpStream};

/// A network namespace, by its name under /run/netns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace of this name, which need not exist yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Its name, as `ip netns` prints it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run `program` in this namespace, as the process that is started (nothing forks, so its id
    /// is the id of the program). `ip netns exec` would also remount /sys and hide the control groups.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread that has entered this namespace, and waits for it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let path = self.path();
                let file = File::open(&path).with_context(|| format!("open namespace {}", path.display()))?;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("enter namespace {} (are you root?)", self.name))?;
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Connects to `to` from within this namespace. Fails after `deadline`.
    pub async fn connect(&self, to: SocketAddr, deadline: Duration) -> Result<TcpStream> {
        let here = self.clone();
        let connect = move || {
            here.enter(|| std::net::TcpStream::connect_timeout(&to, deadline).map_err(Into::into))
                .with_context(|| format!("connect to {to} from {}", here.name))
        };
        let stream = tokio::task::spawn_blocking(connect).await??;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(TcpStream::from_std(stream)?)
    }

    /// Listens at `on` within this namespace.
    pub fn listen(&self, on: SocketAddr) -> Result<TcpListener> {
        let listener = self
            .enter(|| std::net::TcpListener::bind(on).map_err(Into::into))
            .with_context(|| format!("listen on {on} in {}", self.name))?;
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from_std(listener)?)
    }
}
