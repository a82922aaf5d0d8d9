//! `portreeve certificates`: the identities of controllers and proxies outside of a cluster, issued by a CA
//! that is kept beside them. Run again before they expire: running processes re-read what changed.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use actors::push::authority::{Authority, Lives};
use actors::push::credentials::NEXT_KEY;
use actors::push::identity::{Role, write_private};
use anyhow::{Context, Result};
use clap::ArgMatches;

use crate::cli;
use crate::settings::Values;

/// The certificates of the CA, the one that signs first.
const CHAIN: &str = "ca.crt";
/// Its private key.
const KEY: &str = "ca.key";

/// What may be said of how long an identity is valid: an authority lives for ten years, and is succeeded in its last one.
const HOURS: RangeInclusive<u64> = 1..=365 * 24;

/// Issues the controller's identity and one for each proxy that is named.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut values = Values::read(matches, cli::CERTIFICATES);
    let folder: Option<PathBuf> = values.require("tls-dir");
    let hours: Option<u64> = values.get("hours");
    let proxies: Vec<String> = values.all("proxy");
    let mut problems = values.into_problems();
    if hours.is_some_and(|hours| !HOURS.contains(&hours)) {
        problems.add("hours", format_args!("must be {} to {}, a year", HOURS.start(), HOURS.end()));
    }
    let (folder, hours) = problems.into_result((folder, hours))?;
    let (folder, hours) = (folder.unwrap_or_default(), hours.unwrap_or_default());
    let now = SystemTime::now();
    let life = Duration::from_secs(hours * 3600);
    let authority = authority(&folder.join("ca"), now, life)?;
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

/// The CA of a folder; made at the first run, and succeeded in good time by those that follow.
fn authority(folder: &Path, now: SystemTime, leaf: Duration) -> Result<Authority> {
    let lives = Lives { leaf, ..Lives::default() };
    let chain = folder.join(CHAIN);
    let authority = if chain.exists() {
        let read =
            |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()));
        let next = folder.join(NEXT_KEY);
        let next = next.exists().then(|| read(next)).transpose()?;
        let authority = Authority::from_pem(&read(chain)?, &read(folder.join(KEY))?, next.as_deref())?;
        let Some(authority) = authority.step(now, lives)? else { return Ok(authority) };
        authority
    } else {
        Authority::generate(now, lives.authority)?
    };
    write(folder, &authority)?;
    Ok(authority)
}

/// In an order that a crash may end anywhere: the certificate of a successor is there before its key signs.
fn write(folder: &Path, authority: &Authority) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let put = |name: &str, text: &str| {
        let path = folder.join(name);
        write_private(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    if let Some(next) = authority.next_key_pem() {
        put(NEXT_KEY, next)?;
        return put(CHAIN, authority.certificates());
    }
    put(KEY, authority.key_pem())?;
    put(CHAIN, authority.certificates())?;
    let next = folder.join(NEXT_KEY);
    if next.exists() {
        fs::remove_file(&next).with_context(|| format!("removing {}", next.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_of_a_folder_is_succeeded_by_the_runs_in_its_last_year() {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let folder = tempfile::tempdir().unwrap();
        let start = SystemTime::now();
        let run = |days: u32| {
            let authority = authority(folder.path(), start + DAY * days, DAY).unwrap();
            let waits = folder.path().join(NEXT_KEY).exists();
            (authority.key_pem().to_owned(), waits, authority.certificates().matches("BEGIN").count())
        };
        let (old, _, _) = run(0);
        assert_eq!(run(3000), (old.clone(), false, 1));
        assert_eq!(run(3300), (old.clone(), true, 2), "another is trusted and waits");
        assert_eq!(run(3301), (old.clone(), true, 2));
        let (new, waits, trusted) = run(3303);
        assert!(new != old && !waits && trusted == 2, "it signs");
        assert_eq!(run(3651), (new, false, 1), "the old one has ended");
    }
}
