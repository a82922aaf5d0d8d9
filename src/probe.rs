//! `portreeve probe`: asks one proxy of this machine over its own Unix socket, for probes by exec: while two
//! proxies of a node change places, a port would be answered by either.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ArgMatches;

use crate::cli;
use crate::settings::Values;

/// How long an answer may take: less than the probe of a Pod usually waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// Asks; success is an answer of 200.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut values = Values::read(matches, cli::PROBE);
    let socket: Option<PathBuf> = values.require("status-socket");
    let socket = values.into_problems().into_result(socket)?.unwrap_or_default();
    let check: &String = matches.get_one("check").expect("clap requires it");
    let answer = ask(&socket, check).with_context(|| format!("asking the proxy at {}", socket.display()))?;
    let (head, said) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    print!("{said}");
    let is_well = head.split(' ').nth(1) == Some("200");
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(socket: &PathBuf, check: &str) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    write!(stream, "GET /{check} HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
