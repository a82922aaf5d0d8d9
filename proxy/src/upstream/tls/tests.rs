//! Peers told from each other, and the verdict on certificates.

use std::collections::HashSet;

use proxy_config::name::{ObjectName, UnitId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};

use super::*;
use crate::upstream::registry::Registry;

const NAME: &str = "backend.example";

fn policy(hostname: &str, subjects: &[Subject]) -> BackendVerification {
    let authorities = vec![UnitId::authority("ConfigMap", &ObjectName::new("shop", "ca"))];
    BackendVerification {
        hostname: hostname.to_owned(),
        subjects: subjects.to_vec(),
        authorities,
        client_certificate: None,
    }
}

/// A certificate that has signed itself.
fn own(name: &str, shape: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    shape(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn bundle(certificates: &[&CertificateDer<'static>]) -> Arc<Bundle> {
    Arc::new(Bundle::new(certificates.iter().map(|one| (*one).clone())).unwrap())
}

fn authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

#[test]
fn a_peer_is_told_from_others_by_all_that_it_must_prove() {
    let registry = Registry::default();
    let (one, other) = (bundle(&[&own("ca.one", authority)]), bundle(&[&own("ca.other", authority)]));
    let hostname = |name: &str| Subject::Hostname(name.to_owned());
    let uri = |text: &str| Subject::Uri(text.to_owned());
    let peer = |policy: &BackendVerification, bundles: &[&Arc<Bundle>]| {
        let bundles = bundles.iter().map(|bundle| Arc::clone(bundle)).collect();
        registry.peer(policy, Some(bundles)).unwrap()
    };
    let all = [
        peer(&policy("a.example", &[]), &[&one]),
        peer(&policy("b.example", &[]), &[&one]),
        peer(&policy("a.example", &[hostname("c")]), &[&one]),
        peer(&policy("a.example", &[uri("c")]), &[&one]),
        peer(&policy("a.example", &[uri("c"), uri("d")]), &[&one]),
        peer(&policy("a.example", &[uri("cd")]), &[&one]),
        peer(&policy("a.example", &[]), &[&other]),
        peer(&policy("a.example", &[]), &[&one, &other]),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    let again = peer(&policy("a.example", &[]), &[&one]);
    assert!(Arc::ptr_eq(&all[0], &again), "what is in use is found again");
    let [shown, other] = [(); 2].map(|()| {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::default().self_signed(&key).unwrap();
        let der = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let signing = aws_lc_rs::sign::any_supported_type(&der).unwrap();
        Shown::new(Arc::new(CertifiedKey::new(vec![made.der().clone()], signing)))
    });
    assert_ne!(*all[0], all[0].showing(&shown));
    assert_eq!(all[0].showing(&shown), again.showing(&shown));
    assert_ne!(all[0].showing(&shown), all[0].showing(&other));
}

#[test]
fn a_policy_by_which_nothing_could_be_verified_is_refused() {
    let registry = Registry::trusting(RootCertStore::empty());
    let refused = |hostname: &str, bundles| registry.peer(&policy(hostname, &[]), bundles).unwrap_err();
    assert!(matches!(refused("a.example", Some(Vec::new())), PeerError::NoBundle));
    assert!(matches!(refused("a.example", None), PeerError::NoSystem));
    let any = || Some(vec![bundle(&[&own("ca", authority)])]);
    for hostname in ["10.0.0.1", "", "*.example", "a b"] {
        assert!(matches!(refused(hostname, any()), PeerError::Hostname(_)), "{hostname}");
    }
}

#[track_caller]
fn check(
    bundles: &[Arc<Bundle>],
    subjects: &[Subject],
    shown: &CertificateDer<'_>,
    want: Result<(), CertificateError>,
) {
    let trusted = Arc::new(roots(bundles.iter().map(|bundle| &**bundle)));
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
    let verifier = Verifier::new(trusted, bundles.to_vec(), subjects.into(), algorithms);
    let name = ServerName::try_from(NAME).unwrap();
    let verdict = verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now());
    let verdict = verdict.map(drop).map_err(|error| match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => {
            CertificateError::NotValidForName
        }
        Error::InvalidCertificate(error) => error,
        other => panic!("{other}"),
    });
    assert_eq!(verdict, want);
}

#[test]
fn a_certificate_that_is_in_the_bundle_itself_is_trusted_while_it_is_valid() {
    let pinned = own(NAME, authority);
    check(&[bundle(&[&pinned])], &[], &pinned, Ok(()));
    let unknown = own(NAME, |_| ());
    // The authority has the same name, but another key.
    check(&[bundle(&[&pinned])], &[], &unknown, Err(CertificateError::BadSignature));
    let other = own("other.example", authority);
    check(&[bundle(&[&other])], &[], &other, Err(CertificateError::NotValidForName));
    let old = own(NAME, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    check(&[bundle(&[&old])], &[], &old, Err(CertificateError::Expired));
    let new = own(NAME, |params| params.not_before = rcgen::date_time_ymd(2120, 1, 1));
    check(&[bundle(&[&new])], &[], &new, Err(CertificateError::NotValidYet));
}

#[test]
fn a_wildcard_covers_hosts_where_it_is_shown_and_nothing_but_itself_where_it_is_wanted() {
    let shown = own("*.shop.example", authority);
    let bundles = [bundle(&[&shown])];
    let wanted = |name: &str| [Subject::Hostname(name.to_owned())];
    for name in ["cart.shop.example", "Cart.Shop.example", "*.Shop.example"] {
        check(&bundles, &wanted(name), &shown, Ok(()));
    }
    for name in ["a.cart.shop.example", "shop.example", "*.cart.shop.example", "*.example"] {
        check(&bundles, &wanted(name), &shown, Err(CertificateError::NotValidForName));
    }
    let host = own("cart.shop.example", authority);
    let pinned = [bundle(&[&host])];
    check(&pinned, &wanted("*.shop.example"), &host, Err(CertificateError::NotValidForName));
}
