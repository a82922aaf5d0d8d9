//! The images of a cluster, written as docker archives: nothing is pulled from anywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::process::run;

/// The image of the process that holds a pod's namespaces.
pub(crate) const PAUSE: &str = "docker.io/local/pause:1";
/// The backends of the Gateway API conformance suite, under every tag by which it names them.
const ECHO_BASIC: [&str; 3] = [
    "registry.k8s.io/gateway-api/echo-basic:v1.5.1",
    "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.2",
    "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3",
];

/// Writes the archives of all images into `folder`, from the programs in `programs`.
pub(crate) fn write_all(programs: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    write(&programs.join("pause"), &[PAUSE], &folder.join("pause.tar"))?;
    write(&programs.join("echo-basic"), &ECHO_BASIC, &folder.join("echo-basic.tar"))
}

/// The archives that [`write_all`] wrote.
pub(crate) fn archives(folder: &Path) -> [PathBuf; 2] {
    [folder.join("pause.tar"), folder.join("echo-basic.tar")]
}

/// Writes an image whose one layer is `program`, at the root, as its entry point.
pub(crate) fn write(program: &Path, tags: &[&str], archive: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let (root, image) = (work.path().join("root"), work.path().join("image"));
    fs::create_dir_all(root.join("tmp"))?;
    fs::create_dir(&image)?;
    fs::copy(program, root.join(&*name))?;
    tar(&root, &image.join("layer.tar"))?;
    let layer = hex(&fs::read(image.join("layer.tar"))?);
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    fs::write(image.join("config.json"), config.to_string())?;
    let manifest = json!([{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]);
    fs::write(image.join("manifest.json"), manifest.to_string())?;
    tar(&image, archive)
}

fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let options = ["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"];
    let mut command = Command::new("tar");
    command.args(options).arg("--file").arg(archive).arg("--directory").arg(folder).arg(".");
    run(&mut command).map(|_| ())
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
