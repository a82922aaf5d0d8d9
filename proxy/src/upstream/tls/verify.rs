//! Owns the verdict on the certificate of an endpoint.
//!
//! Pure. A chain must lead to one of the authorities, or the certificate must itself be in a bundle: whoever
//! pins a certificate that signed itself means that one. Then its names must be those that the policy wants.
//! Source: `BackendTLSPolicy` `spec.validation`, RFC 5280 section 6, RFC 9525 section 6.

use std::sync::Arc;

use proxy_config::backend::Subject;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::table::authority::Bundle;

/// What a certificate is held to.
#[derive(Debug)]
pub(super) struct Verifier {
    trusted: Arc<RootCertStore>,
    /// Bundles whose certificates may be shown themselves.
    pinned: Vec<Arc<Bundle>>,
    /// One of these must be among its names; empty: the server name must.
    subjects: Box<[Subject]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(
        trusted: Arc<RootCertStore>,
        pinned: Vec<Arc<Bundle>>,
        subjects: Box<[Subject]>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self { trusted, pinned, subjects, algorithms }
    }

    fn is_pinned(&self, shown: &CertificateDer<'_>) -> bool {
        self.pinned.iter().any(|bundle| bundle.certificates().contains(shown))
    }

    fn verify_subjects(
        &self,
        shown: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
    ) -> Result<(), Error> {
        let certificate = parse(shown)?;
        let alternative =
            certificate.subject_alternative_name().map_err(|_| CertificateError::BadEncoding)?;
        let names = alternative.map_or(&[][..], |names| &names.value.general_names);
        let is_met = |subject: &Subject| match subject {
            Subject::Hostname(wanted) => is_for(parsed, names, wanted),
            Subject::Uri(wanted) => {
                names.iter().any(|name| matches!(name, GeneralName::URI(uri) if uri == wanted))
            }
        };
        if self.subjects.iter().any(is_met) { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

/// Whether a certificate is for a hostname of a policy. One with a wildcard is no name that a host can have:
/// it stands for the same wildcard in the certificate.
fn is_for(parsed: &ParsedCertificate<'_>, names: &[GeneralName<'_>], wanted: &str) -> bool {
    if wanted.starts_with("*.") {
        let is_same = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(name) if name.eq_ignore_ascii_case(wanted));
        return names.iter().any(is_same);
    }
    ServerName::try_from(wanted).is_ok_and(|wanted| verify_server_name(parsed, &wanted).is_ok())
}

fn parse<'c>(shown: &'c CertificateDer<'_>) -> Result<X509Certificate<'c>, CertificateError> {
    X509Certificate::from_der(shown).map(|(_, parsed)| parsed).map_err(|_| CertificateError::BadEncoding)
}

/// The time in which a certificate is valid. Source: RFC 5280 section 4.1.2.5.
fn verify_time(shown: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| ASN1Time::from_timestamp(now).ok());
    let now = now.ok_or(CertificateError::Expired)?;
    let parsed = parse(shown)?;
    let validity = parsed.validity();
    match () {
        () if now < validity.not_before => Err(CertificateError::NotValidYet),
        () if now > validity.not_after => Err(CertificateError::Expired),
        () => Ok(()),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(shown)?;
        if self.is_pinned(shown) {
            verify_time(shown, now)?;
        } else {
            let (trusted, algorithms) = (&self.trusted, self.algorithms.all);
            verify_server_cert_signed_by_trust_anchor(&parsed, trusted, intermediates, now, algorithms)?;
        }
        if self.subjects.is_empty() {
            verify_server_name(&parsed, name)?;
        } else {
            self.verify_subjects(shown, &parsed)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
