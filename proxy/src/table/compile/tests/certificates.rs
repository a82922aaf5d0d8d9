//! Certificates: by listener, by name, and the last good one; and requests that meet the wrong listener.

use proxy_config::certificate::{Certificate, PrivateKey};
use proxy_config::name::ObjectName;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;

use super::*;

/// A certificate with its key as units, and its bytes.
struct Issued {
    certificate: (UnitId, Unit),
    key: (UnitId, Unit),
    der: CertificateDer<'static>,
}

fn issue(secret: &str, names: &[&str]) -> Issued {
    let secret = ObjectName::new("shop", secret);
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let unit = Certificate { chain: certificate.pem(), key: UnitId::key(&secret) };
    Issued {
        certificate: (UnitId::certificate(&secret), Unit::Certificate(unit)),
        key: (UnitId::key(&secret), Unit::Key(PrivateKey { pem: key.serialize_pem() })),
        der: certificate.der().clone(),
    }
}

fn https(name: &str, hostname: Option<&str>, certificates: &[&Issued]) -> (UnitId, Unit) {
    let (id, mut unit) = listener(name, 443, hostname);
    if let Unit::Listener(listener) = &mut unit {
        listener.protocol = Protocol::Https;
        listener.certificates = certificates.iter().map(|issued| issued.certificate.0.clone()).collect();
    }
    (id, unit)
}

#[track_caller]
fn check(table: &Table, sni: Option<&str>, want: Option<&Issued>) {
    let port = table.port((NODE, 443).into()).unwrap();
    let got = port.certificate(sni).map(|certified| certified.cert[0].clone());
    assert_eq!(got, want.map(|issued| issued.der.clone()), "for {sni:?}");
}

#[test]
fn the_listener_decides_on_the_certificate_then_its_names() {
    let (shop, spare) = (issue("shop", &["shop.example.com"]), issue("spare", &["*.example.com"]));
    let other = issue("other", &["unrelated.org"]);
    let units = set([
        https("wild", Some("*.example.com"), &[&shop, &spare]),
        https("exact", Some("pay.example.com"), &[&other]),
        shop.certificate.clone(),
        shop.key.clone(),
        spare.certificate.clone(),
        spare.key.clone(),
        other.certificate.clone(),
        other.key.clone(),
    ]);
    let (table, compiler) = compile(&units);
    assert_eq!(compiler.broken().count(), 0);
    check(&table, Some("shop.example.com"), Some(&shop));
    check(&table, Some("Blog.Example.com"), Some(&spare));
    check(&table, Some("a.b.example.com"), Some(&shop));
    check(&table, Some("pay.example.com"), Some(&other));
    check(&table, Some("example.org"), None);
    check(&table, None, None);
}

#[test]
fn a_listener_without_hostname_takes_what_no_other_takes() {
    let (any, shop) = (issue("any", &["x"]), issue("shop", &["shop.example.com"]));
    let units = set([
        https("any", None, &[&any]),
        https("shop", Some("shop.example.com"), &[&shop]),
        any.certificate.clone(),
        any.key.clone(),
        shop.certificate.clone(),
        shop.key.clone(),
    ]);
    let (table, _) = compile(&units);
    check(&table, None, Some(&any));
    check(&table, Some("else.example.com"), Some(&any));
    check(&table, Some("shop.example.com"), Some(&shop));
}

#[test]
fn a_certificate_that_can_not_be_used_keeps_its_last_good_form_and_is_reported() {
    let (good, stranger) = (issue("shop", &["shop.example.com"]), issue("shop", &["stranger.org"]));
    let world = [https("any", None, &[&good]), good.certificate.clone(), good.key.clone()];
    let units = set(world);
    let (table, mut compiler) = compile(&units);
    check(&table, None, Some(&good));
    let damages: [EncodedUnit; 3] = [
        // The key of another certificate.
        EncodedUnit::new(stranger.key.0.clone(), &stranger.key.1),
        EncodedUnit::new(
            good.certificate.0.clone(),
            &Unit::Certificate(Certificate { chain: "no PEM".into(), key: good.key.0.clone() }),
        ),
        unreadable(&good.certificate.0),
    ];
    for damage in damages {
        let table = compiler.apply([&damage], [], version(), units.root());
        check(&table, None, Some(&good));
        let broken: Vec<Broken> = compiler.broken().collect();
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert_eq!(broken[0].unit, good.certificate.0);
    }
    // Renewed: key and certificate in one push.
    let renewed = issue("shop", &["shop.example.com"]);
    let put = [&renewed.certificate, &renewed.key].map(|(id, unit)| EncodedUnit::new(id.clone(), unit));
    let table = compiler.apply(&put, [], version(), units.root());
    check(&table, None, Some(&renewed));
    assert_eq!(compiler.broken().count(), 0);
    // Deleted: gone for good, and the listener has none.
    let table = compiler.apply([], [&good.certificate.0], version(), units.root());
    check(&table, None, None);
    assert_eq!(compiler.broken().map(|broken| broken.unit).collect::<Vec<_>>(), [https("any", None, &[]).0]);
}

#[test]
fn reasons_name_what_is_wrong() {
    let good = issue("shop", &["shop.example.com"]);
    let reason = |certificate: Unit, key: Option<Unit>| {
        let mut world = vec![(good.certificate.0.clone(), certificate)];
        world.extend(key.map(|key| (good.key.0.clone(), key)));
        let (_, compiler) = compile(&set(world));
        compiler.broken().next().unwrap().reason
    };
    let chain = |pem: &str| Unit::Certificate(Certificate { chain: pem.to_owned(), key: good.key.0.clone() });
    assert!(reason(good.certificate.1.clone(), None).contains("private key is missing"));
    assert!(reason(chain(""), Some(good.key.1.clone())).contains("no certificate"));
    let not_pem = Unit::Key(PrivateKey { pem: "secret".into() });
    let said = reason(good.certificate.1.clone(), Some(not_pem));
    assert!(said.contains("not PEM") && !said.contains("secret"), "{said}");
    let other = issue("shop", &["shop.example.com"]).key.1;
    assert!(reason(good.certificate.1.clone(), Some(other)).contains("does not belong"));
}

#[test]
fn a_host_of_another_listener_than_the_handshakes_is_misdirected() {
    let shared = issue("shared", &["*.example.com"]);
    let all = |listener: &str| {
        route(listener, 1, &[listener], &[], vec![rule(PathMatch::Prefix("/".into()), None)])
    };
    let units = set([
        https("wild", Some("*.example.com"), &[&shared]),
        https("pay", Some("pay.example.com"), &[&shared]),
        https("empty", Some("empty.example.org"), &[&shared]),
        all("wild"),
        all("pay"),
        shared.certificate.clone(),
        shared.key.clone(),
    ]);
    let (table, _) = compile(&units);
    let port = table.port((NODE, 443).into()).unwrap();
    #[track_caller]
    fn check(port: &crate::table::port::Port, sni: Option<&str>, host: &str, want: Result<&str, Refusal>) {
        let routed = port.route(&get(host, "/"), sni);
        let got = routed.as_ref().map(|routed| &*routed.route.name.name).map_err(|refusal| *refusal);
        assert_eq!(got, want, "{host} over {sni:?}");
    }
    check(port, Some("a.example.com"), "a.example.com", Ok("wild"));
    check(port, Some("a.example.com"), "B.example.com", Ok("wild"));
    check(port, Some("pay.example.com"), "pay.example.com", Ok("pay"));
    check(port, Some("a.example.com"), "pay.example.com", Err(Refusal::Misdirected));
    check(port, Some("pay.example.com"), "a.example.com", Err(Refusal::Misdirected));
    check(port, None, "a.example.com", Err(Refusal::Misdirected));
    check(port, Some("empty.example.org"), "empty.example.org", Err(Refusal::NotFound));
    check(port, Some("a.example.com"), "unknown.org", Err(Refusal::NotFound));
}

/// The table of the official suite: HTTPRouteHTTPSListenerDetectMisdirectedRequests of v1.6.1.
#[test]
fn of_four_listeners_of_a_port_each_host_belongs_to_one() {
    let shared = issue("shared", &["*"]);
    let to = |listener: &str, hostnames: &[&str]| {
        route(listener, 1, &[listener], hostnames, vec![rule(PathMatch::Prefix("/".into()), None)])
    };
    let units = set([
        https("any", None, &[&shared]),
        https("second", Some("second-example.org"), &[&shared]),
        https("wild", Some("*.wildcard.org"), &[&shared]),
        https("fourth", Some("fourth-example.wildcard.org"), &[&shared]),
        to("any", &["example.org"]),
        to("second", &[]),
        to("wild", &[]),
        to("fourth", &[]),
        shared.certificate.clone(),
        shared.key.clone(),
    ]);
    let (table, _) = compile(&units);
    let port = table.port((NODE, 443).into()).unwrap();
    let (not_found, misdirected) = (Err(Refusal::NotFound), Err(Refusal::Misdirected));
    let (third, fifth) = ("third-example.wildcard.org", "fith-example.wildcard.org");
    let (second, fourth) = ("second-example.org", "fourth-example.wildcard.org");
    let cases = [
        ("example.org", "example.org", Ok("any")),
        ("example.org", second, misdirected),
        ("example.org", "unknown-example.org", not_found),
        (second, second, Ok("second")),
        (second, "example.org", misdirected),
        (second, "unknown-example.org", misdirected),
        (third, third, Ok("wild")),
        (third, fifth, Ok("wild")),
        (third, fourth, misdirected),
        (third, second, misdirected),
        (third, "unknown-example.org", misdirected),
        (fourth, fourth, Ok("fourth")),
        (fourth, fifth, misdirected),
        ("unknown-example.org", "example.org", Ok("any")),
        ("unknown-example.org", "unknown-example.org", not_found),
    ];
    for (sni, host, want) in cases {
        let routed = port.route(&get(host, "/"), Some(sni));
        let got = routed.as_ref().map(|routed| &*routed.route.name.name).map_err(|refusal| *refusal);
        assert_eq!(got, want, "{host} over {sni}");
    }
}

#[test]
fn a_renewed_certificate_makes_its_own_listeners_anew_and_no_other() {
    let (shared, own) = (issue("shared", &["*.example.com"]), issue("own", &["l7.example.com"]));
    let listeners = (0..100).map(|number| {
        let certificate = if number == 7 { &own } else { &shared };
        https(&format!("l{number}"), Some(&format!("l{number}.example.com")), &[certificate])
    });
    let credentials = [&shared, &own].map(|issued| [issued.certificate.clone(), issued.key.clone()]);
    let units = set(listeners.chain(credentials.into_iter().flatten()));
    let (before, mut compiler) = compile(&units);
    let renewed = issue("own", &["l7.example.com"]);
    let put = [&renewed.certificate, &renewed.key].map(|(id, unit)| EncodedUnit::new(id.clone(), unit));
    let after = compiler.apply(&put, [], version(), units.root());
    check(&after, Some("l7.example.com"), Some(&renewed));
    check(&after, Some("l8.example.com"), Some(&shared));
    let at = |table: &Arc<Table>| Arc::clone(table.port((NODE, 443).into()).unwrap());
    let (before, after) = (at(&before), at(&after));
    assert!(Arc::ptr_eq(&before.hostnames, &after.hostnames));
    let pairs = before.listeners.iter().zip(&after.listeners);
    let made: Vec<_> = pairs.filter(|(old, new)| !Arc::ptr_eq(old, new)).map(|(_, new)| &new.id).collect();
    assert_eq!(made, [&https("l7", None, &[]).0]);
}

#[test]
fn a_certificate_of_a_listener_that_lost_its_hostname_changes_nothing_but_that_it_is_reported() {
    let (first, second) = (issue("first", &["shop.example.com"]), issue("second", &["shop.example.com"]));
    let units = set([
        https("a", Some("shop.example.com"), &[&first]),
        https("b", Some("shop.example.com"), &[&second]),
        first.certificate.clone(),
        first.key.clone(),
    ]);
    let (table, mut compiler) = compile(&units);
    check(&table, Some("shop.example.com"), Some(&first));
    let lost: Vec<_> = compiler.broken().collect();
    let put = [&second.certificate, &second.key].map(|(id, unit)| EncodedUnit::new(id.clone(), unit));
    let table = compiler.apply(&put, [], version(), units.root());
    check(&table, Some("shop.example.com"), Some(&first));
    assert_eq!(compiler.broken().collect::<Vec<_>>(), lost);
    // Its last certificate goes, and the one that had the name.
    let gone = [first.certificate.0.clone(), https("a", None, &[]).0];
    let table = compiler.apply([], &gone, version(), units.root());
    check(&table, Some("shop.example.com"), Some(&second));
    assert_eq!(compiler.broken().count(), 0);
}
