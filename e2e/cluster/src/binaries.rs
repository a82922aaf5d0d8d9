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

/// Those of programs that are not Kubernetes.
const OTHER_LINKER_FLAGS: &str = "-s -w";

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

/// What they are made of, besides what go.sum names.
const SOURCES: [&str; 4] = ["go.mod", "go.sum", "bin/etcd/main.go", "bin/pause/pause.c"];

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

/// A program of another Go module, which a suite keeps beside those of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct GoProgram<'a> {
    /// What it is called.
    pub name: &'a str,
    /// The folder of its module.
    pub module: &'a str,
    /// What it is made of, besides the module's dependencies.
    pub sources: &'a [&'a str],
    /// What makes it: `["build", "./bin/name"]`, or `["test", "-c", "."]`.
    pub arguments: &'a [&'a str],
}

impl Binaries {
    /// Builds a program of another module, if it is missing or out of date, and says where it is.
    pub fn add(&self, program: &GoProgram<'_>, progress: impl Fn(&str)) -> Result<PathBuf> {
        let GoProgram { name, module, sources, arguments } = *program;
        let lock = File::create(self.path(".lock"))?;
        lock.lock().context("wait for another build of the cluster's programs")?;
        let (module, files) = (Path::new(module), ["go.mod", "go.sum"].iter().chain(sources).copied());
        let hash = hash(module, files, OTHER_LINKER_FLAGS)?;
        build_unless_right(self, name, &hash, progress, |to| go(module, arguments, OTHER_LINKER_FLAGS, to))?;
        Ok(self.path(name))
    }

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
    let hash = hash(Path::new(MODULE), SOURCES, LINKER_FLAGS)?;
    let mut built = false;
    for (name, package) in PROGRAMS {
        built |= build_unless_right(&binaries, name, &hash, &progress, |to| {
            go(Path::new(MODULE), &["build", package], LINKER_FLAGS, to)
        })?;
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

/// Runs `go` with these arguments, of which the last one is the package.
fn go(module: &Path, arguments: &[&str], linker_flags: &str, to: &Path) -> Result<()> {
    let (package, verb) = arguments.split_last().context("a package to build")?;
    let mut go = Command::new("go");
    go.current_dir(module).env("CGO_ENABLED", "0").args(verb);
    go.args(["-trimpath", "-ldflags", linker_flags, "-o"]).arg(to).arg(package);
    run(&mut go).map(|_| ())
}

fn compile_pause(to: &Path) -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.current_dir(MODULE).args(["-Os", "-static", "-s", "-o"]);
    run(gcc.arg(to).arg("bin/pause/pause.c")).map(|_| ())
}

fn hash<'a>(module: &Path, files: impl IntoIterator<Item = &'a str>, linker_flags: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(fs::read(module.join(file)).with_context(|| format!("read {file}"))?);
    }
    hash.update(linker_flags);
    hash.update(run(Command::new("go").current_dir(module).args(["env", "GOVERSION", "GOARCH"]))?);
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
