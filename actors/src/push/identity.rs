//! Owns: who a controller or a proxy is: its certificate, its key and the authorities that it trusts.
//! Called by the credentials actor, by the command that writes identity files, and by tests.
//! Refuses to know: who issues certificates (`authority.rs`), how they are used (`mtls.rs`) and when they are
//! renewed (`credentials.rs`).
//!
//! Every certificate carries one URI as its subject alternative name: `urn:portreeve:controller`, or
//! `urn:portreeve:proxy:<identity>`. Names and addresses play no part.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// The subject alternative name of controllers.
pub const CONTROLLER_URI: &str = "urn:portreeve:controller";
const PROXY_URI_PREFIX: &str = "urn:portreeve:proxy:";

/// The names of the identity files in a folder, and of the keys of a Secret of type `kubernetes.io/tls`.
pub mod file {
    /// The certificates of the authorities that are trusted.
    pub const AUTHORITIES: &str = "ca.crt";
    /// The own certificate chain.
    pub const CHAIN: &str = "tls.crt";
    /// Its private key.
    pub const KEY: &str = "tls.key";
}

/// Who a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A controller.
    Controller,
    /// The proxy of this identity: its pod's uid, or its name outside a cluster.
    Proxy(String),
}

impl Role {
    /// The URI that a certificate of this role carries.
    pub fn uri(&self) -> String {
        match self {
            Self::Controller => CONTROLLER_URI.to_owned(),
            Self::Proxy(identity) => format!("{PROXY_URI_PREFIX}{identity}"),
        }
    }
}

/// Why an identity can't be made or read.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The certificate library refuses.
    #[error("the certificate of {what} can't be made or read")]
    Certificate {
        /// Whose.
        what: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A key without its certificate.
    #[error(
        "the authority's key is the key of none of its certificates: put both back as they were, or \
        delete both for a new authority"
    )]
    Unmatched,
    /// A PEM text holds no certificate or no key.
    #[error("{what} is not PEM of the expected kind: issue the identity again")]
    Pem {
        /// Which text.
        what: String,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A file can't be read or written.
    #[error("the identity file {path} can't be used")]
    File {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS refuses what it was given.
    #[error("the identity can't be used for TLS")]
    Tls(#[from] rustls::Error),
}

/// A certificate with its key, and the authorities that its owner trusts.
#[derive(Clone)]
pub struct Identity {
    /// Certificates of the trusted authorities, PEM.
    pub authorities: String,
    /// The own chain, PEM.
    pub chain: String,
    /// The own private key, PEM.
    pub key: Arc<str>,
    /// When the certificate ends.
    pub not_after: SystemTime,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain && self.authorities == other.authorities
    }
}

impl Identity {
    /// Reads `ca.crt`, `tls.crt` and `tls.key` of a folder.
    ///
    /// # Errors
    /// Where a file is missing, unreadable or not PEM.
    pub fn read(folder: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path)
                .map_err(|source| IdentityError::File { path: path.display().to_string(), source })
        };
        Self::new(read(file::AUTHORITIES)?, read(file::CHAIN)?, read(file::KEY)?.into())
    }

    pub(super) fn new(authorities: String, chain: String, key: Arc<str>) -> Result<Self, IdentityError> {
        let not_after = not_after(&chain)?;
        Ok(Self { authorities, chain, key, not_after })
    }

    /// Writes the three files into a folder, for its owner alone; each appears whole or not at all, the
    /// chain last, so that a reader which sees a new chain sees its key too.
    ///
    /// # Errors
    /// Where the folder can't be made or written.
    pub fn write(&self, folder: &Path) -> Result<(), IdentityError> {
        let fail = |path: &Path| {
            let path = path.display().to_string();
            move |source| IdentityError::File { path, source }
        };
        std::fs::create_dir_all(folder).map_err(fail(folder))?;
        for (name, text) in
            [(file::AUTHORITIES, &*self.authorities), (file::KEY, &*self.key), (file::CHAIN, &*self.chain)]
        {
            let path = folder.join(name);
            write_private(&path, text).map_err(fail(&path))?;
        }
        Ok(())
    }

    /// The own chain, decoded.
    ///
    /// # Errors
    /// Where it is not PEM.
    pub fn chain_der(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        certificates("the certificate chain", &self.chain)
    }

    /// The private key, decoded.
    ///
    /// # Errors
    /// Where it is not PEM.
    pub fn key_der(&self) -> Result<PrivateKeyDer<'static>, IdentityError> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|source| IdentityError::Pem { what: "the private key".into(), source })
    }

    /// The trusted authorities, decoded.
    ///
    /// # Errors
    /// Where they are not PEM or not certificates of authorities.
    pub fn roots(&self) -> Result<rustls::RootCertStore, IdentityError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("the authorities' certificates", &self.authorities)? {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

/// Whether a certificate (DER) speaks for exactly this URI and nobody else.
pub fn speaks_for(certificate: &[u8], uri: &str) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    matches!(names.value.general_names[..], [x509_parser::extensions::GeneralName::URI(name)] if name == uri)
}

pub(super) fn certificate_error(what: &str) -> impl Fn(rcgen::Error) -> IdentityError {
    let what = what.to_owned();
    move |source| IdentityError::Certificate { what: what.clone(), source }
}

pub(super) fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let fail = |source| IdentityError::Pem { what: what.to_owned(), source };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(fail)?;
    if found.is_empty() { Err(fail(rustls_pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

fn not_after(pem: &str) -> Result<SystemTime, IdentityError> {
    let first = certificates("the certificate chain", pem)?.swap_remove(0);
    der_not_after(&first).ok_or_else(|| IdentityError::Pem {
        what: "the certificate chain".into(),
        source: rustls_pki_types::pem::Error::NoItemsFound,
    })
}

/// When a certificate ends.
pub(super) fn der_not_after(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_after.to_datetime().into())
}

/// When a certificate begins to be valid.
pub(super) fn der_not_before(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(parsed.validity().not_before.to_datetime().into())
}

pub(super) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64 is ASCII")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// Puts a file that only its owner can read in place, whole or not at all.
///
/// # Errors
/// What the system says of the file or its folder.
pub fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let partial = path.with_extension("partial");
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(partial, path)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::super::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE};
    use super::*;

    fn authority() -> Authority {
        Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap()
    }

    #[test]
    fn a_certificate_speaks_for_its_role_alone() {
        let identity =
            authority().issue(&Role::Proxy("edge-1".into()), SystemTime::now(), LEAF_LIFE).unwrap();
        let leaf = identity.chain_der().unwrap().swap_remove(0);
        assert!(speaks_for(&leaf, "urn:portreeve:proxy:edge-1"));
        assert!(!speaks_for(&leaf, "urn:portreeve:proxy:edge-10"));
        assert!(!speaks_for(&leaf, CONTROLLER_URI));
        assert!(!speaks_for(b"nonsense", CONTROLLER_URI));
    }

    #[test]
    fn files_give_back_what_was_written_and_are_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let identity = authority().issue(&Role::Controller, SystemTime::now(), LEAF_LIFE).unwrap();
        identity.write(folder.path()).unwrap();
        let read = Identity::read(folder.path()).unwrap();
        assert_eq!(read, identity);
        assert_eq!(read.key, identity.key);
        let mode = std::fs::metadata(folder.path().join(file::KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(read.not_after > SystemTime::now() + LEAF_LIFE - Duration::from_secs(60));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let authority = authority();
        let identity = authority.issue(&Role::Controller, SystemTime::now(), LEAF_LIFE).unwrap();
        assert!(!format!("{authority:?} {identity:?}").contains("PRIVATE"));
    }
}
