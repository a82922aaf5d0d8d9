//! Portreeve's processes beside a cluster: controllers on machines of their own, a proxy in each node's namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::Cluster;
use cluster::namespace::Namespace;
use cluster::process::{Process, run};
use rustix::process::Signal;

/// Builds the command `portreeve` with this workspace's profile and says where it is.
pub fn build() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let is_profile = |folder: &&Path| !folder.ends_with("deps");
    let folder =
        program.ancestors().skip(1).find(is_profile).context("a program lies in target/<profile>")?;
    let folder = folder.to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(["build", "--locked", "--quiet"]);
    cargo.args(["--package", "portreeve", "--bin", "portreeve"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let target = folder.parent().context("a profile's folder lies in the target folder")?;
    run(cargo.arg("--target-dir").arg(target))?;
    Ok(folder.join("portreeve"))
}

/// Issues the identities of controllers and of these proxies: one folder for each in `folder`.
pub fn issue_certificates(program: &Path, folder: &Path, proxies: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("certificates").arg("--tls-dir").arg(folder);
    run(command.args(proxies.iter().flat_map(|proxy| ["--proxy", proxy]))).map(|_| ())
}

/// One process of Portreeve, which may be stopped and started any number of times.
#[derive(Debug)]
pub struct Portreeve {
    name: String,
    namespace: Namespace,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// What it finds at /etc/resolv.conf, where that is not what is there.
    name_servers: Option<PathBuf>,
    process: Mutex<Option<Process>>,
}

impl Portreeve {
    /// A process called `name` that will live in `namespace` and write its log into the folder `logs`.
    pub fn new(
        name: &str,
        namespace: Namespace,
        program: &Path,
        arguments: Vec<String>,
        logs: &Path,
    ) -> Self {
        Self {
            name: name.to_owned(),
            namespace,
            program: program.to_owned(),
            arguments,
            log: logs.join(format!("{name}.log")),
            name_servers: None,
            process: Mutex::new(None),
        }
    }

    /// The same with `file` in the place of /etc/resolv.conf.
    pub fn with_name_servers(self, file: &Path) -> Self {
        Self { name_servers: Some(file.to_owned()), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace that it lives in, and its loopback with it.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether it was started and not stopped since.
    pub fn is_started(&self) -> bool {
        self.process().is_some()
    }

    /// Starts it.
    pub fn start(&self, cluster: &Cluster) -> Result<()> {
        let mut process = self.process();
        if process.is_some() {
            bail!("{} runs already", self.name);
        }
        let mut command = self.command();
        command.args(&self.arguments).env("RUST_BACKTRACE", "1");
        *process = Some(cluster.start_process(&self.name, command, &self.log)?);
        Ok(())
    }

    /// Its program, in its place: each command becomes the next one, so that the id of the first is its own.
    fn command(&self) -> Command {
        let Some(file) = &self.name_servers else { return self.namespace.command(&self.program) };
        let mut command = self.namespace.command("unshare");
        command.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#]);
        command.arg(file).arg(&self.program);
        command
    }

    /// Kills it (SIGKILL).
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process();
        self.running(&mut process)?.kill()?;
        *process = None;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and says how it did.
    pub fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        let mut process = self.process();
        let status = self.running(&mut process)?.terminate(deadline)?;
        *process = None;
        Ok(status)
    }

    /// Stops it in its tracks (SIGSTOP).
    pub fn pause(&self) -> Result<()> {
        self.running(&mut self.process())?.signal(Signal::STOP)
    }

    /// Lets it go on after [`Portreeve::pause`].
    pub fn resume(&self) -> Result<()> {
        self.running(&mut self.process())?.signal(Signal::CONT)
    }

    /// How it ended by itself, if it did.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.running(&mut self.process())?.ended()
    }

    /// What it has logged so far.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running<'a>(&self, process: &'a mut MutexGuard<'_, Option<Process>>) -> Result<&'a mut Process> {
        process.as_mut().with_context(|| format!("{} does not run", self.name))
    }
}
