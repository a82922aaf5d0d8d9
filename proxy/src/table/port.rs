//! Ports: what is served at one address and port, over all Gateways that share it.

use std::sync::Arc;

use proxy_config::listener::Protocol;
use proxy_config::name::UnitId;
use rustls::sign::CertifiedKey;

use super::certificate::ServerCertificate;
use super::clients::Clients;
use super::host::{Host, Hostnames, Hosts};
use super::l4::{L4Route, ServerNames};
use super::path::Paths;
use super::request::{Refusal, RequestView};
use super::route::{Route, Routed};
use crate::upstream::tls::Shown;

/// What is served at one address and port.
#[derive(Debug)]
pub struct Port {
    pub(super) protocol: Protocol,
    /// Places in `listeners` by host key. Shared with the table before where only routes changed.
    pub(super) hostnames: Arc<Hostnames>,
    pub(super) listeners: Vec<Arc<Listener>>,
    /// Whether any of them wants to know who its clients are.
    pub(super) validates: bool,
}

/// A listener: what one hostname of a port serves.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) id: UnitId,
    pub(super) protocol: Protocol,
    /// TLS ends at the backend.
    pub(super) passthrough: bool,
    /// The certificates that can be used, first one preferred.
    pub(super) certificates: Box<[Arc<ServerCertificate>]>,
    /// What backends over TLS are shown.
    pub(super) shown: Option<Arc<Shown>>,
    /// How clients are validated, where they are.
    pub(super) clients: Option<Arc<Clients>>,
    /// Nobody is let in: its clients are to be validated, and can't be.
    pub(super) is_closed: bool,
    pub(super) hosts: Hosts,
    /// What it serves where it knows nothing of HTTP.
    pub(super) names: ServerNames,
}

impl Listener {
    /// Whether it matters to it how a client was validated.
    pub(super) fn validates(&self) -> bool {
        self.is_closed || self.clients.is_some()
    }
}

/// What a connection meets, as its server name chose it.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'t> {
    /// The listener.
    pub listener: &'t UnitId,
    /// What the listener speaks.
    pub protocol: Protocol,
    /// TLS ends at the backend.
    pub passthrough: bool,
    /// How clients are validated, where they are.
    pub clients: Option<&'t Arc<Clients>>,
    /// Nobody is let in: clients are to be validated, and can't be.
    pub is_closed: bool,
    /// Who takes a stream of that name, where it is not HTTP.
    pub route: Option<&'t Arc<L4Route>>,
    /// What backends over TLS are shown.
    pub shown: Option<&'t Arc<Shown>>,
}

/// What one host of a port serves.
#[derive(Debug)]
pub struct Served<'t>(Vec<&'t Arc<Paths>>);

impl<'t> Served<'t> {
    /// Whether no route is attached to the host.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A route that is attached to the host.
    pub fn route(&self, id: &UnitId) -> Option<&'t Route> {
        self.0.iter().find_map(|paths| paths.of(id))
    }
}

impl Port {
    /// What is spoken here; [`Protocol::Tls`] where any listener speaks it, though others end HTTPS.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether a connection begins with a TLS handshake.
    pub fn is_secure(&self) -> bool {
        matches!(self.protocol, Protocol::Https | Protocol::Tls)
    }

    /// Whether it matters here how a client was validated.
    pub fn validates(&self) -> bool {
        self.validates
    }

    /// The certificate for a TLS handshake: that of the listener whose hostname covers the server name
    /// best, whatever names the certificate itself bears; of several, the first that covers the name.
    pub fn certificate(&self, sni: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = Host::new(sni.unwrap_or_default().as_bytes())?;
        let (_, listener) = self.listener(&host)?;
        let covering = listener.certificates.iter().find(|certificate| certificate.covers(&host));
        covering.or(listener.certificates.first()).map(|certificate| certificate.key())
    }

    /// The rule that takes a request. `sni` is the server name of its TLS handshake.
    ///
    /// Listener isolation: the listener whose hostname covers the host best takes it alone. Within it,
    /// hosts are tried most specific first.
    ///
    /// # Errors
    /// Where no rule takes it, or where its listener is not the one that the handshake chose.
    pub fn route<R: RequestView + ?Sized>(&self, request: &R, sni: Option<&str>) -> Result<Routed, Refusal> {
        let host = Host::new(request.host()).ok_or(Refusal::NotFound)?;
        let (place, listener) = self.listener(&host).ok_or(Refusal::NotFound)?;
        // Mostly the host is the name of the handshake, to the letter.
        if self.is_secure() && sni.is_none_or(|sni| sni.as_bytes() != host.as_bytes()) {
            let name = Host::new(sni.unwrap_or_default().as_bytes());
            let chosen = name.and_then(|name| self.listener(&name).map(|(chosen, _)| chosen));
            if chosen != Some(place) {
                return Err(Refusal::Misdirected);
            }
        }
        listener.hosts.find(&host, |paths| paths.route(request)).ok_or(Refusal::NotFound)
    }

    /// What the listener of a host shows to backends over TLS.
    pub fn shown(&self, host: &[u8]) -> Option<&Arc<Shown>> {
        self.listener(&Host::new(host)?)?.1.shown.as_ref()
    }

    /// What a handshake with this server name chooses; without TLS there is none.
    pub fn chosen_by(&self, sni: Option<&str>) -> Option<Chosen<'_>> {
        let name = Host::new(sni.unwrap_or_default().as_bytes())?;
        let (_, listener) = self.listener(&name)?;
        Some(Chosen {
            listener: &listener.id,
            protocol: listener.protocol,
            passthrough: listener.passthrough,
            clients: listener.clients.as_ref(),
            is_closed: listener.is_closed,
            route: listener.names.covering(&name),
            shown: listener.shown.as_ref(),
        })
    }

    /// What is served under a host; `None` where no listener covers it.
    pub fn served(&self, host: &[u8]) -> Option<Served<'_>> {
        let host = Host::new(host)?;
        let (_, listener) = self.listener(&host)?;
        Some(Served(listener.hosts.covering(&host).collect()))
    }

    #[inline]
    fn listener(&self, host: &Host<'_>) -> Option<(usize, &Listener)> {
        let place = self.hostnames.covering(host)?;
        Some((place, &self.listeners[place]))
    }
}
