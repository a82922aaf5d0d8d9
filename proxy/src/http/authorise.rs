//! Owns external authorisation: a service is asked whether a request may pass before anything else is done
//! with it.
//!
//! Called by the codecs of both protocols with a request that is valid and routed, before it is forwarded or
//! redirected. What is asked goes over the pools of the worker to the endpoints of a backend, as requests
//! do; a route without the filter never comes here. It fails closed: whatever goes wrong, the request does not
//! pass. Refuses to know how a client is answered.
//! Source: Gateway API `HTTPExternalAuthFilter`, GEP-1494.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::body::BodyWriter;
use super::filters::{Filters, HeaderEdits};
use super::h1::buffer::Buffers;
use super::mirror::Sinks;
use super::plan::{Plan, edits};
use super::render::Origin;
use super::respond::Reason;
use super::standing::{self, Standing};
use super::timers::Limit;
use super::validate::Request;
use super::validate::field::FieldRef;
use crate::listen::context::{Client, Context};
use crate::table::request::RequestView;
use crate::table::route::Routed;
use crate::upstream::balance::Backend;
use crate::upstream::pool::Pool;

mod by_grpc;
mod by_http;
mod call;
pub mod checks;

use checks::How;

/// How long a service may take to say whether a request may pass.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The services that a request has to pass, as the table in force says.
#[derive(Debug)]
pub struct Asking {
    /// The share of the rule that the request fell to; `None`: it goes to no backend.
    pub share: Option<usize>,
    /// One for each check.
    pub backends: Vec<Arc<Backend>>,
}

impl Asking {
    /// For how long an exchange may go on before it is known whether it passes; `None`: for good.
    pub fn time_left(
        &self,
        (request, routed): (&Request<'_>, &Routed),
        client: &Client,
        context: &Context,
    ) -> Option<Duration> {
        context.time_left(|table| match self.share {
            Some(share) => standing::of_exchange(table, client, (routed, share), request.authority.host),
            None => Standing::Stays,
        })
    }
}

/// The content of a request, which has been read to be shown.
#[derive(Debug, Default)]
pub struct Content {
    /// The content.
    pub bytes: Vec<u8>,
    /// What came behind it and may be passed on, as field lines.
    pub trailers: Vec<u8>,
}

impl Content {
    /// Appends it behind the head of a request, and to its copies.
    pub fn write(&self, writer: BodyWriter, out: &mut Vec<u8>, copies: &mut Sinks) {
        let begun = out.len();
        writer.data(&self.bytes, out);
        writer.end(&self.trailers, out);
        copies.push(&out[begun..]);
        copies.end();
    }
}

/// A request that is asked about.
pub struct Subject<'a, F> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Its fields.
    pub fields: F,
    /// The route that takes it.
    pub routed: &'a Routed,
    /// Who sent it.
    pub client: &'a Client,
    /// The same, as backends are told.
    pub origin: &'a Origin,
    /// Its content, where that was read.
    pub content: Option<&'a Content>,
}

impl<F> Subject<'_, F> {
    /// For how long its exchange may go on while services are asked; `None`: for good.
    pub fn time_left(&self, asking: &Asking, context: &Context) -> Option<Duration> {
        asking.time_left((self.request, self.routed), self.client, context)
    }
}

/// What services have said.
#[derive(Debug)]
pub enum Verdict {
    /// The request passes, with these changes.
    Granted(Box<Granted>),
    /// It does not: this is what the client gets, from the check of this number.
    Denied(Box<Denial>, usize),
}

/// What becomes of a request that passes.
#[derive(Debug)]
pub struct Granted {
    /// The filters of its share, or of the rule, with what the services have changed.
    pub filters: Filters,
    /// The filters of the rule alone, by which copies are made.
    pub of_rule: Filters,
    /// Edits of the response that the services want besides.
    pub response: HeaderEdits,
    /// Its content, where that was read.
    pub content: Option<Content>,
}

/// A field of a service's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name, as sent; a token.
    pub name: Vec<u8>,
    /// Its value, without control characters.
    pub value: Vec<u8>,
}

/// The answer of a service that does not let a request pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Its status, 200 to 599.
    pub status: u16,
    /// Its fields, less those that frame it.
    pub fields: Vec<Told>,
    /// Its content.
    pub content: Bytes,
}

impl Denial {
    /// Whether a response of this status has content.
    pub fn has_content(&self) -> bool {
        !matches!(self.status, 204 | 304)
    }

    /// How a client is told of it: by the response's edits of the filters that come before the check, and as
    /// other responses to its origin.
    pub fn edits<'r, R: RequestView>(
        routed: &'r Routed,
        asking: &Asking,
        check: usize,
        view: &R,
    ) -> Cow<'r, HeaderEdits> {
        let before = routed.checks(asking.share).and_then(|checks| checks.steps.get(check));
        let Some(before) = before.map(|step| &step.before.response) else { return Cow::default() };
        let cors = routed.rule().policies.as_deref().and_then(|policies| policies.cors.as_ref());
        cors.map_or(Cow::Borrowed(before), |cors| Cow::Owned(cors.response(view, before)))
    }
}

/// What one service has said.
#[derive(Debug)]
enum Answered {
    /// The request passes: edits of it, and of its response.
    Yes(HeaderEdits, HeaderEdits),
    No(Denial),
}

/// How many bytes of a request's content the services are shown; `None`: none of them sees any.
pub fn shown(routed: &Routed, asking: &Asking) -> Option<usize> {
    let steps = routed.checks(asking.share).map_or(&[][..], |checks| &checks.steps);
    // What is more than any one may see is refused, so the least counts.
    steps.iter().map(|step| step.max_body).filter(|most| *most > 0).min()
}

/// Why a request is refused about which a limit was reached while its content was read to be shown.
pub fn unread(limit: Limit) -> Reason {
    match limit {
        Limit::Withdrawn => Reason::Withdrawn,
        Limit::Request => Reason::RequestTimeout,
        _ => Reason::RequestBodyTimeout,
    }
}

/// Why a request is refused about which a limit was reached while a service was asked.
pub fn over(limit: Limit) -> Reason {
    match limit {
        Limit::Withdrawn => Reason::Withdrawn,
        Limit::Request => Reason::RequestTimeout,
        _ => Reason::AuthorisationTimeout,
    }
}

/// Asks one service after the other, as the filters stand.
///
/// # Errors
/// The reason why the request is refused where that is not what a service has said.
pub async fn ask<'f, F>(
    asking: &Asking,
    subject: &Subject<'_, F>,
    (pool, buffers): (&Pool, &Buffers),
) -> Result<Verdict, Reason>
where
    F: Iterator<Item = FieldRef<'f>> + Clone,
{
    let Subject { routed, .. } = subject;
    let checks = routed.checks(asking.share).ok_or(Reason::AuthorisationFailed)?;
    let (mut request, mut response) = (HeaderEdits::default(), HeaderEdits::default());
    let mut of_rule = routed.rule().filters.clone();
    for (check, (step, backend)) in checks.steps.iter().zip(&asking.backends).enumerate() {
        request = request.followed_by(&step.edits);
        let answered = match &step.how {
            How::Http(how) => by_http::ask(how, (subject, step, &request), backend, (pool, buffers)).await?,
            How::Grpc(how) => by_grpc::ask(how, (subject, step, &request), backend, (pool, buffers)).await?,
        };
        match answered {
            Answered::Yes(edits, more) => {
                request = request.followed_by(&edits);
                response = response.followed_by(&more);
            }
            Answered::No(denial) => return Ok(Verdict::Denied(Box::new(denial), check)),
        }
        if step.is_of_rule {
            of_rule.request = request.followed_by(&step.rest_of_rule);
        }
    }
    let mut filters = routed.filters(asking.share).clone();
    filters.request = request.followed_by(&checks.rest);
    Ok(Verdict::Granted(Box::new(Granted { filters, of_rule, response, content: None })))
}

impl Plan {
    /// The plan for a request that has passed.
    pub fn granted(mut self, routed: &Routed, granted: Box<Granted>) -> Self {
        let share = match &self {
            Self::Forward(target) => Some(target.share),
            Self::Redirect(share, _) => *share,
            Self::Answer(_) | Self::Preflight(_) => return self,
        };
        let (Self::Redirect(_, extra) | Self::Forward(super::plan::Target { extra, .. })) = &mut self else {
            return self;
        };
        if !granted.response.is_empty() {
            *extra = Some(Box::new(edits(routed, share, extra).followed_by(&granted.response)));
        }
        if let Self::Forward(target) = &mut self {
            target.granted = Some(granted);
        }
        self
    }
}
