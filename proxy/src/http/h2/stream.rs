//! Owns one stream: a request and its answer.
//!
//! Called by the connection for each request. Has it validated and routed, and answers: by itself, or by
//! [`forward`](super::forward).

use std::time::Instant;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream};
use http::Request as Head2;
use tracing::trace;

use super::authorise::Asked;
use super::forward::{self, Job};
use super::request::{Checked, Joined, check};
use super::{MAX_HEADS, Share, Shared, render};
use crate::http::filters::redirect::Redirected;
use crate::http::plan::{self, Extra, Plan, Planned};
use crate::http::respond::Reason;
use crate::http::timers::Timer;
use crate::http::validate::Method;
use crate::table::route::Routed;

/// How an exchange went.
pub(super) struct Outcome {
    /// The status that the client got, or would have.
    pub(super) status: u16,
    /// Why it was not the upstream's answer in full.
    pub(super) reason: Option<Reason>,
}

impl Outcome {
    pub(super) fn of(reason: Reason) -> Self {
        Self { status: reason.status(), reason: Some(reason) }
    }
}

/// Serves one request.
pub(super) async fn serve(request: Head2<RecvStream>, mut respond: SendResponse<Bytes>, shared: &Shared<'_>) {
    let begun = Instant::now();
    let context = shared.context;
    let (_stream, _active) = (context.load().stream(), context.metrics().active());
    let (parts, mut body) = request.into_parts();
    let (head, shown) = (Share::of_head(&shared.heads, &parts.headers), Share::of(&shared.shown));
    let joined = Joined::new(&parts);
    // Then the path that is known is less than the client sent.
    let had_fragment = shared.seen.had_fragment(respond.stream_id().as_u32());
    let checked = match check(&parts, &joined, body.is_end_stream()) {
        Ok(_) if had_fragment => Err(Reason::MalformedTarget),
        Ok(_) if !head.is_within(MAX_HEADS) => Err(Reason::FieldsTooLarge),
        checked => checked,
    };
    let checked = match checked {
        Ok(checked) => checked,
        Err(reason) => {
            context.metrics().refused(reason);
            answer(reason, None, &mut respond);
            return;
        }
    };
    let (outcome, routed) = match context.table(|table| plan::plan(table, &checked, &shared.client)) {
        Planned::Unrouted(reason) => (refuse(reason, &checked, &mut respond), None),
        Planned::Routed(routed, asking, plan) => {
            let asked = Asked { checked: &checked, routed: &routed, shared, shown: &shown };
            let planned = match asking {
                None => Ok((plan, None)),
                // Boxed: streams on which nobody is asked have no room for it.
                Some(asking) => Box::pin(asked.authorise((&asking, plan), &mut body, &mut respond)).await,
            };
            let outcome = match planned {
                Ok((plan, timer)) => follow((plan, timer), asked, body, &mut respond).await,
                Err(outcome) => outcome,
            };
            (outcome, Some(routed))
        }
    };
    if let Some(reason) = outcome.reason {
        context.metrics().refused(reason);
        trace!(reason = reason.label(), "not the upstream's answer");
        if reason == Reason::ClientGone {
            shared.resets.count();
        }
    }
    if let Some(routed) = &routed {
        routed.route.metrics.record(context.worker(), outcome.status, begun.elapsed());
    }
}

async fn follow(
    (plan, timer): (Plan, Option<Timer>),
    Asked { checked, routed, shared, .. }: Asked<'_>,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
) -> Outcome {
    match plan {
        Plan::Answer(reason) => refuse(reason, checked, respond),
        Plan::Preflight(edits) => reply(render::preflight(&edits), respond),
        Plan::Redirect(share, extra) => redirect(routed, (share, &extra), checked, shared, respond),
        Plan::Forward(target) => {
            forward::forward(Job { checked, routed, target, timer }, body, respond, shared).await
        }
    }
}

pub(super) fn refuse(reason: Reason, checked: &Checked<'_>, respond: &mut SendResponse<Bytes>) -> Outcome {
    answer(reason, Some(checked), respond);
    Outcome::of(reason)
}

/// Answers instead of an upstream. What the client still sends is refused once the stream is let go of.
pub(super) fn answer(reason: Reason, asked: Option<&Checked<'_>>, respond: &mut SendResponse<Bytes>) {
    let grpc_status = reason.grpc_status().filter(|_| asked.is_some_and(Checked::is_call));
    let sent = match grpc_status {
        Some(status) => respond.send_response(render::call_answer(reason, status), true).map(drop),
        None => {
            let to_head = asked.is_some_and(|checked| checked.request.method == Method::Head);
            let (head, text) = render::answer(reason);
            respond.send_response(head, to_head).and_then(|mut stream| match to_head {
                true => Ok(()),
                false => stream.send_data(text.into(), true),
            })
        }
    };
    if let Err(error) = sent {
        trace!(%error, "nobody takes the answer");
        respond.send_reset(Code::INTERNAL_ERROR);
    }
}

fn redirect(
    routed: &Routed,
    (share, extra): (Option<usize>, &Extra),
    checked: &Checked<'_>,
    shared: &Shared<'_>,
    respond: &mut SendResponse<Bytes>,
) -> Outcome {
    let Some(redirect) = &routed.filters(share).redirect else {
        return refuse(Reason::InvalidRule, checked, respond);
    };
    let request = &checked.request;
    let mut location = Vec::new();
    let redirected = Redirected {
        tls: shared.client.secure,
        host: request.authority.host,
        port: shared.client.local.port(),
        path: &request.path,
        query: request.query,
        matched: routed.matched,
    };
    redirect.location(&redirected, &mut location);
    reply(render::redirect(redirect.status, &location, plan::edits(routed, share, extra)), respond)
}

/// Answers as the route says.
fn reply(head: http::Response<()>, respond: &mut SendResponse<Bytes>) -> Outcome {
    let status = head.status().as_u16();
    match respond.send_response(head, true) {
        Ok(_) => Outcome { status, reason: None },
        Err(_) => Outcome::of(Reason::ClientGone),
    }
}
