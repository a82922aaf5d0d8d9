//! The first message of TLS: read to learn the server name, and kept whole for whoever ends TLS.
//!
//! Called for a port that has a TLS listener, before it is known who ends TLS. Source: RFC 8446 section
//! 4.1.2, RFC 6066 section 3.

use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::replay::Replay;

/// The longest first message: one record.
const MAX_HELLO: usize = 16 << 10;

/// What a client said first.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello {
    /// A ClientHello, with this server name (lower case) if any.
    Named(Option<Arc<str>>),
    /// No ClientHello, or one that is too long.
    Unreadable,
}

/// Reads a ClientHello, in as many pieces as it comes; gives the stream as if nothing had been read.
///
/// # Errors
/// What the connection says; also where it ends before the message does.
pub async fn read<S>(mut stream: S) -> io::Result<(Replay<S>, Hello)>
where
    S: AsyncRead + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut seen = Vec::with_capacity(2 << 10);
    loop {
        let start = seen.len();
        let room = MAX_HELLO - start;
        if room == 0 {
            return Ok((Replay::new(seen, stream), Hello::Unreadable));
        }
        if (&mut stream).take(room as u64).read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(hello) = feed(&mut acceptor, &seen[start..]) {
            return Ok((Replay::new(seen, stream), hello));
        }
    }
}

/// Takes more bytes; what they make up, once there are enough.
fn feed(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Option<Hello> {
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Some(Hello::Unreadable);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(Hello::Named(hello.server_name().map(|name| name.to_ascii_lowercase().into())));
            }
            Err(_) => return Some(Hello::Unreadable),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn client_hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_hello_that_comes_byte_by_byte_is_understood_and_read_again() {
        let bytes = client_hello("Shop.Example.com");
        let (near, mut far) = tokio::io::duplex(1);
        let sent = bytes.clone();
        let send = tokio::spawn(async move {
            far.write_all(&sent).await.unwrap();
            far.write_all(b"!").await.unwrap();
        });
        let (mut stream, hello) = read(near).await.unwrap();
        assert_eq!(hello, Hello::Named(Some("shop.example.com".into())));
        let mut again = Vec::new();
        stream.read_to_end(&mut again).await.unwrap();
        send.await.unwrap();
        assert_eq!(again, [&bytes[..], b"!"].concat());
    }

    #[tokio::test]
    async fn a_client_without_a_name_is_told_from_one_that_speaks_no_tls() {
        let (_, hello) = read(&client_hello("192.0.2.1")[..]).await.unwrap();
        assert_eq!(hello, Hello::Named(None));
        let (_, hello) = read(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..]).await.unwrap();
        assert_eq!(hello, Hello::Unreadable);
    }

    #[tokio::test]
    async fn a_hello_without_end_is_given_up_within_a_bound() {
        // A handshake record after the other, of one message that claims to be long.
        let mut bytes = vec![0x16, 3, 1, 0x0f, 0xff, 1, 0, 0xff, 0xff];
        bytes.resize(5 + 0x0fff, 3);
        for _ in 0..8 {
            bytes.extend([0x16, 3, 1, 0x0f, 0xff]);
            bytes.resize(bytes.len() + 0x0fff, 3);
        }
        let (_, hello) = read(&bytes[..]).await.unwrap();
        assert_eq!(hello, Hello::Unreadable);
        let cut = client_hello("shop.example.com");
        assert!(read(&cut[..cut.len() - 1]).await.is_err());
    }
}
