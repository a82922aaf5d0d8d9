//! Authorities: which ConfigMaps and Secrets with a `ca.crt` may be used, and whether what they hold can be.

use std::collections::BTreeSet;

use proxy_config::certificate::Authority;
use proxy_config::name::{ObjectName, UnitId};
use proxy_config::unit::{EncodedUnit, Unit};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::snapshot::cluster::{ConfigMapContent, SecretContent};
use crate::snapshot::meta::{Kind, ObjectRef};

use super::Problem;
use super::conditions::Fault;
use super::emission::Emission;
use super::grants::{Referrer, permits};
use super::graph::Role;
use super::reader::{Lookup, Reader};

/// What references to authorities come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Authorities {
    /// Those that can be used, in order.
    pub(super) usable: Vec<ObjectRef>,
    /// Those that may be read.
    pub(super) wanted: BTreeSet<(ObjectRef, Role)>,
    /// Why one of them is not known yet.
    pub(super) unread: Option<String>,
    /// The first thing that is wrong.
    pub(super) fault: Option<Fault>,
}

/// A reference as it is written.
pub(super) struct Reference<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) name: ObjectName,
}

/// The words of the specification for what is wrong with a reference.
pub(super) struct Reasons {
    /// A kind that is not supported.
    pub(super) kind: &'static str,
    /// It is not there, or not what it must be.
    pub(super) content: &'static str,
}

impl Authorities {
    /// Looks one reference up; `field` is where it is written.
    pub(super) fn add(
        &mut self,
        reader: &Reader<'_>,
        holder: Referrer<'_>,
        reasons: &Reasons,
        field: &str,
        reference: Reference<'_>,
    ) {
        if let Err(fault) = self.resolve(reader, holder, reasons, reference) {
            self.fault.get_or_insert(Fault::new(fault.reason, format!("{field}: {}", fault.message)));
        }
    }

    /// Whether nothing of what is named can ever be used as it stands.
    pub(super) fn is_useless(&self) -> bool {
        self.usable.is_empty() && self.unread.is_none()
    }

    /// Their units.
    pub(super) fn units(&self) -> Vec<UnitId> {
        self.usable.iter().map(unit_id).collect()
    }

    fn resolve(
        &mut self,
        reader: &Reader<'_>,
        holder: Referrer<'_>,
        reasons: &Reasons,
        Reference { group, kind, name }: Reference<'_>,
    ) -> Result<(), Fault> {
        let object = match kind {
            "ConfigMap" if group.is_empty() => ObjectRef::new(Kind::ConfigMap, name),
            "Secret" if group.is_empty() => ObjectRef::new(Kind::Secret, name),
            _ => {
                let message = format!(
                    "kind `{kind}` of group `{group}` is not supported: use ConfigMap or Secret of the core group"
                );
                return Err(Fault::new(reasons.kind, message));
            }
        };
        if !permits(reader, holder, object.kind, &object.name) {
            let message = format!("{object} is in another namespace, which has no ReferenceGrant for it");
            return Err(Fault::new("RefNotPermitted", message));
        }
        self.wanted.insert((object.clone(), Role::Authority));
        let reason = match held(reader, &object) {
            Held::Bundle(_) => {
                self.usable.push(object);
                return Ok(());
            }
            Held::Unread(why) => {
                self.unread.get_or_insert_with(|| match why {
                    Some(reason) => format!("{object} can't be read for now, which is tried again: {reason}"),
                    None => "the authorities are being read".to_owned(),
                });
                return Ok(());
            }
            Held::Missing => "is not there".to_owned(),
            Held::Wrong(reason) => reason,
        };
        Err(Fault::new(reasons.content, format!("{object} {reason}")))
    }
}

/// What an object holds.
enum Held {
    /// There is no object.
    Missing,
    /// It has not been read, and why, where that has been tried.
    Unread(Option<String>),
    /// Its bundle, as text.
    Bundle(String),
    /// Nothing that can be used, for this reason.
    Wrong(String),
}

fn held(reader: &Reader<'_>, object: &ObjectRef) -> Held {
    let bundle = match object.kind {
        Kind::ConfigMap => match reader.config_map(&object.name) {
            Lookup::Found(map) => match &map.content {
                ConfigMapContent::NotRead => return Held::Unread(None),
                ConfigMapContent::Unavailable(reason) => return Held::Unread(Some(reason.clone())),
                ConfigMapContent::Authority(bundle) => bundle,
                ConfigMapContent::Other(reason) => return Held::Wrong(format!("can't be read: {reason}")),
            },
            lookup => return unfound(lookup),
        },
        _ => match reader.secret(&object.name) {
            Lookup::Found(secret) => match &secret.content {
                SecretContent::NotRead => return Held::Unread(None),
                SecretContent::Unavailable(reason) => return Held::Unread(Some(reason.clone())),
                SecretContent::Tls { authority, .. } => authority,
                SecretContent::Other(reason) => return Held::Wrong(format!("can't be used: {reason}")),
            },
            lookup => return unfound(lookup),
        },
    };
    let Some(bundle) = bundle else { return Held::Wrong("has no `ca.crt`".into()) };
    check(bundle).map_or_else(Held::Wrong, Held::Bundle)
}

fn unfound<T>(lookup: Lookup<'_, T>) -> Held {
    match lookup {
        Lookup::Malformed(malformed) => Held::Wrong(format!("can't be read: {}", malformed.message())),
        Lookup::Missing | Lookup::Found(_) => Held::Missing,
    }
}

/// Whether a bundle holds certificates, as text.
fn check(bundle: &[u8]) -> Result<String, String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate =
            certificate.map_err(|error| format!("holds a `ca.crt` that is not PEM: {error}"))?;
        x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| format!("holds a certificate in `ca.crt` that can't be read: {error}"))?;
        count += 1;
    }
    if count == 0 {
        return Err("holds no certificate in PEM in `ca.crt`".into());
    }
    String::from_utf8(bundle.to_vec()).map_err(|_| "holds a `ca.crt` that is not text".into())
}

fn unit_id(object: &ObjectRef) -> UnitId {
    UnitId::authority(object.kind.as_str(), &object.name)
}

/// The unit of an object whose authorities are wanted, and can be used by who names it.
pub(super) fn emit(reader: &Reader<'_>, object: &ObjectRef, emission: &mut Emission) {
    let is_used = reader.is_wanted_as(object, Role::Authority);
    if !is_used && !reader.is_wanted_as(object, Role::SeenAuthority) {
        return;
    }
    match held(reader, object) {
        Held::Unread(None) => emission.unread = Some(object.clone()),
        Held::Unread(Some(message)) => {
            emission.problems.push(Problem { field: String::new(), reason: "Unavailable", message });
        }
        Held::Bundle(bundle) if is_used => {
            let unit = Unit::Authority(Authority { bundle });
            emission.units.push(EncodedUnit::new(unit_id(object), &unit));
        }
        Held::Wrong(message) => emission.problems.push(Problem {
            field: "data".into(),
            reason: "InvalidCACertificateRef",
            message: format!("it {message}"),
        }),
        Held::Missing | Held::Bundle(_) => {}
    }
}
