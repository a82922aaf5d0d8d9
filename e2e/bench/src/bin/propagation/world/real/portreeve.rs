//! How Portreeve's processes are started: the command lines.
//! Called by `real.rs`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use cluster::process::run;

use crate::world::ADMIN;

/// The command, beside this program.
pub(super) fn program() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("portreeve");
    ensure!(program.exists(), "{} is not there: cargo build --release -p portreeve", program.display());
    Ok(program)
}

/// Makes the certificates of the controllers and of these proxies in a folder.
pub(super) fn certificates(program: &Path, folder: &Path, proxies: &[String]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("certificates").arg("--tls-dir").arg(folder);
    run(command.args(proxies.iter().flat_map(|name| ["--proxy", name]))).map(drop)
}

/// The arguments of a proxy.
pub(super) fn proxy(name: &str, address: Ipv4Addr, folder: &Path) -> Vec<String> {
    vec![
        "proxy".to_owned(),
        format!("--name={name}"),
        format!("--node-address={address}"),
        format!("--tls-dir={}", folder.join(format!("proxy-{name}")).display()),
        format!("--state-dir={}", folder.join(format!("state-{name}")).display()),
        "--workers=1".to_owned(),
        "--log=warn".to_owned(),
    ]
}

/// The arguments of a controller that knows these proxies.
pub(super) fn controller(
    name: &str,
    kubeconfig: &Path,
    folder: &Path,
    proxies: &[(&String, Ipv4Addr)],
) -> Vec<String> {
    let mut arguments = vec![
        "controller".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--name={name}"),
        format!("--tls-dir={}", folder.join("controller").display()),
        "--log=warn".to_owned(),
    ];
    arguments.extend(proxies.iter().map(|(name, address)| format!("--proxy={name}={address}:{ADMIN}")));
    arguments
}
