//! How the clients of a listener are validated, compiled. Source: GEP-91.
//!
//! Made by the compiler, used by `listen::tls` in each handshake that such a listener takes.

use std::sync::Arc;

use proxy_config::listener::{ClientValidation, ClientValidationMode};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ProducesTickets, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConnection, SignatureScheme};

use super::authority::{Bundle, roots};

/// How clients are validated.
#[derive(Debug)]
pub struct Clients {
    rule: ClientValidation,
    /// What of the rule's bundles could be used.
    bundles: Vec<Arc<Bundle>>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Its own: a session that began under other terms is nothing here.
    tickets: Arc<dyn ProducesTickets>,
}

/// Why clients can't be validated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientsError {
    #[error("none of the bundles of authorities that validate its clients can be used")]
    NoAuthority,
    #[error("clients can't be validated by its bundles of authorities")]
    Verifier(#[source] VerifierBuilderError),
    #[error("the system gives no randomness for the keys of session tickets")]
    Tickets(#[source] rustls::Error),
}

impl Clients {
    pub(super) fn compile(rule: &ClientValidation, bundles: Vec<Arc<Bundle>>) -> Result<Self, ClientsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ClientCertVerifier> = match rule.mode {
            ClientValidationMode::AllowInsecureFallback => {
                let schemes = provider.signature_verification_algorithms.supported_schemes();
                Arc::new(Anybody { schemes })
            }
            ClientValidationMode::AllowValidOnly if bundles.is_empty() => {
                return Err(ClientsError::NoAuthority);
            }
            ClientValidationMode::AllowValidOnly => {
                let roots = Arc::new(roots(bundles.iter().map(|bundle| &**bundle)));
                let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.build().map_err(ClientsError::Verifier)?
            }
        };
        let tickets = aws_lc_rs::Ticketer::new().map_err(ClientsError::Tickets)?;
        Ok(Self { rule: rule.clone(), bundles, verifier, tickets })
    }

    /// Whether it was made of these: then it goes on, and with it the sessions that it has issued tickets for.
    pub(super) fn is_of(&self, rule: &ClientValidation, bundles: &[Arc<Bundle>]) -> bool {
        let (mine, theirs) = (self.bundles.iter(), bundles.iter());
        self.rule == *rule
            && mine.len() == theirs.len()
            && mine.zip(theirs).all(|(a, b)| a.digest() == b.digest())
    }

    /// Whether who was validated by these need not be validated again: the same is asked, though the
    /// authorities may have changed since.
    pub fn asks_the_same_as(&self, other: &Self) -> bool {
        self.rule == other.rule
    }

    /// What looks at a client's certificate.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    /// The keys of session tickets under this rule.
    pub fn tickets(&self) -> Arc<dyn ProducesTickets> {
        Arc::clone(&self.tickets)
    }

    /// Looks again at the certificate of a session that was resumed: it may have expired since.
    ///
    /// # Errors
    /// Where it is not valid any more.
    pub fn check_resumed(&self, connection: &ServerConnection) -> Result<(), rustls::Error> {
        match connection.peer_certificates() {
            Some([leaf, intermediates @ ..]) => {
                self.verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop)
            }
            _ if self.verifier.client_auth_mandatory() => Err(rustls::Error::NoCertificatesPresented),
            _ => Ok(()),
        }
    }
}

/// Takes every client. A certificate is asked for and nothing is made of it: not even its signature is
/// looked at, because one that can't be parsed at all has to be accepted too.
#[derive(Debug)]
struct Anybody {
    schemes: Vec<SignatureScheme>,
}

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests;
