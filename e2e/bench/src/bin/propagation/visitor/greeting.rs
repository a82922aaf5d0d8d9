//! The first half of a TLS handshake: far enough to see the certificate that a server shows.
//! Called by `visitor.rs`. Nothing is sent over such a connection, so it does not matter who signed.

use std::io::{Error, ErrorKind, Result};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// A hello that has been sent.
pub(super) struct Greeting {
    stream: TcpStream,
    tls: ClientConnection,
}

impl Greeting {
    /// Asks for a server by its name.
    pub(super) fn send(stream: TcpStream, host: &str) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(Error::other)?;
        let tls = ClientConnection::new(Arc::new(config), name).map_err(Error::other)?;
        let mut greeting = Self { stream, tls };
        greeting.write()?;
        Ok(greeting)
    }

    fn write(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }

    /// Reads until the server has shown its certificate, in DER.
    pub(super) fn certificate(mut self) -> Result<Vec<u8>> {
        loop {
            if let Some([shown, ..]) = self.tls.peer_certificates() {
                return Ok(shown.to_vec());
            }
            if self.tls.read_tls(&mut self.stream)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.tls.process_new_packets().map_err(Error::other)?;
            // A server that wants another group of keys asks for a second hello.
            self.write()?;
        }
    }
}

/// Takes whatever certificate is shown: to see it is all that is wanted.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _shown: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
