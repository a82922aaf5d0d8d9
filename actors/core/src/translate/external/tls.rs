//! How an XBackend is reached over TLS: what it must show, and what it is shown.

use std::collections::BTreeSet;

use proxy_config::backend::BackendVerification;
use proxy_config::name::UnitId;

use crate::snapshot::backend::{Backend, BackendTls};
use crate::snapshot::gateway::SecretRef;
use crate::snapshot::meta::{Kind, ObjectRef};
use crate::snapshot::tls_policy::Validation;
use crate::translate::conditions::Fault;
use crate::translate::grants::Referrer;
use crate::translate::graph::Role;
use crate::translate::reader::Reader;
use crate::translate::{certificates, policies};

/// What the TLS of an XBackend comes to.
pub(super) struct Tls {
    /// What it must show and is shown; none where it is reached in clear; or why nothing may be sent there.
    pub(super) terms: Result<Option<BackendVerification>, String>,
    /// Why the XBackend is not accepted.
    pub(super) refused: Option<Fault>,
    /// A reference that is not resolved.
    pub(super) unresolved: Option<Fault>,
    /// Why something is not known yet.
    pub(super) unread: Option<String>,
    /// What may be read for it.
    wanted: BTreeSet<(ObjectRef, Role)>,
}

/// Who shows a certificate.
enum Mode<'a> {
    Nobody,
    Server,
    Both(&'a SecretRef),
}

impl Tls {
    pub(super) fn of(reader: &Reader<'_>, backend: &Backend) -> Self {
        let (refused, unresolved, unread) = (None, None, None);
        let mut tls = Self { terms: Ok(None), refused, unresolved, unread, wanted: BTreeSet::new() };
        let Some(written) = &backend.spec.tls else { return tls };
        let terms = match mode(written) {
            Ok(Mode::Nobody) => return tls,
            Ok(Mode::Server) => tls.look_up(reader, backend, written, None),
            Ok(Mode::Both(reference)) => tls.look_up(reader, backend, written, Some(reference)),
            Err(message) => Err(tls.refuse(Fault::new("Invalid", message))),
        };
        tls.terms = terms.map(Some);
        tls
    }

    /// What may be read for it; for its status alone where nothing of that is used.
    pub(super) fn wanted(&self, is_used: bool) -> BTreeSet<(ObjectRef, Role)> {
        let wanted = self.wanted.iter().cloned();
        wanted.map(|(object, role)| (object, if is_used { role } else { role.seen() })).collect()
    }

    fn refuse(&mut self, fault: Fault) -> String {
        let message = fault.message.clone();
        self.refused = Some(fault);
        message
    }

    fn look_up(
        &mut self,
        reader: &Reader<'_>,
        backend: &Backend,
        written: &BackendTls,
        shown: Option<&SecretRef>,
    ) -> Result<BackendVerification, String> {
        let holder = Referrer { kind: Kind::Backend, namespace: &backend.meta.name.namespace };
        let verification = match &written.validation {
            Some(validation) => self.verify(reader, holder, validation),
            None => Ok(by_its_name(backend)),
        };
        let client_certificate = shown.map(|reference| self.show(reader, holder, reference)).transpose();
        Ok(BackendVerification { client_certificate: client_certificate?, ..verification? })
    }

    /// Looks up what it must show.
    fn verify(
        &mut self,
        reader: &Reader<'_>,
        holder: Referrer<'_>,
        written: &Validation,
    ) -> Result<BackendVerification, String> {
        let (verification, found) = policies::verify(reader, holder, "spec.tls.validation", written);
        (self.unresolved, self.unread) = (found.fault, found.unread);
        self.wanted.extend(found.wanted);
        let verification = verification.map_err(|fault| self.refuse(fault))?;
        match &self.unread {
            // None of the authorities that are named is known yet, and those of the system are not meant.
            Some(why) if verification.authorities.is_empty() => Err(why.clone()),
            _ => Ok(verification),
        }
    }

    /// Looks up the certificate that it is shown. Without one nothing is sent.
    fn show(
        &mut self,
        reader: &Reader<'_>,
        holder: Referrer<'_>,
        reference: &SecretRef,
    ) -> Result<UnitId, String> {
        let field = "spec.tls.clientCertificateRef";
        let found = certificates::resolve_client(reader, holder, field, reference);
        let secrets = found.wanted.into_iter().map(|name| ObjectRef::new(Kind::Secret, name));
        self.wanted.extend(secrets.map(|secret| (secret, Role::Certificate)));
        let why = found.fault.as_ref().map(|fault| &fault.message).or(found.unread.as_ref()).cloned();
        self.unresolved = self.unresolved.take().or(found.fault);
        self.unread = self.unread.take().or(found.unread);
        found.usable.first().map(UnitId::certificate).ok_or_else(|| why.unwrap_or_default())
    }
}

/// Where nothing is said: a certificate for its own name, by an authority of the system.
fn by_its_name(backend: &Backend) -> BackendVerification {
    let host = backend.spec.external_hostname.as_ref();
    BackendVerification {
        hostname: host.map(|host| host.hostname.clone()).unwrap_or_default(),
        subjects: Vec::new(),
        authorities: Vec::new(),
        client_certificate: None,
    }
}

fn mode(written: &BackendTls) -> Result<Mode<'_>, String> {
    match (&*written.mode, &written.client_certificate_ref) {
        ("None", None) => Ok(Mode::Nobody),
        ("ServerOnly", None) => Ok(Mode::Server),
        ("ClientAndServer", Some(reference)) => Ok(Mode::Both(reference)),
        ("ClientAndServer", None) => {
            Err("spec.tls.clientCertificateRef is missing: mode ClientAndServer needs it".into())
        }
        ("None" | "ServerOnly", Some(_)) => {
            Err("spec.tls.clientCertificateRef needs mode ClientAndServer".into())
        }
        (mode, _) => {
            let modes = "None, ServerOnly or ClientAndServer";
            Err(format!("spec.tls.mode `{mode}` is not supported: use {modes}"))
        }
    }
}
