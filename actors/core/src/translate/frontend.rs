//! Validation of clients: what a Gateway asks of the clients of a port. Source: GEP-91.

use std::collections::BTreeSet;

use proxy_config::listener::{ClientValidation, ClientValidationMode};
use proxy_config::name::ObjectName;

use crate::snapshot::gateway::{FrontendTls, FrontendValidation};
use crate::snapshot::meta::{Kind, ObjectRef};

use super::authorities::{Authorities, Reasons, Reference};
use super::conditions::Fault;
use super::grants::Referrer;
use super::graph::Role;
use super::reader::Reader;

const REASONS: Reasons = Reasons { kind: "InvalidCACertificateKind", content: "InvalidCACertificateRef" };

/// How the clients of a listener are validated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clients {
    /// What proxies do; `None`: nothing is asked of clients.
    pub(super) validation: Option<ClientValidation>,
    /// What may be read for it.
    pub(super) wanted: BTreeSet<(ObjectRef, Role)>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
    /// No reference is: the listener is not accepted.
    pub(super) rejected: Option<Fault>,
    /// Why something is not known yet.
    pub(super) unread: Option<String>,
}

/// What a Gateway asks of the clients of a port.
pub(super) fn resolve(reader: &Reader<'_>, gateway: &ObjectName, tls: &FrontendTls, port: u16) -> Clients {
    let own = tls.per_port.iter().enumerate().find(|(_, known)| known.port == port);
    let (field, config) = match own {
        Some((index, own)) => (format!("spec.tls.frontend.perPort[{index}].tls"), &own.tls),
        None => ("spec.tls.frontend.default".into(), &tls.default),
    };
    match &config.validation {
        Some(validation) => resolve_validation(reader, gateway, &field, validation),
        None => Clients::default(),
    }
}

fn resolve_validation(
    reader: &Reader<'_>,
    gateway: &ObjectName,
    field: &str,
    written: &FrontendValidation,
) -> Clients {
    let namespace = &*gateway.namespace;
    let mut found = Authorities::default();
    for (index, reference) in written.ca_certificate_refs.iter().enumerate() {
        let field = format!("{field}.validation.caCertificateRefs[{index}] of Gateway {gateway}");
        let name = ObjectName::new(reference.namespace.as_deref().unwrap_or(namespace), &*reference.name);
        let reference = Reference { group: &reference.group, kind: &reference.kind, name };
        found.add(reader, Referrer { kind: Kind::Gateway, namespace }, &REASONS, &field, reference);
    }
    let rejected = found.is_useless().then(|| {
        let why = found.fault.as_ref().map_or("none is named", |fault| &fault.message);
        Fault::new("NoValidCACertificate", format!("no authority can validate clients: {why}"))
    });
    let mode = match written.mode.as_deref() {
        Some("AllowInsecureFallback") => ClientValidationMode::AllowInsecureFallback,
        _ => ClientValidationMode::AllowValidOnly,
    };
    Clients {
        validation: Some(ClientValidation { authorities: found.units(), mode }),
        wanted: found.wanted,
        unresolved: found.fault,
        rejected,
        unread: found.unread,
    }
}

/// Whether clients whose certificate is not valid are served anywhere.
pub(super) fn is_insecure(tls: &FrontendTls) -> bool {
    let configs = tls.per_port.iter().map(|own| &own.tls).chain([&tls.default]);
    let modes = configs.filter_map(|config| config.validation.as_ref()?.mode.as_deref());
    modes.into_iter().any(|mode| mode == "AllowInsecureFallback")
}
