//! Owns a stream from its route to its end: the choice of an endpoint, the connection to it, the bytes.
//!
//! Called by the worker's connection, for TCP and for TLS that is passed on or has ended here. Waits for
//! no byte of the client: many protocols let the server speak first. An endpoint that goes away changes
//! nothing: what is open at it finishes. Refuses to know what is said.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use crate::http::exchange::MAX_ATTEMPTS;
use crate::http::h1::buffer::ReadBuffer;
use crate::http::standing;
use crate::http::tunnel::{Side, tunnel};
use crate::listen::context::{Client, Context};
use crate::metrics::streams::Outcome;
use crate::table::l4::L4Route;
use crate::table::slot::Slot;
use crate::upstream::balance::Backend;
use crate::upstream::registry::InFlight;
use crate::upstream::stream::Stream;

/// Where a stream goes.
struct Aim {
    route: Arc<L4Route>,
    slot: Slot,
    backend: Arc<Backend>,
    /// What is passed on is the client's own TLS.
    passthrough: bool,
}

/// Passes a stream on to an endpoint of its route, until both sides have ended. One for which there is no
/// route or no endpoint is closed at once.
pub async fn forward<S>(mut stream: S, client: &Client, context: &Context)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(aim) = aim(client, context) else { return };
    let (mut upstream, _in_flight) = match connect(&aim, context).await {
        Ok(connected) => connected,
        Err(outcome) => return aim.route.metrics.record(outcome),
    };
    let metrics = &aim.route.metrics;
    metrics.record(Outcome::Forwarded);
    let _open = metrics.open();
    let timer = context.timers.timer();
    // A configuration may have taken it away while the endpoint was being connected to.
    timer.ask();
    let near = Side { stream: &mut stream, buffer: ReadBuffer::new(&context.buffers) };
    let far = Side { stream: &mut upstream, buffer: ReadBuffer::new(&context.buffers) };
    let time_left = || context.time_left(|table| standing::of_stream(table, client, (&aim.route, aim.slot)));
    let moved = tunnel(near, far, &timer, time_left).await;
    metrics.moved(moved.sent, moved.received);
}

fn aim(client: &Client, context: &Context) -> Option<Aim> {
    context.table(|table| {
        let chosen = table.port(client.local)?.chosen_by(client.sni.as_deref())?;
        let route = chosen.route?;
        let backend = route.choose().and_then(|slot| {
            let backend = match chosen.passthrough {
                true => table.backend_of_passthrough(slot)?,
                false => table.backend(slot)?,
            };
            Some((slot, backend.seen_with(chosen.shown).into_owned()))
        });
        let Some((slot, backend)) = backend else {
            route.metrics.record(Outcome::NoBackend);
            return None;
        };
        Some(Aim { route: Arc::clone(route), slot, backend, passthrough: chosen.passthrough })
    })
}

/// A connection to an endpoint; where one can't be reached, another is tried.
async fn connect(aim: &Aim, context: &Context) -> Result<(Stream, InFlight), Outcome> {
    let mut failed = Vec::new();
    for _ in 0..MAX_ATTEMPTS {
        let endpoint = aim.backend.pick(&failed).ok_or(Outcome::NoEndpoint)?;
        if let Some(in_flight) = endpoint.enter() {
            match context.pool.connect(endpoint, aim.passthrough).await {
                Ok(stream) => return Ok((stream, in_flight)),
                Err(error) => debug!(endpoint = %endpoint.address(), %error, "no stream"),
            }
        }
        failed.push(Arc::clone(endpoint));
    }
    Err(Outcome::Unreachable)
}
