//! What a proxy is told at its start. Read once by the command line parser, or written by a test or
//! the demo; several proxies with different settings run in one process.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::admin::identity::TlsSource;
use crate::limits::Limits;
use crate::listen::drain::DrainSettings;
use crate::resolver::ResolverSettings;

/// All settings of a proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name that pushes are meant for: the pod's uid, or a name given by a person.
    pub identity: String,
    /// The address that listeners with `Address::Node` are bound to.
    pub node_address: IpAddr,
    /// Where pushes are taken (mutual TLS). Port 0: any free one.
    pub admin_bind: SocketAddr,
    /// Where health, metrics and the live tree are shown (plain, read-only). Port 0: any free one.
    pub status_bind: SocketAddr,
    /// A Unix socket that shows what the status port does; `None`: nowhere. Another proxy of the node may have
    /// the port, never this.
    pub status_socket: Option<PathBuf>,
    /// Certificate, key and authority of the admin port.
    pub tls: TlsSource,
    /// Where the last good configuration is kept, and where the next process of this node finds this one;
    /// `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// How many workers: threads that serve connections, fixed for the life of the process.
    pub workers: usize,
    /// What clients and endpoints are held to.
    pub limits: Limits,
    /// How a drain goes.
    pub drain: DrainSettings,
    /// How names of backends outside the cluster are resolved.
    pub resolver: ResolverSettings,
}

/// The number of workers for this machine: one per core that this process may use, by its affinity and
/// its cgroup's quota.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
