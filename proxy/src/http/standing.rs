//! Owns what becomes of what is open when a configuration takes something away.
//!
//! Pure. Asked by the codecs for an idle connection or an exchange, only after a configuration that takes
//! something away was put in force. An endpoint that goes changes nothing here: what is under way at it
//! finishes.

use std::sync::Arc;

use crate::listen::context::Client;
use crate::table::Table;
use crate::table::clients::Clients;
use crate::table::l4::L4Route;
use crate::table::port::Chosen;
use crate::table::route::Routed;
use crate::table::slot::Slot;

/// How something open stands in the configuration in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is still served.
    Stays,
    /// Its listener or its route is gone: what is under way may finish, within a bound; nothing follows.
    Ends,
    /// Its hostname, or the grant that let its route send to its backend, is gone: it is cut.
    Cut,
}

/// How a connection stands: whether another request on it could be served.
pub fn of_connection(table: &Table, client: &Client) -> Standing {
    let serves = table.port(client.local).is_some_and(|port| {
        let is_secure = port.is_secure();
        let is_chosen = || port.chosen_by(client.sni.as_deref()).is_some_and(|now| is_let_in(client, &now));
        is_secure == client.secure && (!is_secure || is_chosen())
    });
    if serves { Standing::Stays } else { Standing::Ends }
}

/// Whether a client's handshake would have led to this, as far as it went.
fn is_let_in(client: &Client, now: &Chosen<'_>) -> bool {
    let is_validated = |asked: &Arc<Clients>| {
        client.validated.as_ref().is_some_and(|validated| validated.asks_the_same_as(asked))
    };
    Some(now.listener) == client.listener.as_ref() && !now.is_closed && now.clients.is_none_or(is_validated)
}

/// How an exchange stands that went to a share of a rule by this host.
pub fn of_exchange(
    table: &Table,
    client: &Client,
    (routed, share): (&Routed, usize),
    host: &[u8],
) -> Standing {
    if of_connection(table, client) != Standing::Stays {
        return Standing::Ends;
    }
    let Some(port) = table.port(client.local) else { return Standing::Ends };
    let Some(served) = port.served(host) else { return Standing::Ends };
    if served.is_empty() {
        return Standing::Cut;
    }
    let Some(route) = served.route(&routed.route.id) else { return Standing::Ends };
    let target = routed.rule().backends[share].target.as_ref().ok();
    let is_named =
        route.rules.iter().flat_map(|rule| &rule.backends).any(|share| share.target.as_ref().ok() == target);
    let lacks_grant = route.rules.iter().any(|rule| rule.lacks_grant);
    if lacks_grant && !is_named { Standing::Cut } else { Standing::Stays }
}

/// How a stream stands that was given to a backend of a route that knows nothing of HTTP.
pub fn of_stream(table: &Table, client: &Client, (route, slot): (&L4Route, Slot)) -> Standing {
    let chosen = table.port(client.local).and_then(|port| port.chosen_by(client.sni.as_deref()));
    let listened = chosen.filter(|chosen| Some(chosen.listener) == client.listener.as_ref());
    let Some(now) = listened.and_then(|chosen| chosen.route).filter(|now| now.id == route.id) else {
        return Standing::Ends;
    };
    let is_named = now.targets.iter().any(|target| target.as_ref().ok() == Some(&slot));
    if now.lacks_grant && !is_named { Standing::Cut } else { Standing::Stays }
}
