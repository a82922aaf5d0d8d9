//! The compiler: from units that changed to the next table, at the cost of what depends on the change.
//!
//! Owns the decoded units and their compiled forms. Each stage keeps its own indices and says what
//! depends on it: certificates, authorities and routes touch listeners, listeners touch ports, endpoints touch
//! backends. A unit that can't be used is reported as broken and changes no other unit's answers.
//! Called by `config_store` only. No I/O and no clock; the endpoint registry is the one thing shared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use proxy_config::listener::Protocol;
use proxy_config::name::{UnitId, UnitKind};
use proxy_config::set::RootHash;
use proxy_config::unit::{EncodedUnit, Unit};
use proxy_config::wire::{Broken, Version};

use super::Table;
use crate::listen::socket::{Bind, Transport};
use crate::metrics::Metrics;
use crate::resolver::names::{Hostname, Known};
use crate::upstream::registry::Registry;

mod authorities;
mod backends;
mod certificates;
mod l4;
mod ports;
mod routes;

use authorities::AuthorityStage;
use backends::BackendStage;
use certificates::CertificateStage;
use l4::L4Stage;
use ports::PortStage;
use routes::RouteStage;

/// Units that can't be used, with the reason.
type Problems = BTreeMap<UnitId, String>;

/// The compiler. What it holds is always one whole configuration.
#[derive(Debug)]
pub struct Compiler {
    authorities: AuthorityStage,
    certificates: CertificateStage,
    backends: BackendStage,
    routes: RouteStage,
    streams: L4Stage,
    ports: PortStage,
    datagrams: PortStage,
    broken: Problems,
    table: Table,
}

impl Compiler {
    /// A compiler that holds nothing. `node_address` is where listeners of `Address::Node` are bound.
    pub fn new(node_address: IpAddr, registry: Arc<Registry>, metrics: Arc<Metrics>) -> Self {
        Self {
            authorities: AuthorityStage::default(),
            certificates: CertificateStage::default(),
            backends: BackendStage::new(registry),
            routes: RouteStage::new(metrics.clone()),
            streams: L4Stage::new(metrics),
            ports: PortStage::new(node_address),
            datagrams: PortStage::new(node_address),
            broken: Problems::default(),
            table: Table::default(),
        }
    }

    /// Applies what changed and gives the table that results.
    pub fn apply<'a>(
        &mut self,
        put: impl IntoIterator<Item = &'a EncodedUnit>,
        delete: impl IntoIterator<Item = &'a UnitId>,
        version: Version,
        root: RootHash,
    ) -> Arc<Table> {
        for id in delete {
            self.broken.remove(id);
            self.take(id, Ok(None));
        }
        for encoded in put {
            self.broken.remove(&encoded.id);
            let decoded = decode(encoded).inspect_err(|reason| {
                self.broken.insert(encoded.id.clone(), reason.clone());
            });
            let unit = decoded.map(Some).map_err(|_| Undecodable);
            if let Err(panic) = guarded(|| self.take(&encoded.id, unit)) {
                self.broken.insert(encoded.id.clone(), panic);
            }
        }
        self.table.version = version;
        self.table.root = root;
        self.rebuild()
    }

    /// Lets go of all endpoints (they are too old to be trusted), or takes them back.
    pub fn without_endpoints(&mut self, without: bool) -> Arc<Table> {
        self.backends.without_endpoints(without);
        self.rebuild()
    }

    /// Takes what is known of names outside the cluster; the table that results, where that touches a backend.
    pub fn resolve(&mut self, known: &Arc<Known>) -> Option<Arc<Table>> {
        self.backends.resolve(known).then(|| self.rebuild())
    }

    /// The names outside the cluster of backends that routes name.
    pub fn hostnames(&self) -> BTreeSet<Hostname> {
        self.backends.hostnames()
    }

    /// Whether endpoints are left out.
    pub fn is_without_endpoints(&self) -> bool {
        self.backends.is_without_endpoints()
    }

    /// Whether something that was served is not served any more, by the tables made since this was last
    /// asked: what is open must look whether it may go on.
    pub fn take_lost(&mut self) -> bool {
        // Sessions of datagrams look by themselves.
        let listeners = self.ports.take_lost();
        let streams = self.streams.take_lost();
        self.routes.take_lost() || streams || listeners
    }

    /// The units that can't be used, by id.
    pub fn broken(&self) -> impl Iterator<Item = Broken> {
        self.broken.iter().map(|(unit, reason)| Broken { unit: unit.clone(), reason: reason.clone() })
    }

    /// The listener units that are served at an address and port.
    pub fn listeners_at(&self, bind: Bind) -> impl Iterator<Item = &UnitId> {
        let stage = match bind.transport {
            Transport::Tcp => &self.ports,
            Transport::Udp => &self.datagrams,
        };
        stage.listeners_at(bind.address)
    }

    fn take(&mut self, id: &UnitId, unit: Result<Option<Unit>, Undecodable>) {
        match (id.kind(), unit) {
            (Some(UnitKind::Key), Ok(Some(Unit::Key(key)))) => self.certificates.put_key(id, Some(key)),
            (Some(UnitKind::Key), _) => self.certificates.put_key(id, None),
            (Some(UnitKind::Certificate), Ok(Some(Unit::Certificate(unit)))) => {
                self.certificates.put(id, unit);
            }
            (Some(UnitKind::Certificate), Ok(_)) => self.certificates.delete(id),
            (Some(UnitKind::Certificate), Err(Undecodable)) => self.certificates.keep_last_good(id),
            (Some(UnitKind::Endpoints), Ok(Some(Unit::Endpoints(slice)))) => {
                self.backends.put_slice(id, Some(slice));
            }
            (Some(UnitKind::Endpoints), _) => self.backends.put_slice(id, None),
            (Some(UnitKind::Backend), Ok(Some(Unit::Backend(unit)))) => self.backends.put(id, Some(unit)),
            (Some(UnitKind::Backend), _) => self.backends.put(id, None),
            (Some(UnitKind::Listener), unit) => self.put_listener(id, unit),
            (Some(UnitKind::Route), Ok(Some(Unit::Route(unit)))) => {
                self.streams.put(id, None, &mut self.backends);
                self.routes.put(id, Some(&unit), &mut self.backends, &mut self.broken);
            }
            (Some(UnitKind::Route), unit) => {
                let stream = match &unit {
                    Ok(Some(Unit::L4Route(unit))) => Some(unit),
                    _ => None,
                };
                self.routes.put(id, None, &mut self.backends, &mut self.broken);
                self.streams.put(id, stream, &mut self.backends);
            }
            (Some(UnitKind::Authority), Ok(Some(Unit::Authority(unit)))) => {
                self.authorities.put(id, &unit, &mut self.broken);
            }
            (Some(UnitKind::Authority), Ok(_)) => self.authorities.delete(id),
            // As with certificates, what it was last stays in force.
            (Some(UnitKind::Authority), Err(Undecodable)) | (None, _) => {}
        }
    }

    /// A listener is of one transport at a time, and gone from the other.
    fn put_listener(&mut self, id: &UnitId, unit: Result<Option<Unit>, Undecodable>) {
        let unit = match unit {
            Ok(Some(Unit::Listener(unit))) => Some(unit),
            _ => None,
        };
        let (datagrams, connections) = match unit {
            Some(unit) if unit.protocol == Protocol::Udp => (Some(unit), None),
            other => (None, other),
        };
        self.ports.put(id, connections);
        self.datagrams.put(id, datagrams);
    }

    fn rebuild(&mut self) -> Arc<Table> {
        let authorities = self.authorities.rebuild();
        let mut credentials = self.certificates.rebuild(&mut self.broken);
        let mut listeners = self.routes.rebuild();
        listeners.extend(self.streams.rebuild());
        credentials.extend(authorities);
        let held = backends::Credentials {
            authorities: &self.authorities,
            certificates: &self.certificates,
            renewed: &credentials,
        };
        self.backends.rebuild(&held, &mut self.table.backends, &mut self.broken);
        let context = ports::Context {
            authorities: &self.authorities,
            certificates: &self.certificates,
            routes: &self.routes,
            streams: &self.streams,
        };
        let (ports, datagrams) = (&mut self.table.ports, &mut self.table.datagrams);
        self.ports.rebuild(&credentials, &listeners, &context, ports, &mut self.broken);
        self.datagrams.rebuild(&credentials, &listeners, &context, datagrams, &mut self.broken);
        Arc::new(self.table.clone())
    }
}

/// The bytes are no unit; the reason is reported already.
#[derive(Clone, Copy, Debug)]
struct Undecodable;

/// Runs what works on one unit: a defect of ours that one unit meets must not stop the others.
fn guarded(work: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        format!("the proxy panicked over it: {text}")
    })
}

fn decode(encoded: &EncodedUnit) -> Result<Unit, String> {
    let Some(kind) = encoded.id.kind() else {
        return Err("this proxy knows no unit of that kind: bring it to the controller's version".to_owned());
    };
    let unit = encoded.decode().map_err(|error| format!("the unit can't be read: {error}"))?;
    let actual = match unit {
        Unit::Key(_) => UnitKind::Key,
        Unit::Certificate(_) => UnitKind::Certificate,
        Unit::Endpoints(_) => UnitKind::Endpoints,
        Unit::Backend(_) => UnitKind::Backend,
        Unit::Listener(_) => UnitKind::Listener,
        Unit::Route(_) | Unit::L4Route(_) => UnitKind::Route,
        Unit::Authority(_) => UnitKind::Authority,
    };
    if actual == kind { Ok(unit) } else { Err(format!("the unit is a {} by its content", actual.prefix())) }
}

/// What changed since the last rebuild.
type Dirty<T> = BTreeSet<T>;

/// Takes a unit out of an index.
fn leave<K: Ord>(index: &mut BTreeMap<K, BTreeSet<UnitId>>, key: &K, id: &UnitId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
