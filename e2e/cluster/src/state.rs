//! What is on disk of a cluster: one folder under `/var/lib/portreeve/clusters`, from which it can be taken down by
//! anyone at any time, and the guard that does so when its owner dies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;
use crate::process::{run, start_time};

const CLUSTERS: &str = "/var/lib/portreeve/clusters";
const TEARDOWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/teardown");

/// The state folder of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    id: String,
    folder: PathBuf,
}

impl State {
    /// Makes the folder for a cluster called `id`, owned by this process if `owned`. An id in use is an error.
    pub(crate) fn create(id: &str, owned: bool) -> Result<Self> {
        if id.is_empty()
            || id.len() > 12
            || !id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        {
            bail!("cluster name {id:?}: use 1 to 12 lower-case letters and digits");
        }
        let state = Self { id: id.to_owned(), folder: Path::new(CLUSTERS).join(id) };
        fs::create_dir_all(CLUSTERS).with_context(|| format!("make {CLUSTERS} (a cluster needs root)"))?;
        fs::create_dir(&state.folder).with_context(|| {
            format!("there is a cluster {id:?} already: take it down or use another name")
        })?;
        for folder in ["logs", "pki"] {
            fs::create_dir(state.folder.join(folder))?;
        }
        let owner =
            if owned { format!("{} {}", std::process::id(), own_start_time()?) } else { String::new() };
        fs::write(state.path("owner"), owner)?;
        fs::write(state.path("processes"), "")?;
        // Last: a folder without it is not taken down.
        fs::write(state.path("boot"), boot()?)?;
        Ok(state)
    }

    /// The state of the cluster called `id`, if it is there.
    pub fn find(id: &str) -> Option<Self> {
        let folder = Path::new(CLUSTERS).join(id);
        folder.join("boot").exists().then(|| Self { id: id.to_owned(), folder })
    }

    /// A name that no other cluster of this machine has.
    pub(crate) fn fresh_id() -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("t{:x}{:05x}", std::process::id(), now.subsec_nanos() & 0xf_ffff)
    }

    /// The cluster's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A file or folder of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The log of the process called `name`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// The namespace of the machine called `name`.
    pub fn namespace(&self, name: &str) -> Namespace {
        Namespace::named(format!("pr-{}-{name}", self.id))
    }

    /// Takes the cluster down, now.
    pub fn tear_down(&self) -> Result<()> {
        run(Command::new(TEARDOWN).arg(&self.folder)).map(|_| ())
    }

    /// Starts what takes the cluster down when this process is gone or drops the guard.
    pub(crate) fn guard(&self) -> Result<Guard> {
        use std::os::unix::process::CommandExt;
        let guard = Command::new(TEARDOWN)
            .arg(&self.folder)
            .arg("--when-input-ends")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("start the guard of the cluster")?;
        Ok(Guard { guard })
    }

    /// Whether its owner died without taking it down.
    fn is_abandoned(&self) -> bool {
        let owner = fs::read_to_string(self.path("owner")).unwrap_or_default();
        let Some((process, started)) = owner.split_once(' ') else { return false };
        let rebooted =
            boot().is_ok_and(|boot| fs::read_to_string(self.path("boot")).is_ok_and(|was| was != boot));
        let now = process.parse().ok().and_then(start_time).map(|start| start.to_string());
        rebooted || now.as_deref() != Some(started)
    }
}

/// The other end of the pipe that the teardown waits on.
#[derive(Debug)]
pub(crate) struct Guard {
    guard: Child,
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        if let Err(error) = self.guard.wait() {
            tracing::warn!(%error, "could not wait for the cluster to be taken down");
        }
    }
}

/// Takes down every cluster whose owner died without doing so (its guard was killed too, or the machine went down).
pub fn sweep() -> Result<()> {
    let Ok(folders) = fs::read_dir(CLUSTERS) else { return Ok(()) };
    for folder in folders {
        let name = folder?.file_name();
        let Some(state) = name.to_str().and_then(State::find) else { continue };
        if state.is_abandoned() {
            tracing::info!(cluster = state.id(), "taking down a cluster that was left behind");
            state.tear_down()?;
        }
    }
    Ok(())
}

fn own_start_time() -> Result<u64> {
    start_time(std::process::id()).context("read the start time of this process")
}

fn boot() -> Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the id of this boot")
}
