//! Certificates: which Secrets a listener may use, and whether what they hold can be served.

use std::collections::BTreeSet;

use proxy_config::certificate::{Certificate, PrivateKey};
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::{EncodedUnit, Unit};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::snapshot::cluster::{Secret, SecretContent};
use crate::snapshot::gateway::{Listener, SecretRef};
use crate::snapshot::meta::{Kind, ObjectRef};

use super::conditions::Fault;
use super::emission::Emission;
use super::grants::{Referrer, permits};
use super::graph::Role;
use super::reader::{Lookup, Reader};
use super::{Problem, Validity};

/// What a listener's certificateRefs come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certificates {
    /// Secrets that can be served, in order.
    pub(super) usable: Vec<ObjectName>,
    /// Secrets that may be read: named, of the right kind, and granted.
    pub(super) wanted: BTreeSet<ObjectName>,
    /// Why one of them is not known yet.
    pub(super) unread: Option<String>,
    /// The first thing that is wrong.
    pub(super) fault: Option<Fault>,
}

/// Resolves the certificateRefs of a listener where TLS ends.
pub(super) fn resolve(reader: &Reader<'_>, holder: Referrer<'_>, listener: &Listener) -> Certificates {
    let mut found = Certificates::default();
    let refs = listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
    if refs.is_empty() {
        let message = "tls.certificateRefs is empty: name a Secret of type kubernetes.io/tls";
        found.fault = Some(Fault::new("InvalidCertificateRef", message));
    }
    for (index, reference) in refs.iter().enumerate() {
        if let Err(fault) = resolve_one(reader, holder, reference, &mut found) {
            let message = format!("tls.certificateRefs[{index}]: {}", fault.message);
            found.fault.get_or_insert(Fault::new(fault.reason, message));
        }
    }
    found
}

/// Resolves the certificate that a backend is shown; `field` is where it is written.
pub(super) fn resolve_client(
    reader: &Reader<'_>,
    holder: Referrer<'_>,
    field: &str,
    reference: &SecretRef,
) -> Certificates {
    let mut found = Certificates::default();
    if let Err(fault) = resolve_one(reader, holder, reference, &mut found) {
        let reason =
            if fault.reason == "RefNotPermitted" { fault.reason } else { "InvalidClientCertificateRef" };
        let message = format!("{field}: {}", fault.message);
        found.fault = Some(Fault::new(reason, message));
    }
    found
}

fn resolve_one(
    reader: &Reader<'_>,
    holder: Referrer<'_>,
    reference: &SecretRef,
    found: &mut Certificates,
) -> Result<(), Fault> {
    let invalid = |message: String| Err(Fault::new("InvalidCertificateRef", message));
    if !(reference.group.is_empty() && reference.kind == "Secret") {
        let (group, kind) = (&reference.group, &reference.kind);
        return invalid(format!(
            "kind `{kind}` of group `{group}` is not supported: use Secret of the core group"
        ));
    }
    let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(holder.namespace), &*reference.name);
    if !permits(reader, holder, Kind::Secret, &name) {
        let message = format!("Secret {name} is in another namespace, which has no ReferenceGrant for it");
        return Err(Fault::new("RefNotPermitted", message));
    }
    found.wanted.insert(name.clone());
    match reader.secret(&name) {
        Lookup::Missing => invalid(format!("Secret {name} is not there, or not of type kubernetes.io/tls")),
        Lookup::Malformed(malformed) => {
            invalid(format!("Secret {name} can't be read: {}", malformed.message()))
        }
        Lookup::Found(secret) => match check(secret) {
            Ok(Some(_)) => {
                found.usable.push(name);
                Ok(())
            }
            Ok(None) => {
                found.unread.get_or_insert_with(|| match &secret.content {
                    SecretContent::Unavailable(reason) => {
                        format!("Secret {name} can't be read for now, which is tried again: {reason}")
                    }
                    _ => "the certificate is being read".to_owned(),
                });
                Ok(())
            }
            Err(reason) => invalid(format!("Secret {name}: {reason}")),
        },
    }
}

/// A certificate that can be served, as PEM.
struct Served {
    chain: String,
    key: String,
    validity: Validity,
}

/// Whether a Secret can be served; `None` where it has not been read.
fn check(secret: &Secret) -> Result<Option<Served>, String> {
    let (chain, key) = match &secret.content {
        SecretContent::NotRead | SecretContent::Unavailable(_) => return Ok(None),
        SecretContent::Other(reason) => return Err(reason.clone()),
        SecretContent::Tls { chain, key, .. } => (chain, key),
    };
    let certificates = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("tls.crt is not PEM: {error}"))?;
    let leaf = certificates.first().ok_or("tls.crt holds no certificate in PEM")?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|error| format!("the first certificate of tls.crt can't be read: {error}"))?;
    let (from, until) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    // The error of a key is not shown: it must not lead to what the key holds.
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key holds no private key in PEM")?;
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private).map_err(
        |_| "tls.key is of a kind that can't be used: use RSA of 2048 bits or more, ECDSA or Ed25519",
    )?;
    rustls::sign::CertifiedKey::new(certificates, signer)
        .keys_match()
        .map_err(|_| "tls.key is not the key of the first certificate of tls.crt")?;
    let text =
        |bytes: &[u8], field| String::from_utf8(bytes.to_vec()).map_err(|_| format!("{field} is not text"));
    Ok(Some(Served {
        chain: text(chain, "tls.crt")?,
        key: text(key, "tls.key")?,
        validity: Validity { from, until },
    }))
}

/// The units of a Secret whose certificate is wanted, and can be used by who names it.
pub(super) fn emit(reader: &Reader<'_>, object: &ObjectRef, emission: &mut Emission) {
    let is_used = reader.is_wanted_as(object, Role::Certificate);
    let is_wanted = is_used || reader.is_wanted_as(object, Role::SeenCertificate);
    if object.kind != Kind::Secret || !is_wanted {
        return;
    }
    let name = &object.name;
    let Some(secret) = reader.secret(name).found() else { return };
    match check(secret) {
        Ok(None) => match &secret.content {
            SecretContent::Unavailable(message) => {
                let (field, message) = (String::new(), message.clone());
                emission.problems.push(Problem { field, reason: "Unavailable", message });
            }
            _ => emission.unread = Some(object.clone()),
        },
        Ok(Some(_)) if !is_used => {}
        Ok(Some(Served { chain, key, validity })) => {
            emission.expiry = Some((name.clone(), validity));
            let id = UnitId::key(name);
            let certificate = Unit::Certificate(Certificate { chain, key: id.clone() });
            emission.units.push(EncodedUnit::new(UnitId::certificate(name), &certificate));
            emission.units.push(EncodedUnit::new(id, &Unit::Key(PrivateKey { pem: key })));
        }
        Err(message) => {
            emission.problems.push(Problem { field: "data".into(), reason: "InvalidCertificateRef", message })
        }
    }
}
