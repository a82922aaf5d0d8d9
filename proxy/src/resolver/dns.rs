//! Owns the questions to name servers.
//!
//! Called by the resolver alone. A name is asked for as it stands: no search domain, no hosts file, no cache of
//! answers, for what is known is kept elsewhere. Refuses to know what answers are good for.
//! Source: RFC 1035, RFC 3596, RFC 2308.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::timeout;

use super::names::Hostname;
use super::standing::{Answer, Family};

/// How long a name server may take before another one is asked, or the same again.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long all of that may take for one family.
const WITHIN: Duration = Duration::from_secs(8);
/// Questions that may be under way at one name server.
const MAX_UNDER_WAY: usize = 256;

/// How names are asked for.
pub type Lookup = Arc<dyn Fn(Hostname) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Asks these name servers; where there are none, those of the system.
pub fn lookup(servers: &[SocketAddr]) -> Lookup {
    let servers = Arc::new(Servers { chosen: servers.into(), made: Mutex::default() });
    Arc::new(move |name| {
        let servers = Arc::clone(&servers);
        async move {
            let (v4, v6) =
                tokio::join!(servers.ask(&name, RecordType::A), servers.ask(&name, RecordType::AAAA));
            if v4.failure().is_some() && v6.failure().is_some() {
                // The system's configuration may have changed: it is read again.
                servers.made().take();
            }
            Answer { v4, v6 }
        }
        .boxed()
    })
}

struct Servers {
    /// Empty: those of the system.
    chosen: Box<[SocketAddr]>,
    made: Mutex<Option<TokioResolver>>,
}

impl Servers {
    fn made(&self) -> MutexGuard<'_, Option<TokioResolver>> {
        // It is replaced whole, so a panic elsewhere does not make it unusable.
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolver(&self) -> Result<TokioResolver, NetError> {
        let mut made = self.made();
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        let provider = TokioRuntimeProvider::default();
        let mut builder = if self.chosen.is_empty() {
            TokioResolver::builder(provider)?
        } else {
            let servers = self.chosen.iter().map(|at| server(*at)).collect();
            TokioResolver::builder_with_config(ResolverConfig::from_name_servers(servers), provider)
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = options.timeout.min(ATTEMPT);
        options.max_active_requests = MAX_UNDER_WAY;
        Ok(made.insert(builder.build()?).clone())
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Family {
        let asked = async {
            let mut name = Name::from_ascii(name).map_err(NetError::from)?;
            name.set_fqdn(true);
            self.resolver()?.lookup(name, kind).await
        };
        match timeout(WITHIN, asked).await {
            Ok(Ok(found)) => {
                let addresses = found.answers().iter().filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                });
                let addresses: Vec<_> = addresses.collect();
                // An alias may change sooner than what it stands for.
                let life = found.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
                if addresses.is_empty() {
                    Family::None
                } else {
                    Family::Found(addresses, Duration::from_secs(life.into()))
                }
            }
            Ok(Err(error)) if error.is_no_records_found() => Family::None,
            Ok(Err(error)) => Family::Failed(error.to_string()),
            Err(_) => Family::Failed(format!("no answer within {WITHIN:?}")),
        }
    }
}

fn server(at: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = at.port();
        connection
    });
    NameServerConfig::new(at.ip(), true, connections.into())
}
