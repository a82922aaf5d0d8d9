//! Owns what a client of HTTP/2 sees of external authorisation: its content is read where that is to be shown,
//! and it gets the answer of a service that says no.
//!
//! Called by the stream before a plan is followed; whom is asked, and how, is
//! [`authorise`](crate::http::authorise)'s.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Response as Head2, StatusCode};

use super::content::allowed;
use super::forward::limit;
use super::request::Checked;
use super::stream::{Outcome, refuse};
use super::{MAX_SHOWN, Share, Shared, render};
use crate::http::authorise::{self, Asking, Content, Denial, Subject, Verdict};
use crate::http::h1::IDLE_TIMEOUT;
use crate::http::pace::Pace;
use crate::http::plan::Plan;
use crate::http::respond::Reason;
use crate::http::timers::{Limit, Timer};
use crate::http::validate::framing::Framing;
use crate::http::validate::{Method, Upgrade};
use crate::table::route::Routed;

/// A request that is asked about.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The request.
    pub(super) checked: &'a Checked<'a>,
    /// The route that takes it.
    pub(super) routed: &'a Routed,
    /// Its connection.
    pub(super) shared: &'a Shared<'a>,
    /// What of its content is held to be shown.
    pub(super) shown: &'a Share<'a>,
}

impl Asked<'_> {
    /// Has a request authorised; what is to be done with it then, and what it has been timed by, or how it was
    /// answered instead.
    pub(super) async fn authorise(
        self,
        (asking, plan): (&Asking, Plan),
        body: &mut RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<(Plan, Option<Timer>), Outcome> {
        let Self { checked, routed, shared, .. } = self;
        let timer = shared.timer();
        limit(&timer, Limit::Request, routed.rule().timeouts.request);
        let content = match authorise::shown(routed, asking) {
            Some(most) if self.has_content() => {
                self.content((asking, most), &timer, body, respond).await.map(Some)
            }
            _ => Ok(None),
        };
        let verdict = match content {
            Ok(content) => {
                let verdict = self.ask(asking, &timer, content.as_ref(), respond).await;
                verdict.map(|verdict| (verdict, content))
            }
            Err(reason) => Err(reason),
        };
        timer.clear(Limit::Attempt);
        match verdict {
            Ok((Verdict::Granted(mut granted), content)) => {
                granted.content = content;
                Ok((plan.granted(routed, granted), Some(timer)))
            }
            Ok((Verdict::Denied(denial, check), _)) => {
                let edits = Denial::edits(routed, asking, check, checked);
                let to_head = checked.request.method == Method::Head;
                Err(deny(&denial, render::denial(&denial, &edits), to_head, respond))
            }
            Err(Reason::ClientGone) => Err(Outcome::of(Reason::ClientGone)),
            Err(reason) => Err(refuse(reason, checked, respond)),
        }
    }

    /// What follows an extended CONNECT is the tunnel's.
    fn has_content(self) -> bool {
        let request = &self.checked.request;
        request.framing != Framing::None && request.upgrade == Upgrade::None
    }

    /// Asks, for as long as that may take and the client waits.
    async fn ask(
        self,
        asking: &Asking,
        timer: &Timer,
        content: Option<&Content>,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Verdict, Reason> {
        let Self { checked, routed, shared, .. } = self;
        let (context, client, origin) = (shared.context, &shared.client, &shared.origin);
        let (request, fields) = (&checked.request, checked.fields.iter().copied());
        let subject = Subject { request, fields, routed, client, origin, content };
        timer.set(Limit::Idle, IDLE_TIMEOUT);
        timer.set(Limit::Attempt, authorise::TIMEOUT);
        let mut asked = pin!(authorise::ask(asking, &subject, (&context.pool, &context.buffers)));
        let time_left = || subject.time_left(asking, context);
        poll_fn(|cx| {
            if let Poll::Ready(verdict) = asked.as_mut().poll(cx) {
                return Poll::Ready(verdict);
            }
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Reason::ClientGone));
            }
            timer.poll_over(cx, time_left).map(|limit| Err(authorise::over(limit)))
        })
        .await
    }

    /// Reads the content.
    ///
    /// # Errors
    /// Where it is more than `most` bytes, does not come, or is more than all streams may have read.
    async fn content(
        self,
        (asking, most): (&Asking, usize),
        timer: &Timer,
        body: &mut RecvStream,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Content, Reason> {
        let gone = |_| Reason::ClientGone;
        let request = &self.checked.request;
        if matches!(request.framing, Framing::Length(length) if length > most as u64) {
            return Err(Reason::ContentTooLarge);
        }
        if request.expects_continue {
            let mut interim = Head2::new(());
            *interim.status_mut() = StatusCode::CONTINUE;
            respond.send_informational(interim).map_err(gone)?;
        }
        let (mut content, mut pace) = (Content::default(), Pace::default());
        let Shared { context, client, .. } = self.shared;
        let time_left = || asking.time_left((request, self.routed), client, context);
        timer.set(Limit::Idle, IDLE_TIMEOUT);
        poll_fn(|cx| {
            while let Poll::Ready(data) = body.poll_data(cx) {
                let Some(data) = data else {
                    let trailers = ready!(body.poll_trailers(cx)).map_err(gone)?;
                    content.trailers = trailers.map(|trailers| allowed(&trailers)).unwrap_or_default();
                    return Poll::Ready(Ok(()));
                };
                let data = data.map_err(gone)?;
                content.bytes.extend_from_slice(&data);
                if content.bytes.len() > most {
                    return Poll::Ready(Err(Reason::ContentTooLarge));
                }
                self.shown.grow(data.len());
                if !self.shown.is_within(MAX_SHOWN) {
                    return Poll::Ready(Err(Reason::AuthorisationFailed));
                }
                body.flow_control().release_capacity(data.len()).map_err(gone)?;
                timer.set(Limit::Idle, IDLE_TIMEOUT);
            }
            pace.wait(content.bytes.len() as u64, timer, &context.shared().limits);
            timer.poll_over(cx, time_left).map(|limit| Err(authorise::unread(limit)))
        })
        .await?;
        pace.stop(timer);
        Ok(content)
    }
}

fn deny(denial: &Denial, head: Head2<()>, to_head: bool, respond: &mut SendResponse<Bytes>) -> Outcome {
    let is_whole = to_head || !denial.has_content() || denial.content.is_empty();
    let sent = respond.send_response(head, is_whole).and_then(|mut stream| match is_whole {
        true => Ok(()),
        false => stream.send_data(denial.content.clone(), true),
    });
    match sent {
        Ok(()) => Outcome { status: denial.status, reason: Some(Reason::AuthorisationDenied) },
        Err(_) => Outcome::of(Reason::ClientGone),
    }
}
