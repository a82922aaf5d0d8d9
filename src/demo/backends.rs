//! The sample backends: each answers every request with its name.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

/// Starts a backend on a free port of loopback and returns where it listens.
pub(crate) async fn start(name: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        // A backend of a demonstration ends with the process; a failed accept is tried again.
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let answer = service_fn(move |request| async move { answer(name, &request) });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        }
    });
    Ok(address)
}

fn answer(name: &str, request: &Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = format!("{name} answers {} {}\n", request.method(), request.uri().path());
    Ok(Response::new(Full::new(Bytes::from(text))))
}
