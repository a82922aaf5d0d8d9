//! Streams to hosts outside the cluster: to the address that a name has when a connection begins.

use std::fmt::Debug;
use std::time::Duration;

use proxy_config::backend::{Backend, BackendProtocol, Destination, ExternalHost};
use proxy_config::name::UnitId;
use proxy_config::unit::{EncodedUnit, Unit};
use tokio::time::timeout;

use super::tls::{answer, asked, secure_server, secure_server_at, tls};
use super::{Connected, Server, hold, put, route, to};
use crate::external::{FIRST, SECOND, settings};
use crate::nameserver::{NameServer, Says};
use crate::rig::{PATIENCE, Rig, name};

const HOST: &str = "db.example";

/// A proxy, and the name server that it asks, by which the host has the first address.
async fn resolving() -> (NameServer, Rig) {
    let server = NameServer::start().await;
    server.say(HOST, Says::These(vec![FIRST], 1));
    let rig = Rig::resolving(settings(&server)).await;
    (server, rig)
}

/// A port of the host, as the backend `host`.
fn host(port: u16) -> EncodedUnit {
    let destination = Destination::External(ExternalHost { hostname: HOST.to_owned(), port });
    let backend = Backend { destination, protocol: BackendProtocol::Http1, tls: None, traffic: None };
    EncodedUnit::new(UnitId::backend(&name("host"), 80), &Unit::Backend(backend))
}

/// Connects until this is found; from then on nothing else is.
async fn until<T: PartialEq + Debug>(connect: impl AsyncFn() -> T, wanted: T) {
    let connected = async {
        while connect().await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, connected).await.unwrap_or_else(|_| panic!("{wanted:?} is found"));
    for _ in 0..4 {
        assert_eq!(connect().await, wanted);
    }
}

#[tokio::test]
async fn new_connections_go_to_the_address_that_a_name_has_and_open_ones_stay() {
    let (nameserver, rig) = resolving().await;
    let first = Server::start("first").await;
    let port = first.address.port();
    let _second = Server::at((SECOND, port).into(), "second").await;
    hold(&rig, [host(port), route("route", 0, ("tcp", &[]), vec![to("host", 1)])]).await;
    until(async || Connected::to(rig.http).await.server, "first".to_owned()).await;
    let mut open = Connected::to(rig.http).await;
    nameserver.say(HOST, Says::These(vec![SECOND], 1));
    until(async || Connected::to(rig.http).await.server, "second".to_owned()).await;
    open.echo(b"still there").await;
    assert_eq!(open.server, "first");
}

#[tokio::test]
async fn tls_is_passed_on_to_the_address_that_a_name_has() {
    let (nameserver, rig) = resolving().await;
    let (first, _first) = secure_server("first.example.com").await;
    let _second = secure_server_at((SECOND, first.port()).into(), "second.example.com").await;
    let listener = tls(&rig, "tls", "", None);
    let route = route("route", 0, ("tls", &["a.example.com"]), vec![to("host", 1)]);
    put(&rig, [listener, route, host(first.port())]).await;
    until(async || asked(&rig, "a.example.com").await, answer("first.example.com")).await;
    nameserver.say(HOST, Says::These(vec![SECOND], 1));
    until(async || asked(&rig, "a.example.com").await, answer("second.example.com")).await;
}
