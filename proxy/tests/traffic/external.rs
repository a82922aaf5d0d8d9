//! Backends outside the cluster: names that a small name server on loopback answers for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use proxy::handover::turn::Turn;
use proxy::listen::drain::DrainSettings;
use proxy::metrics::text::render;
use proxy::resolver::ResolverSettings;
use proxy::resolver::dns::lookup;
use proxy::resolver::standing::{Answer, Family};
use proxy_config::backend::{BackendProtocol, BackendTls, BackendVerification, ExternalHost, Subject};
use proxy_config::name::UnitId;
use supervisor::Fault;
use tokio::time::timeout;

use crate::backend_tls::{Front, Issuer, NAME, dns, policy};
use crate::h2c;
use crate::http1::Client;
use crate::nameserver::{NameServer, Says};
use crate::origin::Origin;
use crate::rig::{PATIENCE, Rig, Site, name};

const HOST: &str = "api.example";
pub const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 31));
pub const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 35));
/// Nothing listens there.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 36));

/// Of a proxy that asks this name server, and takes loopback addresses from it.
pub fn settings(server: &NameServer) -> ResolverSettings {
    ResolverSettings { servers: vec![server.address], loopback_destinations: true }
}

/// A site whose backend is a port of a host.
fn site(rig: &Rig, host: &str, port: u16) -> Site {
    let mut site = Site::new(rig, (FIRST, port).into());
    site.origins.clear();
    site.external = Some(ExternalHost { hostname: host.to_owned(), port });
    site
}

async fn status(rig: &Rig) -> String {
    let connected = async {
        loop {
            match Client::connect(rig.http).await {
                Ok(client) => break client,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let mut client = timeout(PATIENCE, connected).await.expect("it listens");
    client.get("/seen").await.unwrap().head.split(' ').nth(1).unwrap().to_owned()
}

/// Asks until it is answered so.
async fn until(rig: &Rig, wanted: &str) {
    let asked = async {
        while status(rig).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("it is answered by {wanted}"));
}

/// A host that is answered from, by a name whose answer lives for a second.
async fn served() -> (NameServer, Origin, Rig) {
    let server = NameServer::start().await;
    server.say(HOST, Says::These(vec![FIRST], 1));
    let origin = Origin::start().await;
    let rig = Rig::resolving(settings(&server)).await;
    rig.hold(&site(&rig, HOST, origin.address.port())).await;
    until(&rig, "200").await;
    (server, origin, rig)
}

fn shows(rig: &Rig, line: &str) -> bool {
    render(rig.proxy.metrics()).lines().any(|shown| shown == line)
}

#[tokio::test]
async fn traffic_follows_a_name_when_its_answer_changes_and_no_request_fails() {
    let server = NameServer::start().await;
    server.say(HOST, Says::These(vec![FIRST], 1));
    let first = Origin::start().await;
    let second = Origin::at((SECOND, first.address.port()).into()).await;
    let rig = Rig::resolving(settings(&server)).await;
    rig.hold(&site(&rig, "API.example.", first.address.port())).await;
    until(&rig, "200").await;
    let (swaps, asked) = (rig.proxy.metrics().pushes.swaps.load(Relaxed), server.asked(HOST));
    server.asked_again(HOST, asked + 4).await;
    assert_eq!(rig.proxy.metrics().pushes.swaps.load(Relaxed), swaps, "the same answer changes nothing");
    assert_eq!(second.requests().len(), 0);
    server.say(HOST, Says::These(vec![SECOND], 1));
    let moved = async {
        while second.requests().is_empty() {
            assert_eq!(status(&rig).await, "200");
        }
    };
    timeout(PATIENCE, moved).await.expect("traffic follows");
    let before = first.requests().len();
    for _ in 0..4 {
        assert_eq!(status(&rig).await, "200");
    }
    assert_eq!(first.requests().len(), before, "what the name has lost gets nothing");
    assert!(second.requests()[0].contains("Host: a.example\r\n"), "the request's own host stays");
}

#[tokio::test]
async fn all_addresses_of_both_families_serve_and_one_that_is_dead_fails_nobody() {
    let server = NameServer::start().await;
    let six: IpAddr = "::1".parse().unwrap();
    let first = Origin::start().await;
    let sixth = Origin::at((six, first.address.port()).into()).await;
    server.say(HOST, Says::These(vec![FIRST, NOBODY, six], 60));
    let rig = Rig::resolving(settings(&server)).await;
    rig.hold(&site(&rig, HOST, first.address.port())).await;
    until(&rig, "200").await;
    for _ in 0..30 {
        assert_eq!(status(&rig).await, "200");
    }
    assert!(first.requests().len() > 5 && sixth.requests().len() > 5);
}

#[tokio::test]
async fn the_last_answer_goes_on_while_the_name_server_fails() {
    let (server, _origin, rig) = served().await;
    server.say(HOST, Says::Failure);
    let asked = server.asked(HOST);
    server.asked_again(HOST, asked + 4).await;
    let failed = async {
        while !render(rig.proxy.metrics()).contains("portreeve_dns_lookups_total{outcome=\"failed\"} 4") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, failed).await.expect("failures are counted");
    assert_eq!(status(&rig).await, "200");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unavailable_until_it_does() {
    let server = NameServer::start().await;
    let origin = Origin::start().await;
    let rig = Rig::resolving(settings(&server)).await;
    rig.hold(&site(&rig, HOST, origin.address.port())).await;
    assert_eq!(status(&rig).await, "503");
    server.asked_again(HOST, 2).await;
    assert_eq!(status(&rig).await, "503");
    server.say(HOST, Says::These(vec![FIRST], 60));
    until(&rig, "200").await;
}

#[tokio::test]
async fn what_is_known_of_a_name_outlives_the_config_store_and_nothing_else_is_asked_for() {
    let server = NameServer::start().await;
    let origin = Origin::start().await;
    let rig = Rig::resolving(settings(&server)).await;
    for host in ["before.example", HOST] {
        server.say(host, Says::These(vec![FIRST], 300));
        rig.hold(&site(&rig, host, origin.address.port())).await;
        until(&rig, "200").await;
    }
    assert!(shows(&rig, "portreeve_external_names 1"), "{}", render(rig.proxy.metrics()));
    let swaps = || rig.proxy.metrics().pushes.swaps.load(Relaxed);
    let before = swaps();
    rig.proxy.drill().strike(&["config-store"], Fault::Kill).await.unwrap();
    let compiled = async {
        while swaps() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, compiled).await.expect("all is compiled anew");
    for _ in 0..8 {
        assert_eq!(status(&rig).await, "200");
    }
}

#[tokio::test]
async fn an_answer_lives_for_no_longer_than_any_alias_on_the_way_to_it() {
    let server = NameServer::start().await;
    for [host, alias, addresses] in [[20, 300, 60], [300, 20, 60], [300, 60, 20]] {
        server.say(HOST, Says::Alias("first.example", host));
        server.say("first.example", Says::Alias("second.example", alias));
        server.say("second.example", Says::These(vec![FIRST], addresses));
        let ask = lookup(&[server.address]);
        let v4 = Family::Found(vec![FIRST], Duration::from_secs(20));
        assert_eq!(ask(HOST.into()).await, Answer { v4, v6: Family::None });
    }
}

#[tokio::test]
async fn addresses_of_this_node_and_of_its_clouds_metadata_are_never_dialled() {
    let server = NameServer::start().await;
    let origin = Origin::at(([127, 0, 0, 1], 0).into()).await;
    let addresses = ["169.254.169.254", "127.0.0.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "fd00:ec2::254"];
    server.say(HOST, Says::These(addresses.iter().map(|address| address.parse().unwrap()).collect(), 60));
    let settings = ResolverSettings { servers: vec![server.address], loopback_destinations: false };
    let rig = Rig::resolving(settings).await;
    rig.hold(&site(&rig, HOST, origin.address.port())).await;
    let refused = async {
        while !shows(&rig, "portreeve_dns_forbidden_addresses_total{reason=\"loopback\"} 2") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("they are counted");
    assert!(shows(&rig, "portreeve_dns_forbidden_addresses_total{reason=\"link_local\"} 2"));
    assert!(shows(&rig, "portreeve_dns_forbidden_addresses_total{reason=\"unspecified\"} 1"));
    for _ in 0..8 {
        assert_eq!(status(&rig).await, "503");
    }
    assert_eq!(origin.seen.accepted.load(Relaxed), 0);
}

#[tokio::test]
async fn a_name_that_is_rebound_to_this_node_loses_its_address_at_once() {
    let (server, _origin, rig) = served().await;
    server.say(HOST, Says::These(vec![[169, 254, 169, 254].into()], 1));
    until(&rig, "503").await;
}

#[tokio::test]
async fn what_is_no_name_of_a_host_outside_is_reported_and_an_error_of_ours() {
    let server = NameServer::start().await;
    for (host, reason) in [
        ("127.0.0.1", "`127.0.0.1` is an address: name a host"),
        (
            "cart.shop.svc.cluster.local",
            "`cart.shop.svc.cluster.local` is within a cluster: refer to its Service",
        ),
    ] {
        let rig = Rig::resolving(settings(&server)).await;
        let ack = rig.proxy.hold(site(&rig, host, 80).units()).await.unwrap();
        assert_eq!(ack.broken.len(), 1);
        assert_eq!(ack.broken[0].reason, reason);
        assert_eq!(status(&rig).await, "500");
    }
}

fn verified(hostname: &str, client_certificate: Option<&str>) -> Option<BackendTls> {
    let Some(BackendTls::Verified(of_ca)) = policy(Vec::new()) else { panic!("it verifies") };
    Some(BackendTls::Verified(BackendVerification {
        hostname: hostname.to_owned(),
        client_certificate: client_certificate.map(|secret| UnitId::certificate(&name(secret))),
        ..of_ca
    }))
}

/// A name that stands for a front, whose certificate is for [`NAME`].
async fn fronted(origin: SocketAddr, config: rustls::ServerConfig) -> (NameServer, Front, Rig) {
    let server = NameServer::start().await;
    let front = Front::of(origin, config).await;
    server.say(HOST, Says::These(vec![front.address.ip()], 60));
    let rig = Rig::resolving(settings(&server)).await;
    (server, front, rig)
}

#[tokio::test]
async fn a_host_proves_over_tls_that_it_has_the_name_that_is_wanted() {
    let (issuer, origin) = (Issuer::new(), Origin::start().await);
    let (_server, front, rig) = fronted(origin.address, issuer.issue(dns(NAME)).server()).await;
    let mut site = site(&rig, HOST, front.address.port());
    site.tls = verified(NAME, None);
    site.more.push(issuer.bundle("ca"));
    rig.hold(&site).await;
    until(&rig, "200").await;
    assert_eq!(front.told()[0].sni.as_deref(), Some(NAME));
    assert_eq!(front.told()[0].alpn.as_deref(), Some("http/1.1"));
    let served = origin.requests().len();
    site.tls = verified(HOST, None);
    rig.hold(&site).await;
    assert_eq!(status(&rig).await, "502", "the name that was resolved is not in the certificate");
    assert_eq!(origin.requests().len(), served);
    site.tls = match verified(HOST, None) {
        Some(BackendTls::Verified(policy)) => Some(BackendTls::Verified(BackendVerification {
            subjects: vec![Subject::Hostname(NAME.to_owned())],
            ..policy
        })),
        other => other,
    };
    rig.hold(&site).await;
    assert_eq!(status(&rig).await, "200");
}

#[tokio::test]
async fn a_host_is_shown_the_certificate_of_its_own_reference_and_never_the_gateways() {
    let (issuer, origin) = (Issuer::new(), Origin::start().await);
    let config = issuer.issue(dns(NAME)).server_asking(Some(&issuer));
    let (_server, front, rig) = fronted(origin.address, config).await;
    let [gateways, own, renewed] = [(); 3].map(|()| issuer.issue(Vec::new()));
    let mut site = site(&rig, HOST, front.address.port());
    site.more.push(issuer.bundle("ca"));
    site.more.extend(gateways.units("gateways"));
    site.shown = Some("gateways");
    site.tls = verified(NAME, Some("own"));
    let ack = rig.proxy.hold(site.units()).await.unwrap();
    assert_eq!(ack.broken.len(), 1, "there is no such certificate: {:?}", ack.broken);
    until(&rig, "500").await;
    for certificate in [own, renewed] {
        site.more.retain(|unit| !unit.id.as_str().ends_with("/own"));
        site.more.extend(certificate.units("own"));
        rig.hold(&site).await;
        until(&rig, "200").await;
        assert_eq!(front.told().last().unwrap().shown.as_ref(), Some(&certificate.chain[0].to_vec()));
    }
    site.tls = verified(NAME, None);
    rig.hold(&site).await;
    until(&rig, "502").await;
    assert!(front.told().iter().all(|told| told.shown.as_deref() != Some(&*gateways.chain[0])));
}

#[tokio::test]
async fn http2_to_a_host_is_agreed_on_or_nothing_is_sent() {
    let (issuer, origin) = (Issuer::new(), h2c::Origin::start().await);
    let mut without = issuer.issue(dns(NAME)).server();
    without.alpn_protocols.clear();
    for (config, wanted) in [(issuer.issue(dns(NAME)).server(), "200"), (without, "502")] {
        let (_server, front, rig) = fronted(origin.address, config).await;
        let mut site = site(&rig, HOST, front.address.port());
        (site.tls, site.protocol) = (verified(NAME, None), BackendProtocol::H2c);
        site.more.push(issuer.bundle("ca"));
        rig.hold(&site).await;
        until(&rig, wanted).await;
        // What ends a handshake may be read later than the answer that it is refused for.
        let told = async {
            while front.told().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, told).await.expect("it tells");
        assert_eq!(front.told()[0].alpn.as_deref(), (wanted == "200").then_some("h2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_knows_the_addresses_that_the_one_before_knew_though_the_name_server_is_dead() {
    let server = NameServer::start().await;
    server.say(HOST, Says::These(vec![FIRST], 60));
    let origin = Origin::start().await;
    let drain = DrainSettings { accept_for: PATIENCE, finish_within: PATIENCE };
    let rig = Arc::new(Rig::first_resolving(drain, settings(&server)).await);
    rig.hold(&site(&rig, HOST, origin.address.port())).await;
    until(&rig, "200").await;
    server.say(HOST, Says::Nothing);
    let next = rig.successor(drain).await;
    rig.proxy.drain().await.unwrap();
    for _ in 0..8 {
        assert_eq!(status(&next).await, "200");
    }
    assert_eq!(*next.proxy.turn().borrow(), Turn::Ours);
    // Nobody hands over to the next one: it begins with what is on disk, and asks.
    next.proxy.stop().await.unwrap();
    server.say(HOST, Says::These(vec![FIRST], 60));
    let third = next.successor(drain).await;
    let listens = async { while Client::connect(third.http).await.is_err() {} };
    timeout(PATIENCE, listens).await.expect("it listens");
    until(&third, "200").await;
    third.proxy.stop().await.unwrap();
}
