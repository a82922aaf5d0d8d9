//! Clients that prove who they are by a certificate: who is let in, and what a change of the rule does.

use std::sync::Arc;

use proxy_config::certificate::Authority;
use proxy_config::listener::{ClientValidation, ClientValidationMode};
use proxy_config::name::UnitId;
use proxy_config::set::UnitSet;
use proxy_config::unit::{EncodedUnit, Unit};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http1;
use crate::origin::Origin;
use crate::rig::{Rig, Site, name};
use crate::tls::Trust;

/// An authority. All of them bear the same name, which decides nothing.
struct Signer {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
type Proof = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A client's certificate that ends in this year.
    fn sign_until(&self, year: i32) -> Proof {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "A client");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    fn sign(&self) -> Proof {
        self.sign_until(4000)
    }
}

/// A client with this certificate, which takes any of the proxy's. It resumes sessions.
struct Visitor(Arc<ClientConfig>);

impl Visitor {
    fn new(proof: Option<&Proof>) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trust));
        let mut config = match proof {
            None => config.with_no_client_auth(),
            Some((leaf, key)) => config.with_client_auth_cert(vec![leaf.clone()], key.clone_key()).unwrap(),
        };
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
        Self(Arc::new(config))
    }

    async fn connect(&self, rig: &Rig) -> std::io::Result<http1::Client<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(rig.https).await?;
        let name = ServerName::try_from("a.example").unwrap();
        TlsConnector::from(self.0.clone()).connect(name, stream).await.map(http1::Client::over)
    }

    /// Whether a request is served, and how its connection came to be.
    async fn visit(&self, rig: &Rig) -> Option<HandshakeKind> {
        // With TLS 1.3 who is refused hears of it only after its handshake.
        let mut client = self.connect(rig).await.ok()?;
        let answer = client.get("/").await?;
        assert!(answer.is_ok(), "{answer:?}");
        client.stream.get_ref().1.handshake_kind()
    }

    async fn is_served(&self, rig: &Rig) -> bool {
        self.visit(rig).await.is_some()
    }
}

fn authority(number: usize) -> UnitId {
    UnitId::authority("ConfigMap", &name(&format!("authority-{number}")))
}

/// The site, where the clients of HTTPS are validated by these.
fn validated(site: &Site, mode: ClientValidationMode, bundles: &[&Signer]) -> UnitSet {
    let authorities: Vec<_> = (0..bundles.len()).map(authority).collect();
    let rule = ClientValidation { authorities, mode };
    let units = site.units();
    let edited = units.iter().map(|unit| match unit.decode().unwrap() {
        Unit::Listener(mut listener) if !listener.certificates.is_empty() => {
            listener.client_validation = Some(rule.clone());
            EncodedUnit::new(unit.id.clone(), &Unit::Listener(listener))
        }
        _ => unit.clone(),
    });
    let bundles = bundles.iter().enumerate().map(|(number, signer)| {
        EncodedUnit::new(authority(number), &Unit::Authority(Authority { bundle: signer.pem.clone() }))
    });
    edited.chain(bundles).collect()
}

async fn rig() -> (Rig, Site, Origin) {
    let origin = Origin::start().await;
    let rig = Rig::start(2).await;
    let mut site = Site::new(&rig, origin.address);
    site.certificates = vec![("", "any.example")];
    rig.hold(&site).await;
    (rig, site, origin)
}

/// Puts units in force.
async fn hold(rig: &Rig, units: UnitSet) {
    assert_eq!(rig.proxy.hold(units).await.unwrap().broken, []);
}

use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};

#[tokio::test]
async fn only_who_was_signed_by_an_authority_is_let_in() {
    let (rig, site, origin) = rig().await;
    let (one, other, stranger) = (Signer::new(), Signer::new(), Signer::new());
    hold(&rig, validated(&site, AllowValidOnly, &[&one, &other])).await;
    for (proof, served) in [
        (Some(one.sign()), true),
        (Some(other.sign()), true),
        (Some(stranger.sign()), false),
        (Some(one.sign_until(2020)), false),
        (None, false),
    ] {
        let visitor = Visitor::new(proof.as_ref());
        assert_eq!(visitor.is_served(&rig).await, served, "{proof:?}");
    }
    assert_eq!(origin.requests().len(), 2, "nothing of the others came through");
    let mut in_clear = http1::Client::connect(rig.http).await.unwrap();
    assert!(in_clear.get("/").await.unwrap().is_ok(), "nothing is asked of the clients of another port");
}

#[tokio::test]
async fn with_insecure_fallback_everybody_is_let_in() {
    let (rig, site, _origin) = rig().await;
    let (known, stranger) = (Signer::new(), Signer::new());
    hold(&rig, validated(&site, AllowInsecureFallback, &[&known])).await;
    for proof in [Some(known.sign()), Some(stranger.sign()), Some(known.sign_until(2020)), None] {
        assert!(Visitor::new(proof.as_ref()).is_served(&rig).await, "{proof:?}");
    }
}

#[tokio::test]
async fn a_changed_bundle_holds_for_new_handshakes_and_resumed_sessions() {
    let (rig, site, _origin) = rig().await;
    let (old, new) = (Signer::new(), Signer::new());
    hold(&rig, validated(&site, AllowValidOnly, &[&old])).await;
    let (of_old, of_new) = (Visitor::new(Some(&old.sign())), Visitor::new(Some(&new.sign())));
    assert_eq!(of_old.visit(&rig).await, Some(HandshakeKind::Full));
    assert_eq!(of_old.visit(&rig).await, Some(HandshakeKind::Resumed));
    assert!(!of_new.is_served(&rig).await);
    let mut open = of_old.connect(&rig).await.unwrap();
    assert!(open.get("/").await.unwrap().is_ok());
    hold(&rig, validated(&site, AllowValidOnly, &[&old, &new])).await;
    assert_eq!(of_old.visit(&rig).await, Some(HandshakeKind::Full), "the session began under another rule");
    assert!(of_new.is_served(&rig).await);
    hold(&rig, validated(&site, AllowValidOnly, &[&new])).await;
    assert!(!of_old.is_served(&rig).await);
    assert_eq!(of_new.visit(&rig).await, Some(HandshakeKind::Full));
}

#[tokio::test]
async fn a_bundle_that_is_replaced_ends_no_connection_and_nothing_else_ends_its_sessions() {
    let (rig, mut site, _origin) = rig().await;
    let (old, new) = (Signer::new(), Signer::new());
    hold(&rig, validated(&site, AllowValidOnly, &[&old])).await;
    let visitor = Visitor::new(Some(&old.sign()));
    let mut open = visitor.connect(&rig).await.unwrap();
    assert!(open.get("/").await.unwrap().is_ok());
    // A route, the listeners of the port, their certificates.
    for change in 0..2 {
        match change {
            0 => site.generation = Some(2),
            _ => site.certificates.push(("b.example", "b.example")),
        }
        hold(&rig, validated(&site, AllowValidOnly, &[&old])).await;
        assert_eq!(visitor.visit(&rig).await, Some(HandshakeKind::Resumed));
    }
    hold(&rig, validated(&site, AllowValidOnly, &[&new])).await;
    assert!(!visitor.is_served(&rig).await);
    assert!(open.get("/").await.unwrap().is_ok(), "its handshake was before");
    site.generation = Some(3);
    hold(&rig, validated(&site, AllowValidOnly, &[&new])).await;
    assert!(open.get("/").await.unwrap().is_ok());
}

#[tokio::test]
async fn a_connection_that_was_not_validated_ends_when_validation_begins_or_becomes_strict() {
    let (rig, site, _origin) = rig().await;
    let signer = Signer::new();
    let nobody = Visitor::new(None);
    for mode in [AllowInsecureFallback, AllowValidOnly] {
        let mut open = nobody.connect(&rig).await.unwrap();
        assert!(open.get("/").await.unwrap().is_ok());
        hold(&rig, validated(&site, mode, &[&signer])).await;
        assert!(open.answer().await.is_none(), "it ends");
    }
    let mut open = Visitor::new(Some(&signer.sign())).connect(&rig).await.unwrap();
    assert!(open.get("/").await.unwrap().is_ok());
    rig.hold(&site).await;
    assert!(open.get("/").await.unwrap().is_ok(), "who has proven more than is asked may stay");
}

#[tokio::test]
async fn a_session_that_began_without_validation_is_not_resumed_with_it() {
    let (rig, site, _origin) = rig().await;
    let visitor = Visitor::new(None);
    assert!(visitor.is_served(&rig).await);
    assert_eq!(visitor.visit(&rig).await, Some(HandshakeKind::Resumed));
    hold(&rig, validated(&site, AllowValidOnly, &[&Signer::new()])).await;
    assert!(!visitor.is_served(&rig).await);
}

#[tokio::test]
async fn without_a_usable_authority_nobody_is_let_in_and_the_listener_is_broken() {
    let (rig, site, _origin) = rig().await;
    let signer = Signer::new();
    let id = authority(0);
    let units = validated(&site, AllowValidOnly, &[&signer]);
    let without: UnitSet = units.iter().filter(|unit| unit.id != id).cloned().collect();
    let listener = UnitId::listener(&name("gateway"), "https-any.example");
    let broken = rig.proxy.hold(without).await.unwrap().broken;
    assert_eq!(broken.iter().map(|broken| &broken.unit).collect::<Vec<_>>(), [&listener], "{broken:?}");
    let visitor = Visitor::new(Some(&signer.sign()));
    assert!(!visitor.is_served(&rig).await);
    hold(&rig, units).await;
    assert!(visitor.is_served(&rig).await);
    // What can't be read is reported; what was read last stays in force.
    let odd = Unit::Authority(Authority { bundle: "no PEM".into() });
    let units = validated(&site, AllowValidOnly, &[&signer]);
    let units =
        units.iter().filter(|unit| unit.id != id).cloned().chain([EncodedUnit::new(id.clone(), &odd)]);
    let broken = rig.proxy.hold(units.collect()).await.unwrap().broken;
    assert_eq!(broken.into_iter().map(|broken| broken.unit).collect::<Vec<_>>(), [id]);
    assert!(visitor.is_served(&rig).await);
}
