//! Traefik: how it is built from its published module, and its command line.
//! Called by `real.rs`, and by the story in `main.rs` to build it once.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use cluster::process::run;
use serde_json::Value;

use crate::objects::{HTTP, HTTPS};

/// The version that is measured.
const VERSION: &str = "v3.7.10";
/// The name by which classes know it.
pub(super) const CONTROLLER: &str = "traefik.io/gateway-controller";
/// A module that Traefik's own refers to and that is not published with it: places for other editions' fields.
const EXTENSION: [(&str, &str); 2] = [
    ("go.mod", "module github.com/traefik/traefik/dynamic/ext\n\ngo 1.26\n"),
    ("ext.go", "package ext\n\ntype HTTP struct{}\n\ntype Router struct{}\n"),
];

/// Builds it once, in a folder beside this program, which takes minutes.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("peer-traefik");
    let (source, program) = (folder.join(VERSION), folder.join(format!("traefik-{VERSION}")));
    if program.exists() {
        return Ok(program);
    }
    eprintln!("building Traefik {VERSION}");
    std::fs::create_dir_all(&folder)?;
    if !source.exists() {
        let module = format!("github.com/traefik/traefik/v3@{VERSION}");
        let answer =
            run(Command::new("go").args(["mod", "download", "-json", &module]).current_dir(&folder))?;
        let answer: Value = serde_json::from_str(&answer)?;
        let published = answer["Dir"].as_str().context("go names the folder of the module")?;
        run(Command::new("cp").args(["-r", "--no-preserve=mode", published]).arg(&source))?;
    }
    extend(&source.join("pkg/config/dynamic/ext"))?;
    run(Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(&program)
        .arg("./cmd/traefik")
        .env("CGO_ENABLED", "0")
        .current_dir(&source))?;
    Ok(program)
}

fn extend(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    EXTENSION.iter().try_for_each(|(name, text)| Ok(std::fs::write(folder.join(name), text)?))
}

/// The arguments of one that has no static configuration but these.
pub(super) fn arguments(address: Ipv4Addr, throttle: Option<Duration>) -> Vec<String> {
    let mut arguments = vec![
        format!("--entrypoints.http.address=:{HTTP}"),
        format!("--entrypoints.https.address=:{HTTPS}"),
        "--providers.kubernetesgateway=true".to_owned(),
        format!("--providers.kubernetesgateway.statusaddress.ip={address}"),
        "--global.checknewversion=false".to_owned(),
        "--global.sendanonymoususage=false".to_owned(),
        "--log.level=ERROR".to_owned(),
    ];
    arguments
        .extend(throttle.map(|time| format!("--providers.providersthrottleduration={}ms", time.as_millis())));
    arguments
}
