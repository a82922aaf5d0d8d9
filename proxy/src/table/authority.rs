//! Bundles of authorities, compiled: parsed and checked before they are in force, never in a handshake.
//!
//! Called by the compiler. Knows neither who names a bundle nor what is verified with it.

use proxy_config::certificate::Authority;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest as _, Sha256};

/// The certificates of authorities that may have signed another one.
#[derive(Debug)]
pub struct Bundle {
    digest: [u8; 32],
    certificates: Box<[CertificateDer<'static>]>,
}

/// Why a bundle can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    #[error("the bundle is not PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("the bundle holds no certificate that an authority can have")]
    Empty,
}

impl Bundle {
    /// Parses a bundle. What in it is no certificate of an authority is left out, unless nothing is left.
    pub(super) fn compile(unit: &Authority) -> Result<Self, BundleError> {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(unit.bundle.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(BundleError::Pem)?;
        Self::new(certificates).ok_or(BundleError::Empty)
    }

    /// A bundle of these certificates; `None` where none of them can be that of an authority.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        let is_usable = |certificate: &CertificateDer<'static>| roots.add(certificate.clone()).is_ok();
        let certificates: Box<[_]> = certificates.into_iter().filter(is_usable).collect();
        let mut digest = Sha256::new();
        for certificate in &certificates {
            digest.update(certificate.len().to_be_bytes());
            digest.update(certificate);
        }
        (!certificates.is_empty()).then(|| Self { digest: digest.finalize().into(), certificates })
    }

    /// What tells its content from that of others.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The certificates.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

/// All authorities of some bundles, as rustls wants them.
pub fn roots<'b>(bundles: impl IntoIterator<Item = &'b Bundle>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificates = bundles.into_iter().flat_map(|bundle| bundle.certificates.iter().cloned());
    roots.add_parsable_certificates(certificates);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        rcgen::generate_simple_self_signed(["authority.example".to_owned()]).unwrap().cert.pem()
    }

    fn compile(bundle: String) -> Result<Bundle, String> {
        Bundle::compile(&Authority { bundle }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bundle_is_told_from_others_by_its_certificates_alone() {
        let (one, other) = (pem(), pem());
        let first = compile(one.clone()).unwrap();
        let commented = compile(format!("# of 2026\n{one}\n")).unwrap();
        assert_eq!(first.digest(), commented.digest());
        let both = compile(one + &other).unwrap();
        assert_ne!(first.digest(), both.digest());
        assert_eq!(roots([&first, &both]).len(), 3);
    }

    #[test]
    fn what_is_no_certificate_is_left_out_unless_nothing_is_left() {
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(compile(format!("{nonsense}{}", pem())).unwrap().certificates().len(), 1);
        for bundle in [nonsense, "", "no PEM"] {
            assert_eq!(
                compile(bundle.to_owned()).unwrap_err(),
                "the bundle holds no certificate that an authority can have"
            );
        }
        assert_eq!(
            compile("-----BEGIN CERTIFICATE-----\n*".to_owned()).unwrap_err(),
            "the bundle is not PEM"
        );
    }
}
