//! The processes that this crate starts: recorded before anything else happens to them, so that they can be ended even
//! after whoever started them is gone, and never confused with a later process of the same id.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running process of ours, its output going to a file. It is killed and reaped when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command` in a process group of its own (a Ctrl-C must not end it before what guards it), with its
    /// output appended to `log`, and records it in the file `record`.
    pub fn start(name: &str, mut command: Command, log: &Path, record: &Path) -> Result<Self> {
        let output = append(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        let started = start_time(child.id())
            .with_context(|| format!("{name} was gone at once: see {}", log.display()))?;
        writeln!(append(record)?, "{} {started} {name}", child.id())?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// What it was called when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it runs (stopped counts as running), else how it ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends `signal`. The process is our child and not yet reaped, so the id is still its own.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has ended already: {status}", self.name);
        }
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM), waits at most `deadline`, then kills it; says how it ended.
    pub fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let until = Instant::now() + deadline;
        while Instant::now() < until {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()?;
        bail!("{} did not end within {deadline:?} of SIGTERM and was killed", self.name)
    }

    /// Lets it live on after this value, until it is taken down by what is recorded.
    pub(crate) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it is gone already, which is what is wanted.
        let _gone = self.kill();
    }
}

/// Runs `command` to its end and gives its output back; an error carries what it said.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}: {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// When a process started, in clock ticks since boot: with its id, this names it for ever (proc(5), field 22).
pub(crate) fn start_time(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19)?.parse().ok()
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}
