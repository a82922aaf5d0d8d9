//! Certificates, compiled: parsed and checked before they are in force, never in a handshake.

use std::sync::Arc;

use proxy_config::certificate::{Certificate, PrivateKey};
use proxy_config::name::HostPattern;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::host::{Host, key};
use crate::upstream::tls::Shown;

/// A certificate chain with its key.
#[derive(Debug)]
pub(super) struct ServerCertificate {
    shown: Arc<Shown>,
    /// The host keys that it covers.
    names: Box<[Box<[u8]>]>,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("the private key is missing or can't be read")]
    NoKey,
    #[error("the chain is not PEM")]
    Chain(#[source] rustls::pki_types::pem::Error),
    #[error("the chain holds no certificate")]
    Empty,
    #[error("the private key is not PEM")]
    Key(#[source] rustls::pki_types::pem::Error),
    #[error("the private key is of no supported kind: use RSA, ECDSA P-256, P-384, P-521 or Ed25519")]
    KeyKind(#[source] rustls::Error),
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatch(#[source] rustls::Error),
    #[error("the first certificate of the chain can't be parsed")]
    Leaf,
}

impl ServerCertificate {
    pub(super) fn compile(unit: &Certificate, key: Option<&PrivateKey>) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(unit.chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(CertificateError::Chain)?;
        let leaf = chain.first().ok_or(CertificateError::Empty)?;
        let names = names(leaf)?;
        let key = key.ok_or(CertificateError::NoKey)?;
        let der = PrivateKeyDer::from_pem_slice(key.pem.as_bytes()).map_err(CertificateError::Key)?;
        let signing = any_supported_type(&der).map_err(CertificateError::KeyKind)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(CertificateError::Mismatch)?;
        Ok(Self { shown: Arc::new(Shown::new(Arc::new(certified))), names })
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(self.shown.key())
    }

    /// As what is shown to endpoints.
    pub(super) fn shown(&self) -> &Arc<Shown> {
        &self.shown
    }

    /// Whether its names cover a host. A wildcard of a certificate stands for one label (RFC 9525 6.3).
    pub(super) fn covers(&self, host: &Host<'_>) -> bool {
        host.keys(true).take(2).any(|key| !key.is_empty() && self.names.iter().any(|name| **name == *key))
    }
}

fn names(leaf: &CertificateDer<'_>) -> Result<Box<[Box<[u8]>]>, CertificateError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Leaf)?;
    let Ok(Some(alternative)) = parsed.subject_alternative_name() else { return Ok(Box::default()) };
    let dns = alternative.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(HostPattern::new(name)),
        _ => None,
    });
    Ok(dns.map(|pattern| key(Some(&pattern)).as_bytes().into()).collect())
}
