//! `portreeve certificates`: the identities of controllers and proxies outside of a cluster, issued by a CA
//! that is kept beside them. Run again before they expire: running processes re-read what changed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use actors::push::identity::{AUTHORITY_LIFE, Authority, Role, write_private};
use anyhow::{Context, Result};
use clap::ArgMatches;

use crate::cli;
use crate::settings::Values;

/// Issues the controller's identity and one for each proxy that is named.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut values = Values::read(matches, cli::CERTIFICATES);
    let folder: Option<PathBuf> = values.require("tls-dir");
    let hours: Option<u64> = values.get("hours");
    let proxies: Vec<String> = values.all("proxy");
    let (folder, hours) = values.into_problems().into_result((folder, hours))?;
    let (folder, hours) = (folder.unwrap_or_default(), hours.unwrap_or_default());
    let now = SystemTime::now();
    let authority = authority(&folder.join("ca"), now)?;
    let life = Duration::from_secs(hours * 3600);
    let issue = |role: &Role, name: &str| -> Result<()> {
        let folder = folder.join(name);
        authority.issue(role, now, life)?.write(&folder)?;
        println!("{}", folder.display());
        Ok(())
    };
    issue(&Role::Controller, "controller")?;
    for proxy in proxies {
        issue(&Role::Proxy(proxy.clone()), &format!("proxy-{proxy}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The CA of a folder; made at the first run.
fn authority(folder: &Path, now: SystemTime) -> Result<Authority> {
    let (chain, key) = (folder.join("ca.crt"), folder.join("ca.key"));
    if chain.exists() {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
        };
        return Ok(Authority::from_pem(&read(&chain)?, &read(&key)?)?);
    }
    let authority = Authority::generate(now, AUTHORITY_LIFE)?;
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for (path, text) in [(&key, &*authority.key_pem()), (&chain, authority.certificates())] {
        write_private(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(authority)
}
