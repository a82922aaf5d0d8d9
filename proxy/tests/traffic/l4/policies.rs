//! Streams to backends that a policy has reached over TLS: TLS that ends here is begun anew, TLS that is
//! passed on stays the client's own.

use proxy_config::backend::{BackendProtocol, BackendTls};
use proxy_config::listener::Protocol;
use proxy_config::name::UnitId;
use proxy_config::unit::{EncodedUnit, Unit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::tls::{asked, hold, tls};
use super::{Server, connect, encoded, line, listener, put, route, service, to};
use crate::backend_tls::{Front, Issuer, NAME, dns, policy};
use crate::rig::{PATIENCE, Rig, certificate};
use crate::tls::Trust;

/// A Service with a policy.
fn secured(endpoint: std::net::SocketAddr, tls: Option<BackendTls>) -> Vec<EncodedUnit> {
    let units = service("secured", &[endpoint], BackendProtocol::Http1);
    let unit = |unit: EncodedUnit| match unit.decode().unwrap() {
        Unit::Backend(mut backend) => {
            backend.tls = tls.clone();
            EncodedUnit::new(unit.id, &Unit::Backend(backend))
        }
        _ => unit,
    };
    units.into_iter().map(unit).collect()
}

#[tokio::test]
async fn tcp_is_carried_to_its_backend_over_tls() {
    let issuer = Issuer::new();
    let server = Server::start("secured").await;
    let front = Front::of(server.address, issuer.issue(dns(NAME)).server()).await;
    let rig = Rig::start(1).await;
    let mut units = secured(front.address, policy(Vec::new()));
    units.extend([issuer.bundle("ca"), encoded(listener("tcp", rig.http, Protocol::Tcp))]);
    units.push(route("a", 0, ("tcp", &[]), vec![to("secured", 1)]));
    put(&rig, units).await;
    let mut stream = connect(rig.http).await;
    assert_eq!(timeout(PATIENCE, line(&mut stream)).await.unwrap(), "secured");
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    assert_eq!(rest, b"hellobye");
    let told = front.told();
    assert_eq!((told[0].sni.as_deref(), told[0].alpn.as_deref()), (Some(NAME), None));
}

#[tokio::test]
async fn tls_that_ends_here_is_begun_anew_and_shows_the_certificate_of_its_gateway() {
    let issuer = Issuer::new();
    let server = Server::start("secured").await;
    let config = issuer.issue(dns(NAME)).server_asking(Some(&issuer));
    let front = Front::of(server.address, config).await;
    let rig = Rig::start(1).await;
    let shown = issuer.issue(Vec::new());
    let mut units = secured(front.address, policy(Vec::new()));
    units.extend(certificate("a.example.com"));
    units.extend(shown.units("shown"));
    units.push(issuer.bundle("ca"));
    let Unit::Listener(mut unit) = tls(&rig, "tls", "a.example.com", Some("a.example.com")).decode().unwrap()
    else {
        unreachable!("a listener")
    };
    unit.backend_certificate = Some(UnitId::certificate(&crate::rig::name("shown")));
    units.push(encoded(unit));
    units.push(route("a", 0, ("tls", &["a.example.com"]), vec![to("secured", 1)]));
    hold(&rig, units).await;
    let (_, greeting) = asked(&rig, "a.example.com").await.expect("a server");
    assert_eq!(greeting, "secured");
    assert_eq!(front.told()[0].sni.as_deref(), Some(NAME));
    assert_eq!(front.told()[0].shown.as_deref(), Some(shown.chain[0].as_ref()));
}

#[tokio::test]
async fn tls_that_is_passed_on_knows_no_policy_of_its_backend() {
    let issuer = Issuer::new();
    let server = Server::start("passed").await;
    let front = Front::of(server.address, issuer.issue(dns(NAME)).server()).await;
    let rig = Rig::start(1).await;
    for tls_of_backend in [policy(Vec::new()), Some(BackendTls::Invalid("no authority can be used".into()))] {
        let mut units = secured(front.address, tls_of_backend);
        units.push(issuer.bundle("ca"));
        units.push(tls(&rig, "tls", "a.example.com", None));
        units.push(route("a", 0, ("tls", &["a.example.com"]), vec![to("secured", 1)]));
        hold(&rig, units).await;
        let (_, greeting) = asked(&rig, "a.example.com").await.expect("a server");
        assert_eq!(greeting, "passed");
        assert_eq!(front.told().last().unwrap().sni.as_deref(), Some("a.example.com"), "the client's own");
    }
}

#[tokio::test]
async fn a_stream_to_what_proves_nothing_or_has_a_policy_of_no_use_is_closed() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let server = Server::start("secured").await;
    let front = Front::of(server.address, other.issue(dns(NAME)).server()).await;
    let rig = Rig::start(1).await;
    for tls_of_backend in [policy(Vec::new()), Some(BackendTls::Invalid("no authority can be used".into()))] {
        let mut units = secured(front.address, tls_of_backend);
        units.extend(certificate("a.example.com"));
        units.push(issuer.bundle("ca"));
        units.push(tls(&rig, "tls", "a.example.com", Some("a.example.com")));
        units.push(route("a", 0, ("tls", &["a.example.com"]), vec![to("secured", 1)]));
        hold(&rig, units).await;
        let mut stream = Trust.connect(rig.https, "a.example.com", &[]).await.unwrap();
        let mut read = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it ends");
        assert_eq!(read, b"");
    }
}
