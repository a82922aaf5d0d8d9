//! Clients of a controller's ports, over real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actors::push::identity::{Identity, Role};
use actors::push::{link, mtls};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Any free port.
pub(crate) const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// In paused time each wait for a socket may be a leap to the next timer.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// A GET in clear.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, Bytes::new()).await
}

/// A request in clear.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, body: Bytes) -> Answer {
    exchange(TcpStream::connect(address).await.unwrap(), method, path, body).await.unwrap()
}

/// A request by mutual TLS; none where there is no answer.
pub(crate) async fn ask_securely(
    address: SocketAddr,
    tls: ClientConfig,
    (method, path): (&str, &str),
    body: Bytes,
) -> Option<Answer> {
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(tls)).connect(mtls::any_name(), stream).await.ok()?;
    exchange(stream, method, path, body).await
}

/// What a client shows and trusts who speaks to a controller as a controller.
pub(crate) fn tls(identity: &Identity) -> ClientConfig {
    mtls::client(identity, &Role::Controller).unwrap()
}

/// The same without a certificate.
pub(crate) fn nameless(identity: &Identity) -> ClientConfig {
    let mut config = tls(identity);
    config.client_auth_cert_resolver = Arc::new(Nobody);
    config
}

#[derive(Debug)]
struct Nobody;

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

async fn exchange<S>(stream: S, method: &str, path: &str, body: Bytes) -> Option<Answer>
where
    S: link::Stream + 'static,
{
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder().method(method).uri(path).header("host", "controller");
        let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.ok()?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Some(Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() })
    };
    tokio::time::timeout(ANSWER_WITHIN, exchange).await.expect("an answer or an end in time")
}
