//! Owns what a client of HTTP/1 sees of external authorisation: its content is read where that is to be shown,
//! and it gets the answer of a service that says no.
//!
//! Called by the connection before a plan is followed; whom is asked, and how, is
//! [`authorise`](crate::http::authorise)'s.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use super::view::View;
use super::{Connection, IDLE_TIMEOUT, Outcome};
use crate::http::authorise::{self, Asking, Content, Denial, Subject, Verdict};
use crate::http::body::BodyReader;
use crate::http::pace::Pace;
use crate::http::plan::Plan;
use crate::http::respond::{self, Reason};
use crate::http::timers::Limit;
use crate::http::validate::framing::Framing;
use crate::http::validate::{Method, Request};
use crate::table::route::Routed;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Has a request authorised; what is to be done with it then, or how it was answered instead.
    pub(super) async fn authorise(
        &mut self,
        (asking, plan): (&Asking, Plan),
        view: View<'_>,
        routed: &Routed,
        out: &mut Vec<u8>,
    ) -> Result<Plan, Outcome> {
        let request = view.request;
        if let Some(timeout) = routed.rule().timeouts.request.filter(|timeout| !timeout.is_zero()) {
            self.timer.set(Limit::Request, timeout);
        }
        let content = match authorise::shown(routed, asking) {
            Some(most) if request.framing != Framing::None => {
                self.content((asking, routed), request, most).await.map(Some)
            }
            _ => Ok(None),
        };
        let content = match content {
            Ok(content) => content,
            Err(Reason::ClientGone) => return Err(Outcome::of(Reason::ClientGone, false)),
            // Part of the content has been read: where the next request would begin is not known any more.
            Err(reason) => {
                let last = Request { close: true, ..request.clone() };
                return Err(self.refuse(reason, &last, out).await);
            }
        };
        // What is left of the request once it was answered.
        let rest = match &content {
            Some(_) => Request { framing: Framing::None, expects_continue: false, ..request.clone() },
            None => request.clone(),
        };
        let verdict = self.ask((asking, routed), view, content.as_ref()).await;
        self.timer.clear(Limit::Attempt);
        match verdict {
            Ok(Verdict::Granted(mut granted)) => {
                granted.content = content;
                match plan.granted(routed, granted) {
                    Plan::Redirect(share, extra) => {
                        Err(self.redirect(routed, (share, &extra), &rest, out).await)
                    }
                    plan => Ok(plan),
                }
            }
            Ok(Verdict::Denied(denial, check)) => {
                let edits = Denial::edits(routed, asking, check, &view);
                let to_head = request.method == Method::Head;
                let head = |close, out: &mut Vec<u8>| respond::denial(&denial, &edits, to_head, close, out);
                let outcome = self.reply(denial.status, head, &rest, out).await;
                Err(Outcome { reason: outcome.reason.or(Some(Reason::AuthorisationDenied)), ..outcome })
            }
            Err(reason) => Err(self.refuse(reason, &rest, out).await),
        }
    }

    /// Asks, for as long as that may take.
    async fn ask(
        &self,
        (asking, routed): (&Asking, &Routed),
        view: View<'_>,
        content: Option<&Content>,
    ) -> Result<Verdict, Reason> {
        let Self { timer, context, client, .. } = self;
        let request = view.request;
        let fields = view.head.fields(view.bytes);
        let subject = Subject { request, fields, routed, client, origin: &self.origin, content };
        timer.set(Limit::Idle, IDLE_TIMEOUT);
        timer.set(Limit::Attempt, authorise::TIMEOUT);
        let mut asked = pin!(authorise::ask(asking, &subject, (&context.pool, &context.buffers)));
        let time_left = || subject.time_left(asking, context);
        poll_fn(|cx| match asked.as_mut().poll(cx) {
            Poll::Ready(verdict) => Poll::Ready(verdict),
            Poll::Pending => timer.poll_over(cx, time_left).map(|limit| Err(authorise::over(limit))),
        })
        .await
    }

    /// Reads the content.
    ///
    /// # Errors
    /// Where it is more than `most` bytes, does not come, or is malformed.
    async fn content(
        &mut self,
        (asking, routed): (&Asking, &Routed),
        request: &Request<'_>,
        most: usize,
    ) -> Result<Content, Reason> {
        if matches!(request.framing, Framing::Length(length) if length > most as u64) {
            return Err(Reason::ContentTooLarge);
        }
        if request.expects_continue && !self.write(CONTINUE).await {
            return Err(Reason::ClientGone);
        }
        let (mut reader, mut bytes) = (BodyReader::new(request.framing), Vec::new());
        let (mut pace, mut moved) = (Pace::default(), 0);
        let Self { stream, buffer, timer, context, client, .. } = self;
        let time_left = || asking.time_left((request, routed), client, context);
        loop {
            buffer.take_content(&mut reader, &mut bytes)?;
            if bytes.len() > most {
                return Err(Reason::ContentTooLarge);
            }
            if reader.is_done() {
                pace.stop(timer);
                return Ok(Content { bytes, trailers: reader.trailers().to_vec() });
            }
            pace.wait(moved, timer, &context.shared().limits);
            timer.set(Limit::Idle, IDLE_TIMEOUT);
            let read = poll_fn(|cx| match buffer.poll_fill(cx, stream) {
                Poll::Ready(read) => Poll::Ready(read.map_err(|_| Reason::ClientGone)),
                Poll::Pending => timer.poll_over(cx, time_left).map(|limit| Err(authorise::unread(limit))),
            });
            match read.await? {
                0 => return Err(Reason::ClientGone),
                read => moved += read as u64,
            }
        }
    }
}
