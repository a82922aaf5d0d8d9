//! Who the proxy is to controllers, and who may speak to it: the TLS of the admin port.
//!
//! Owns the identity (certificate, key, trusted authorities) as it is now: from files that are read
//! again when they change, or from a channel. Called by the admin actor. Refuses to issue certificates,
//! and to know what is asked over a connection.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme, version,
};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use x509_parser::extensions::GeneralName;

use crate::enrolment::Enrolment;

/// The one name, as a URI in the subject alternative names, that may use the admin port.
pub const CONTROLLER_URI: &str = "urn:portreeve:controller";

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An identity as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificates of the authorities that controllers' certificates come from.
    pub authorities: Arc<str>,
    /// The proxy's own chain, leaf first.
    pub chain: Arc<str>,
    /// Its private key.
    pub key: Arc<str>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity { .. }")
    }
}

/// Where the identity comes from.
#[derive(Clone, Debug)]
pub enum TlsSource {
    /// A folder with `ca.crt`, `tls.crt` and `tls.key`, looked at every second.
    Files(PathBuf),
    /// The same in the enrolment's folder, but there may be none at first: until one is got the admin port
    /// answers nobody.
    Enrolled(Enrolment),
    /// This process: the demo and tests.
    Held(watch::Receiver<Arc<Identity>>),
}

/// Why an identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file can't be read.
    #[error("identity file {path} can't be read: issue the proxy's identity into that folder")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A text is not PEM of its kind.
    #[error("the {what} of the proxy's identity is not PEM: issue it again")]
    Pem {
        /// Which one.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The authorities are none.
    #[error("the authorities of the proxy's identity can't be used: issue it again")]
    Authorities(#[source] VerifierBuilderError),
    /// Certificate and key don't belong together, or are of an unknown kind.
    #[error("the certificate of the proxy's identity can't be used: issue it again")]
    Certificate(#[from] Error),
}

impl TlsSource {
    /// The identity as it is now.
    ///
    /// # Errors
    /// Where a file can't be read.
    pub fn read(&self) -> Result<Identity, IdentityError> {
        match self {
            Self::Files(folder) | Self::Enrolled(Enrolment { folder, .. }) => read_files(folder),
            Self::Held(held) => Ok((**held.borrow()).clone()),
        }
    }
}

fn read_files(folder: &Path) -> Result<Identity, IdentityError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path)
            .map(Arc::from)
            .map_err(|source| IdentityError::File { path: path.clone(), source })
    };
    Ok(Identity { authorities: read("ca.crt")?, chain: read("tls.crt")?, key: read("tls.key")? })
}

/// What the admin port says and asks in a handshake, under an identity. TLS 1.3 only.
///
/// # Errors
/// Where the identity can't be used.
pub fn server_config(identity: &Identity) -> Result<ServerConfig, IdentityError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates("list of authorities", &identity.authorities)? {
        roots.add(authority)?;
    }
    let by_authority = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(IdentityError::Authorities)?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|source| IdentityError::Pem { what: "private key", source })?;
    let mut config = ServerConfig::builder_with_provider(provider as Arc<CryptoProvider>)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(ControllersOnly { by_authority }))
        .with_single_cert(certificates("certificate chain", &identity.chain)?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would go on under a certificate that is no longer asked for.
    config.send_tls13_tickets = 0;
    Ok(config)
}

pub(crate) fn certificates(
    what: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| IdentityError::Pem { what, source })
}

/// Follows a source: the channel always has the configuration of the newest identity that can be used.
///
/// # Errors
/// Where the first one can't be used, unless there may be none at first.
pub fn follow(source: TlsSource) -> Result<Followed, IdentityError> {
    let used = source.read().and_then(|first| Ok((server_config(&first)?, first)));
    let (first, known) = match (used, &source) {
        (Ok((config, identity)), _) => (Some(Arc::new(config)), Some(identity)),
        (Err(_), TlsSource::Enrolled(_)) => (None, None),
        (Err(error), _) => return Err(error),
    };
    let (sender, config) = watch::channel(first);
    let task = tokio::spawn(async move {
        match source {
            TlsSource::Files(folder) | TlsSource::Enrolled(Enrolment { folder, .. }) => {
                follow_files(&folder, known, &sender).await
            }
            TlsSource::Held(held) => follow_held(held, &sender).await,
        }
    });
    Ok(Followed { config, _task: AbortOnDropHandle::new(task) })
}

/// The TLS configuration as it is now, followed until this is dropped.
#[derive(Debug)]
pub struct Followed {
    /// The newest one; `None`: there is none yet.
    pub config: watch::Receiver<Option<Arc<ServerConfig>>>,
    _task: AbortOnDropHandle<()>,
}

/// What tells that files were written: reading keys again each second would be waste.
type Stamps = [Option<(SystemTime, u64)>; 3];

fn stamps(folder: &Path) -> Stamps {
    ["ca.crt", "tls.crt", "tls.key"].map(|name| {
        let data = fs::metadata(folder.join(name)).ok()?;
        Some((data.modified().ok()?, data.len()))
    })
}

/// Where the newest configuration is put.
type Sink = watch::Sender<Option<Arc<ServerConfig>>>;

async fn follow_files(folder: &Path, mut known: Option<Identity>, config: &Sink) {
    // None: what was read before this look may have been half of a change.
    let mut seen = None;
    loop {
        let now = stamps(folder);
        if seen.as_ref() != Some(&now) {
            match read_files(folder) {
                Ok(identity) if Some(&identity) == known.as_ref() => seen = Some(now),
                Ok(identity) => {
                    if put(&identity, config) {
                        known = Some(identity);
                        seen = Some(now);
                    }
                }
                // Whoever is to write them says why there are none.
                Err(_) if known.is_none() => {}
                Err(error) => warn!(%error, "the identity before stays in use"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn follow_held(mut held: watch::Receiver<Arc<Identity>>, config: &Sink) {
    loop {
        let identity = held.borrow_and_update().clone();
        put(&identity, config);
        if held.changed().await.is_err() {
            return;
        }
    }
}

fn put(identity: &Identity, config: &Sink) -> bool {
    match server_config(identity) {
        Ok(new) => {
            config.send_replace(Some(Arc::new(new)));
            info!("the admin port has a new identity");
            true
        }
        Err(error) => {
            warn!(%error, "the identity before stays in use");
            false
        }
    }
}

/// Takes certificates that the authorities signed and that speak for controllers and nobody else.
#[derive(Debug)]
struct ControllersOnly {
    by_authority: Arc<dyn ClientCertVerifier>,
}

/// The certificate is good, but not a controller's.
#[derive(Debug, thiserror::Error)]
#[error("the client's certificate is not one of {CONTROLLER_URI}")]
struct NotAController;

impl ClientCertVerifier for ControllersOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.by_authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.by_authority.verify_client_cert(leaf, intermediates, now)?;
        if is_controller(leaf) {
            Ok(verified)
        } else {
            warn!("a client with a certificate that is not a controller's was refused");
            Err(CertificateError::Other(OtherError(Arc::new(NotAController))).into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

pub(crate) fn is_controller(leaf: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    matches!(names.value.general_names[..], [GeneralName::URI(uri)] if uri == CONTROLLER_URI)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An identity whose one certificate is also its authority.
    fn identity() -> Identity {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem: Arc<str> = params.self_signed(&key).unwrap().pem().into();
        Identity { authorities: pem.clone(), chain: pem, key: key.serialize_pem().into() }
    }

    fn write(folder: &Path, identity: &Identity) {
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write("ca.crt", &identity.authorities);
        write("tls.key", &identity.key);
        write("tls.crt", &identity.chain);
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_change_are_read_again_and_bad_ones_leave_what_was() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &identity());
        let mut followed = follow(TlsSource::Files(folder.path().to_owned())).unwrap();
        tokio::time::sleep(3 * LOOK_EVERY).await;
        assert!(!followed.config.has_changed().unwrap(), "nothing was written");
        // Half of a change: the certificate does not fit the key.
        fs::write(folder.path().join("tls.crt"), &*identity().chain).unwrap();
        tokio::time::sleep(3 * LOOK_EVERY).await;
        assert!(!followed.config.has_changed().unwrap(), "it can't be used");
        write(folder.path(), &identity());
        tokio::time::timeout(2 * LOOK_EVERY, followed.config.changed()).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_that_is_yet_to_be_got_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        assert!(follow(TlsSource::Files(folder.path().to_owned())).is_err());
        let enrolment = Enrolment { folder: folder.path().to_owned(), ..Enrolment::default() };
        let mut followed = follow(TlsSource::Enrolled(enrolment)).unwrap();
        assert!(followed.config.borrow().is_none());
        write(folder.path(), &identity());
        let got = followed.config.wait_for(Option::is_some);
        tokio::time::timeout(2 * LOOK_EVERY, got).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_from_within_the_process_is_followed() {
        let (sender, held) = watch::channel(Arc::new(identity()));
        let mut followed = follow(TlsSource::Held(held)).unwrap();
        let before = followed.config.borrow().clone().unwrap();
        sender.send_replace(Arc::new(identity()));
        let changed = followed.config.wait_for(|config| !Arc::ptr_eq(config.as_ref().unwrap(), &before));
        tokio::time::timeout(LOOK_EVERY, changed).await.unwrap().unwrap();
    }

    #[test]
    fn an_identity_never_shows_its_key() {
        assert_eq!(format!("{:?}", identity()), "Identity { .. }");
    }

    #[test]
    fn reasons_name_the_file_or_the_text() {
        let missing = TlsSource::Files("/nowhere".into()).read().unwrap_err().to_string();
        assert!(missing.contains("/nowhere/ca.crt"), "{missing}");
        let broken = Identity { key: "no key".into(), ..identity() };
        assert!(server_config(&broken).unwrap_err().to_string().contains("private key"));
    }
}
