//! Who is served what, when the rule of its listener has changed since its handshake; how a backend is spoken to.

use std::borrow::Cow;
use std::net::IpAddr;

use proxy_config::listener::{ClientValidation, ClientValidationMode, Protocol};
use proxy_config::name::UnitId;
use proxy_config::route::PathMatch;
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};
use proxy_config::wire::Version;
use tokio::time::Instant;

use super::*;
use crate::metrics::Metrics;
use crate::table::compile::Compiler;
use crate::table::compile::tests::world::{backend, endpoints, listener, route, rule};
use crate::upstream::registry::Registry;

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Get;

impl RequestView for Get {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn host(&self) -> &[u8] {
        b"a.example"
    }
    fn path(&self) -> &[u8] {
        b"/"
    }
    fn query(&self) -> &[u8] {
        b""
    }
    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}

/// A listener of HTTPS that validates its clients like this, with a route.
fn table(mode: Option<ClientValidationMode>) -> (UnitId, Arc<Table>) {
    let (id, Unit::Listener(mut unit)) = listener("any", 443, None) else { unreachable!() };
    unit.protocol = Protocol::Https;
    unit.client_validation = mode.map(|mode| ClientValidation { authorities: Vec::new(), mode });
    let (route, to) = route("r", 0, &["any"], &[], vec![rule(PathMatch::Prefix("/".to_owned()), None)]);
    let units = [EncodedUnit::new(id.clone(), &Unit::Listener(unit)), EncodedUnit::new(route, &to)];
    let mut compiler = Compiler::new(NODE, Arc::new(Registry::default()), Metrics::new(1));
    let version = Version { term: 1, generation: 1 };
    (id, compiler.apply(&units, [], version, UnitSet::default().root()))
}

/// A client whose handshake this table has let in.
fn client((listener, table): &(UnitId, Arc<Table>)) -> Client {
    let local = (NODE, 443).into();
    let chosen = table.port(local).unwrap().chosen_by(None).unwrap();
    Client {
        peer: (NODE, 1).into(),
        local,
        secure: true,
        sni: None,
        listener: Some(listener.clone()),
        validated: chosen.clients.cloned(),
        accepted: Instant::now(),
    }
}

fn is_served(table: &Table, client: &Client) -> bool {
    match plan(table, &Get, client) {
        Planned::Routed(..) => true,
        Planned::Unrouted(reason) => {
            assert_eq!(reason, Reason::Misdirected);
            false
        }
    }
}

#[tokio::test]
async fn who_was_let_in_before_validation_began_is_served_nothing_of_what_needs_it() {
    use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};
    let (open, asking) = (table(None), table(Some(AllowInsecureFallback)));
    // Without any authority nobody can be validated.
    let closed = table(Some(AllowValidOnly));
    let (nobody, asked) = (client(&open), client(&asking));
    assert!(is_served(&open.1, &nobody) && is_served(&asking.1, &asked));
    assert!(!is_served(&asking.1, &nobody), "it was not asked");
    assert!(is_served(&open.1, &asked), "it has proven more than is asked");
    assert!(!is_served(&closed.1, &nobody) && !is_served(&closed.1, &asked), "nobody is let in");
}

/// How a route of this kind speaks to a backend that names no protocol.
fn spoken(kind: &str) -> BackendProtocol {
    let rules = vec![rule(PathMatch::Prefix("/".to_owned()), Some("b"))];
    let (id, Unit::Route(mut unit)) = route("r", 0, &["any"], &[], rules) else { unreachable!() };
    unit.kind = kind.into();
    let units =
        [listener("any", 80, None), (id, Unit::Route(unit)), backend("b"), endpoints("b", "b1", &[1])];
    let units = units.map(|(id, unit)| EncodedUnit::new(id, &unit));
    let mut compiler = Compiler::new(NODE, Arc::new(Registry::default()), Metrics::new(1));
    let version = Version { term: 1, generation: 1 };
    let table = compiler.apply(&units, [], version, UnitSet::default().root());
    let client = Client::in_clear((NODE, 1).into(), (NODE, 80).into(), Instant::now());
    let Planned::Routed(.., Plan::Forward(target)) = plan(&table, &Get, &client) else { panic!("a target") };
    target.protocol
}

#[tokio::test]
async fn a_backend_of_routes_of_both_kinds_is_spoken_to_as_each_needs() {
    assert_eq!(spoken("HTTPRoute"), BackendProtocol::Http1);
    assert_eq!(spoken("GRPCRoute"), BackendProtocol::H2c);
}
