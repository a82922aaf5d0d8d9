//! `portreeve standalone`: one proxy that serves manifests from files, and prints what an API server would
//! have been told of them. Files are watched; what is wrong in one is named, the rest goes on.

mod admission;
mod statuses;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::push::authority::Authority;
use actors::push::identity::Role;
use actors::tree::standalone::{Reader, Standalone};
use actors_core::translate::{self, AddressSource, Translation};
use anyhow::Result;
use clap::ArgMatches;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::listen::socket::connection_budget;
use proxy::settings::{Settings, default_workers};
use proxy::tree::Proxy;
use tracing::info;

use self::statuses::Statuses;
use crate::addresses::Bind;
use crate::cli;
use crate::runtime::{self, Ending};
use crate::settings::{Problems, Values};

/// The name of the one proxy.
const PROXY: &str = "standalone";

/// Of the identity of a port that nobody is told of: the process ends before.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the settings say.
struct Wanted {
    files: Vec<PathBuf>,
    address: IpAddr,
    status: SocketAddr,
    state_dir: Option<PathBuf>,
    workers: usize,
}

/// Serves from files.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut values = Values::read(matches, cli::STANDALONE);
    let logging = runtime::logging(&mut values);
    let wanted = wanted(values)?;
    runtime::run(logging, serve(wanted))
}

fn wanted(mut values: Values) -> Result<Wanted, Problems> {
    let files: Vec<PathBuf> = values.all("file");
    let address = values.get("address");
    let status = values.get("status-bind").map(|Bind(address)| address);
    let state_dir = values.get("state-dir");
    let workers: Option<usize> = values.get("workers");
    let mut problems = values.into_problems();
    if files.is_empty() {
        problems.add("file", "is needed: give --file PATH, a manifest or a folder of them");
    }
    problems.into_result(Wanted {
        files,
        address: address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        status: status.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into()),
        state_dir,
        workers: workers.filter(|workers| *workers > 0).unwrap_or_else(default_workers),
    })
}

/// Serves until a signal asks for the end, then drains; a second signal stops at once.
async fn serve(wanted: Wanted) -> Result<ExitCode> {
    let mut ending = Ending::new()?;
    let proxy = proxy::tree::run(proxy_settings(&wanted)?).await?;
    info!(status = %proxy.status_address(), "serving");
    let translate = translate::Settings {
        addresses: AddressSource::AsWritten { default: wanted.address },
        reserved_ports: Vec::new(),
        ..translate::Settings::default()
    };
    let mut reader = actors::tree::standalone::run(Standalone {
        paths: wanted.files,
        admit: admission::judge().await?,
        translate,
        proxy: (PROXY.to_owned(), SocketAddr::new(wanted.address, 0)),
    })
    .await?;
    tokio::select! {
        held = hold(&proxy, &mut reader) => held?,
        stopped = proxy.stopped() => stopped?,
        () = ending.asked() => info!("asked to end: draining; a second signal stops at once"),
    }
    reader.running.stop().await?;
    crate::proxy::drain(&proxy, &mut ending).await?;
    Ok(ExitCode::SUCCESS)
}

fn proxy_settings(wanted: &Wanted) -> Result<Settings> {
    let now = SystemTime::now();
    let issued = Authority::generate(now, LIFE)?.issue(&Role::Proxy(PROXY.to_owned()), now, LIFE)?;
    Ok(Settings {
        identity: PROXY.to_owned(),
        node_address: wanted.address,
        // Nobody holds an identity that it takes: what is served comes from files alone.
        admin_bind: (Ipv4Addr::LOCALHOST, 0).into(),
        status_bind: wanted.status,
        status_socket: None,
        tls: crate::proxies::held(issued),
        state_dir: wanted.state_dir.clone(),
        workers: wanted.workers,
        limits: Limits::new(connection_budget()),
        drain: DrainSettings { accept_for: Duration::ZERO, ..DrainSettings::default() },
        resolver: proxy::resolver::ResolverSettings::default(),
    })
}

/// Puts in force what the files say whenever it changes, and prints what is to be known.
async fn hold(proxy: &Proxy, reader: &mut Reader) -> Result<()> {
    let mut statuses = Statuses::new(PROXY);
    loop {
        let translation: Option<Arc<Translation>> = reader.translation.borrow_and_update().clone();
        statuses.faults(&reader.faults.borrow_and_update());
        if let Some(translation) = translation {
            let ack = proxy.hold(translation.units.clone()).await?;
            statuses.told(&translation, &ack);
        }
        tokio::select! {
            changed = reader.translation.changed() => changed?,
            changed = reader.faults.changed() => changed?,
            stopped = reader.running.stopped() => return Ok(stopped?),
        }
    }
}
