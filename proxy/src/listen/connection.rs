//! A connection on its worker, from the hand-off to the codec that serves it.
//!
//! Called by the worker, once per connection. Finds out what is spoken: what the port says, then ALPN on
//! TLS and the preface of HTTP/2 in clear. Refuses to know what a request is.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use std::time::Duration;

use proxy_config::listener::Protocol;
use proxy_config::name::UnitId;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout_at};
use tracing::debug;

use super::context::{Client, Context};
use super::handoff::Handed;
use super::tls::{Secured, Spoken};
use crate::http::standing::{self, Standing};
use crate::http::{h1, h1::HEAD_TIMEOUT, h2};
use crate::l4::hello::{self, Hello};
use crate::l4::replay::Replay;
use crate::l4::streams;
use crate::metrics::WorkerMetrics;
use crate::table::Table;
use crate::tcp::Tcp;

/// What no request of HTTP/1 can begin with: the start of the preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI *";
/// The pause before a preface that came in pieces is looked at again.
const PEEK_PAUSE: Duration = Duration::from_millis(5);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Serves a connection to its end.
pub(super) async fn serve(handed: Handed, context: Rc<Context>) {
    let Handed { stream, local, peer, at, held: _held } = handed;
    let _open = Open::new(context.metrics());
    let client = Client::in_clear(peer, local, at);
    match TcpStream::from_std(stream) {
        Ok(stream) => speak(stream.into(), client, &context).await,
        Err(error) => debug!(%peer, %local, %error, "can't watch a connection"),
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open<'c>(&'c WorkerMetrics);

impl<'c> Open<'c> {
    fn new(metrics: &'c WorkerMetrics) -> Self {
        metrics.connections.fetch_add(1, Relaxed);
        metrics.open_connections.fetch_add(1, Relaxed);
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Relaxed);
    }
}

/// What a connection has come to speak is boxed, or each of them would have room for the largest of all that it
/// might have spoken. The most common and smallest, HTTP/1.1 in clear, is not.
async fn speak(stream: Tcp, client: Client, context: &Context) {
    // A port that is gone since the accept has nothing to say.
    let Some(protocol) = context.table(|table| Some(table.port(client.local)?.protocol())) else { return };
    match protocol {
        Protocol::Https => {
            Box::pin(speak_securely(Replay::new(Vec::new(), stream), client, context)).await;
        }
        Protocol::Http => {
            match timeout_at(client.accepted + HEAD_TIMEOUT, begins_http2(stream.as_tokio())).await {
                Ok(Ok(true)) => Box::pin(h2::serve(stream, client, context)).await,
                Ok(Ok(false)) => h1::serve(stream, client, context).await,
                Ok(Err(error)) => debug!(peer = %client.peer, %error, "lost before its first byte"),
                Err(_) => debug!(peer = %client.peer, "sent nothing in time"),
            }
        }
        Protocol::Tls => Box::pin(speak_tls(stream, client, context)).await,
        Protocol::Tcp => {
            let listener = context.table(|table| listener(&client, table));
            Box::pin(streams::forward(stream, &Client { listener, ..client }, context)).await;
        }
        // Datagrams come on no connection.
        Protocol::Udp => {}
    }
}

/// Looks at the server name before it is known who ends TLS.
async fn speak_tls(stream: Tcp, client: Client, context: &Context) {
    let deadline = context.shared().tls.deadline(client.accepted);
    let (stream, hello) = match timeout_at(deadline, hello::read(stream)).await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return debug!(peer = %client.peer, %error, "lost before its TLS handshake"),
        Err(_) => return debug!(peer = %client.peer, "began no TLS handshake in time"),
    };
    if let Hello::Named(sni) = hello {
        let client = Client { sni, ..client.clone() };
        let passthrough =
            |table: &Table| Some(table.port(client.local)?.chosen_by(client.sni.as_deref())?.passthrough);
        if context.table(passthrough) == Some(true) {
            let listener = context.table(|table| listener(&client, table));
            let client = Client { secure: true, listener, ..client };
            return Box::pin(streams::forward(stream, &client, context)).await;
        }
    }
    Box::pin(speak_securely(stream, client, context)).await;
}

/// The listener that a connection meets.
fn listener(client: &Client, table: &Table) -> Option<UnitId> {
    Some(table.port(client.local)?.chosen_by(client.sni.as_deref())?.listener.clone())
}

async fn speak_securely(stream: Replay<Tcp>, client: Client, context: &Context) {
    match Box::pin(context.shared().tls.accept(stream, client.local, client.accepted)).await {
        Ok(secured) => {
            let Secured { stream, sni, protocol, validated } = secured;
            let client = Client { secure: true, sni, validated, ..client };
            // Who was told to look for losses during the handshake was not this connection. One table says both
            // which listener it meets and how it stands, or a swap between the two would cut it.
            let (client, standing) = context.table(|table| {
                let client = Client { listener: listener(&client, table), ..client };
                let standing = standing::of_connection(table, &client);
                (client, standing)
            });
            if standing != Standing::Stays {
                return debug!(peer = %client.peer, "what it was validated by has changed meanwhile");
            }
            match protocol {
                Spoken::Http2 => Box::pin(h2::serve(stream, client, context)).await,
                Spoken::Http1 => Box::pin(h1::serve(stream, client, context)).await,
                Spoken::Stream => Box::pin(streams::forward(stream, &client, context)).await,
            }
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            debug!(peer = %client.peer, local = %client.local, %error, cause, "no TLS");
        }
    }
}

/// Looks at the first bytes without taking them. An end of the stream counts as no preface: the codec
/// meets it again.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    let mut pause = PEEK_PAUSE;
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == PREFACE.len() || seen == 0 || first[..seen] != PREFACE[..seen] {
            return Ok(first == *PREFACE);
        }
        sleep(pause).await;
        // Who sends a preface byte by byte waits longer each time, instead of keeping the worker busy.
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
