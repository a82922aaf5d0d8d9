//! The programs that a cluster is made of, built from source once and kept in `~/.cache/portreeve/cluster-bin`.
//!
//! Each is kept beside the hash of what it was built from: the Go module's files, the version and the linker's flags. A
//! program with the right hash is not built again. Only one process builds at a time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::image;
use crate::process::run;

const MODULE: &str = env!("CARGO_MANIFEST_DIR");

/// Without these the API server calls itself v0.0.0-master, and clients misbehave.
const LINKER_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

/// Program and Go package; the API server first, for it brings nearly everything that the others share.
const PROGRAMS: [(&str, &str); 8] = [
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ("etcd", "./bin/etcd"),
    ("echo-basic", "sigs.k8s.io/gateway-api/conformance/echo-basic"),
];

/// What must be on the machine, and the Debian package that it is in.
const TOOLS: [(&str, &str); 12] = [
    ("go", "golang (or go.dev)"),
    ("gcc", "gcc libc6-dev"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("socat", "socat"),
    ("mount", "mount"),
];

/// The folder of the built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The path of the program called `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.folder.join("images")
    }
}

/// Builds what is missing or out of date; `progress` hears of each program that is built. Takes 6 minutes on 2 cores
/// the first time, and some milliseconds when everything is there.
pub fn build(progress: impl Fn(&str)) -> Result<Binaries> {
    require_tools()?;
    let home = std::env::home_dir().context("find the home folder")?;
    let binaries = Binaries { folder: home.join(".cache/portreeve/cluster-bin") };
    fs::create_dir_all(&binaries.folder)?;
    let lock = File::create(binaries.path(".lock"))?;
    lock.lock().context("wait for another build of the cluster's programs")?;
    let hash = hash()?;
    let mut built = false;
    for (name, package) in PROGRAMS {
        built |= build_unless_right(&binaries, name, &hash, &progress, |to| go_build(package, to))?;
    }
    built |= build_unless_right(&binaries, "pause", &hash, &progress, compile_pause)?;
    if built || image::archives(&binaries.images()).iter().any(|archive| !archive.exists()) {
        image::write_all(&binaries.folder, &binaries.images())?;
    }
    Ok(binaries)
}

fn build_unless_right(
    binaries: &Binaries,
    name: &str,
    hash: &str,
    progress: impl Fn(&str),
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<bool> {
    let (path, stamp) = (binaries.path(name), binaries.path(&format!(".{name}.built-from")));
    if path.exists() && fs::read_to_string(&stamp).is_ok_and(|was| was == hash) {
        return Ok(false);
    }
    progress(name);
    // A running program can't be written to, but can be replaced.
    let new = binaries.path(&format!(".{name}.new"));
    make(&new).with_context(|| format!("build {name}"))?;
    fs::rename(&new, &path)?;
    fs::write(stamp, hash)?;
    Ok(true)
}

fn go_build(package: &str, to: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(MODULE).env("CGO_ENABLED", "0").args([
        "build",
        "-trimpath",
        "-ldflags",
        LINKER_FLAGS,
        "-o",
    ]);
    run(go.arg(to).arg(package)).map(|_| ())
}

fn compile_pause(to: &Path) -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.current_dir(MODULE).args(["-Os", "-static", "-s", "-o"]);
    run(gcc.arg(to).arg("bin/pause/pause.c")).map(|_| ())
}

fn hash() -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum", "bin/etcd/main.go", "bin/pause/pause.c"] {
        hash.update(fs::read(Path::new(MODULE).join(file)).with_context(|| format!("read {file}"))?);
    }
    hash.update(LINKER_FLAGS);
    hash.update(run(Command::new("go").current_dir(MODULE).args(["env", "GOVERSION", "GOARCH"]))?);
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn require_tools() -> Result<()> {
    let folders =
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/go/bin"];
    let found = |tool: &str| folders.iter().any(|folder| Path::new(folder).join(tool).exists());
    let mut missing: Vec<_> =
        TOOLS.iter().filter(|(tool, _)| !found(tool)).map(|(_, package)| *package).collect();
    if !Path::new("/usr/lib/cni/bridge").exists() {
        missing.push("containernetworking-plugins");
    }
    missing.dedup();
    if !missing.is_empty() {
        bail!(
            "the cluster needs tools that are not here: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    Ok(())
}
