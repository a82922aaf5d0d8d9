//! `portreeve proxy`: serves traffic as the controllers say, until it is asked to end; then it drains.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::ArgMatches;
use proxy::admin::identity::TlsSource;
use proxy::enrolment::Enrolment;
use proxy::limits::Limits;
use proxy::listen::drain::DrainSettings;
use proxy::listen::socket::connection_budget;
use proxy::settings::{Settings, default_workers};
use proxy::tree::Proxy;
use supervisor::Stopped;
use tracing::info;

use crate::addresses::{Bind, Host};
use crate::cli;
use crate::runtime::{self, Ending};
use crate::settings::{Problems, Values};

/// Runs a proxy.
pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut values = Values::read(matches, cli::PROXY);
    let logging = runtime::logging(&mut values);
    let settings = settings(values)?;
    runtime::run(logging, serve(settings))
}

fn settings(mut values: Values) -> Result<Settings, Problems> {
    let identity: Option<String> = values.require("name");
    let node_address: Option<IpAddr> = values.require("node-address");
    let tls: Option<PathBuf> = values.require("tls-dir");
    let admin: Option<IpAddr> = values.get("admin-bind");
    let port: Option<u16> = values.get("admin-port");
    let status_bind: Option<Bind> = values.get("status-bind");
    let (state_dir, status_socket) = (values.get("state-dir"), values.get("status-socket"));
    let workers: Option<usize> = values.get("workers");
    let tls = tls.and_then(|folder| tls_source(&mut values, folder));
    let read = identity.zip(node_address).zip(tls).zip(port).zip(status_bind);
    let Some(((((identity, node_address), tls), port), status_bind)) =
        values.into_problems().into_result(read)?
    else {
        return Err(Problems::default());
    };
    Ok(Settings {
        identity,
        node_address,
        admin_bind: SocketAddr::new(admin.unwrap_or(node_address), port),
        status_bind: status_bind.0,
        status_socket,
        tls,
        state_dir,
        workers: workers.filter(|workers| *workers > 0).unwrap_or_else(default_workers),
        limits: Limits::new(connection_budget()),
        drain: DrainSettings::default(),
        resolver: proxy::resolver::ResolverSettings::default(),
    })
}

/// Whether the identity in `folder` is got from a controller, or put there by someone else.
fn tls_source(values: &mut Values, folder: PathBuf) -> Option<TlsSource> {
    let controllers: Vec<_> = values.all("enrol-at").into_iter().map(|Host(host)| host).collect();
    if controllers.is_empty() {
        return Some(TlsSource::Files(folder));
    }
    let (token, authorities) = (values.require("token-file"), values.require("ca-file"));
    Some(TlsSource::Enrolled(Enrolment { controllers, token: token?, authorities: authorities?, folder }))
}

/// Serves until a signal asks for the end, then drains; a second signal stops at once.
async fn serve(settings: Settings) -> Result<ExitCode> {
    let mut ending = Ending::new()?;
    let proxy = proxy::tree::run(settings).await?;
    info!(admin = %proxy.admin_address(), status = %proxy.status_address(), "serving");
    tokio::select! {
        stopped = proxy.stopped() => return stopped.map(|()| ExitCode::SUCCESS).map_err(Into::into),
        () = ending.asked() => info!("asked to end: draining; a second signal stops at once"),
    }
    drain(&proxy, &mut ending).await?;
    Ok(ExitCode::SUCCESS)
}

/// Drains a proxy that was asked to end; a second signal stops it at once.
pub(crate) async fn drain(proxy: &Proxy, ending: &mut Ending) -> Result<(), Stopped> {
    tokio::select! {
        drained = proxy.drain() => drained.map(drop),
        () = ending.asked() => proxy.stop().await,
    }
}
