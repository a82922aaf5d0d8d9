//! A program that the bench started: pinned to a core, its log in a file, ended when dropped.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A running program.
pub(crate) struct Process {
    child: Child,
}

/// What a process has used until now.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// Processor time, user and system.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl Process {
    /// Starts a program on one core and waits until it answers on `port`.
    pub(crate) fn start(core: usize, command: &[String], port: u16, log: &Path) -> Result<Self> {
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = Command::new("taskset")
            .args(["-c", &core.to_string()])
            .args(command)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", command.join(" ")))?;
        let mut process = Self { child };
        let start = Instant::now();
        while TcpStream::connect_timeout(&loopback(port), Duration::from_millis(100)).is_err() {
            if let Some(status) = process.child.try_wait()? {
                bail!("it ended with {status}: {}", std::fs::read_to_string(log)?);
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("it does not listen on {port} after 10 s: {}", std::fs::read_to_string(log)?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// The process id: `taskset` becomes the program, so it is the program's.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has used until now, over all its threads.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        let fields: Vec<&str> =
            stat.rsplit(')').next().context("stat has a name")?.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let pages: u64 = fields[21].parse()?;
        // The kernel reports both in units that are fixed on x86-64 and arm64 Linux: 1/100 s and 4 KiB.
        Ok(Usage { cpu: Duration::from_millis(ticks * 10), resident: pages * 4096 })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Runs a command to its end and returns what it printed; an error holds what it complained of.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
