//! Owns how a service is asked by `envoy.service.auth.v3.Authorization/Check`, and what its answer means.
//!
//! Source: envoy/service/auth/v3/external_auth.proto; gRPC over HTTP/2 for the framing of messages.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use proxy_config::backend::BackendProtocol;

use super::call::{Answer, call};
use super::checks::{ByGrpc, Step};
use super::{Answered, Denial, Subject, TIMEOUT, Told};
use crate::http::body::BodyWriter;
use crate::http::filters::{Appended, HeaderEdits, is_protected};
use crate::http::h1::buffer::Buffers;
use crate::http::lines;
use crate::http::render::Nominated;
use crate::http::respond::Reason;
use crate::http::validate::field::{self, FieldRef, Known};
use crate::http::validate::framing::Framing;
use crate::http::validate::{MAX_FIELDS, Method, Version};
use crate::upstream::balance::Backend;
use crate::upstream::pool::Pool;

mod messages;

use messages::{
    Action, Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpRequest, HttpResponse, OkHttpResponse, Peer, Request, SocketAddress, Timestamp, TlsSession,
};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Asks.
pub(super) async fn ask<'f, F>(
    how: &ByGrpc,
    (subject, step, edits): (&Subject<'_, F>, &Step, &HeaderEdits),
    backend: &Backend,
    on: (&Pool, &Buffers),
) -> Result<Answered, Reason>
where
    F: Iterator<Item = FieldRef<'f>> + Clone,
{
    let fields = shown(how, subject, edits);
    let message = frame(how, &check(subject, step, fields));
    let answer = call(backend, BackendProtocol::H2c, (Method::Other, &message), on).await?;
    let response = response(answer).ok_or(Reason::AuthorisationFailed)?;
    let is_there = |name: &str| {
        subject.fields.clone().any(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            || edits.appended().iter().any(|field| field.name.eq_ignore_ascii_case(name))
    };
    judge(response, is_there)
}

/// The call as HTTP/1 has it, for a stream of HTTP/2.
fn frame(how: &ByGrpc, request: &CheckRequest) -> Vec<u8> {
    let message = request.encode_to_vec();
    let mut out = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
         grpc-timeout: {}S\r\nTransfer-Encoding: chunked\r\n\r\n",
        how.authority,
        TIMEOUT.as_secs()
    )
    .into_bytes();
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let framed = [&[0], &length.to_be_bytes()[..], &message].concat();
    BodyWriter::Chunked.data(&framed, &mut out);
    BodyWriter::Chunked.end(b"", &mut out);
    out
}

/// The fields of the request that the service sees, names in lower case, repeated ones joined.
fn shown<'f, F>(how: &ByGrpc, subject: &Subject<'_, F>, edits: &HeaderEdits) -> Vec<(String, String)>
where
    F: Iterator<Item = FieldRef<'f>> + Clone,
{
    let Subject { request, fields, origin, .. } = subject;
    let nominated = Nominated::new(request.nominates, fields);
    let passing = fields
        .clone()
        .filter(|field| matches!(field.known, Known::Other | Known::Cookie) && !nominated.names(field.name));
    let sent = passing.map(|field| (field.name, field.value));
    let ours = origin.fields(request).map(|(name, value)| (name.as_bytes(), value));
    let appended = edits.appended().iter().map(|field| (field.name.as_bytes(), field.value.as_bytes()));
    let kept = sent.chain(ours).filter(|(name, _)| !edits.drops(name)).chain(appended);
    let mut shown: Vec<(String, String)> = Vec::new();
    for (name, value) in kept.filter(|(name, _)| how.shown.is_empty() || how.shown.has(name)) {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let name = text(name).to_ascii_lowercase();
        match shown.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&text(value));
            }
            None => shown.push((name, text(value))),
        }
    }
    shown
}

fn check<F>(subject: &Subject<'_, F>, step: &Step, headers: Vec<(String, String)>) -> CheckRequest {
    let Subject { request, routed, client, origin, content, .. } = subject;
    let content = content.filter(|_| step.max_body > 0);
    let (body, raw_body) = match content.map(|content| std::str::from_utf8(&content.bytes)) {
        Some(Ok(text)) => (text.to_owned(), Vec::new()),
        Some(Err(_)) => (String::new(), content.map(|content| content.bytes.clone()).unwrap_or_default()),
        None => (String::new(), Vec::new()),
    };
    let size = match (request.framing, content) {
        (_, Some(content)) => content.bytes.len().try_into().unwrap_or(-1),
        (Framing::None, None) => 0,
        (Framing::Length(length), None) => length.try_into().unwrap_or(-1),
        (Framing::Chunked | Framing::UntilClose, None) => -1,
    };
    let rewrite = &step.before.rewrite;
    let mut path = Vec::new();
    rewrite.path(&request.path, routed.matched, &mut path);
    path.extend_from_slice(request.query);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let http = HttpRequest {
        id: headers
            .iter()
            .find(|(name, _)| name == "x-request-id")
            .map(|(_, id)| id.clone())
            .unwrap_or_default(),
        method: text(request.method_name),
        headers: headers.into_iter().collect(),
        path: text(&path),
        host: rewrite.host().map_or_else(|| text(request.authority.text), str::to_owned),
        scheme: origin.scheme().to_owned(),
        size,
        protocol: match request.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
        .to_owned(),
        body,
        raw_body,
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(client.peer)),
            destination: Some(peer(client.local)),
            request: Some(Request { time: Some(now()), http: Some(http) }),
            tls_session: client.sni.as_deref().map(|sni| TlsSession { sni: sni.to_owned() }),
        }),
    }
}

fn peer(address: std::net::SocketAddr) -> Peer {
    let address = SocketAddress {
        protocol: 0,
        address: address.ip().to_canonical().to_string(),
        port_value: address.port().into(),
    };
    Peer { address: Some(Address { socket_address: Some(address) }) }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds, nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default() }
}

/// The one message of a call that has succeeded.
fn response(answer: Answer) -> Option<CheckResponse> {
    let trailers = lines::fields(&answer.trailers);
    let has_succeeded =
        answer.status == 200 && trailers.get("grpc-status").is_some_and(|status| status == "0");
    let content = answer.content.filter(|_| has_succeeded)?;
    let (head, message) = content.split_at_checked(5)?;
    // Nothing was said of compression, so none is understood.
    let length = u32::from_be_bytes(*head.last_chunk::<4>()?);
    let is_whole = head[0] == 0 && usize::try_from(length) == Ok(message.len());
    CheckResponse::decode(message).ok().filter(|_| is_whole)
}

/// How many fields an answer names: each is looked for among all others, which takes its time.
fn count(response: &CheckResponse) -> usize {
    match &response.http_response {
        Some(HttpResponse::Ok(ok)) => {
            ok.headers.len() + ok.headers_to_remove.len() + ok.response_headers_to_add.len()
        }
        Some(HttpResponse::Denied(denied)) => denied.headers.len(),
        None => 0,
    }
}

/// `is_there`: whether the request has a field of a name.
fn judge(response: CheckResponse, is_there: impl Fn(&str) -> bool) -> Result<Answered, Reason> {
    if count(&response) > MAX_FIELDS {
        return Err(Reason::AuthorisationFailed);
    }
    let is_ok = response.status.is_none_or(|status| status.code == 0);
    match response.http_response {
        Some(HttpResponse::Denied(denied)) => denial(denied).map(Answered::No),
        _ if !is_ok => denial(DeniedHttpResponse::default()).map(Answered::No),
        Some(HttpResponse::Ok(ok)) => granted(ok, is_there),
        None => Ok(Answered::Yes(HeaderEdits::default(), HeaderEdits::default())),
    }
}

fn denial(denied: DeniedHttpResponse) -> Result<Denial, Reason> {
    let status = denied.status.and_then(|status| u16::try_from(status.code).ok());
    let mut fields: Vec<Told> = Vec::new();
    for told in denied.headers {
        let is_appended = told.append == Some(true);
        let Some(field) = told.field()? else { continue };
        if !is_appended {
            fields.retain(|known| !known.name.eq_ignore_ascii_case(&field.name));
        }
        fields.push(field);
    }
    fields.retain(|field| !field.name.eq_ignore_ascii_case(b"date"));
    let status = status.filter(|status| (200..600).contains(status)).unwrap_or(403);
    Ok(Denial { status, fields, content: denied.body.into() })
}

/// Fields of the request are replaced unless the service says that they are added to; those of the response the
/// other way round.
fn granted(ok: OkHttpResponse, is_there: impl Fn(&str) -> bool) -> Result<Answered, Reason> {
    // To pass the request on as it is would be to let through what the service has taken away.
    if !ok.query_parameters_to_set.is_empty() || !ok.query_parameters_to_remove.is_empty() {
        return Err(Reason::AuthorisationFailed);
    }
    let removed: Vec<&str> = ok.headers_to_remove.iter().map(String::as_str).collect();
    let removed: Vec<&str> = removed.into_iter().filter(|name| !is_protected(name.as_bytes())).collect();
    let mut request = HeaderEdits::default().and(&removed, Vec::new());
    for told in ok.headers {
        let action = match told.append {
            Some(true) => Action::Append,
            Some(false) => Action::Overwrite,
            None if told.append_action == Action::Append as i32 => Action::Overwrite,
            None => told.action()?,
        };
        let is_to_be_done = match action {
            Action::AddIfAbsent => told.name().is_some_and(|name| !is_there(name)),
            Action::OverwriteIfExists => told.name().is_some_and(&is_there),
            Action::Append | Action::Overwrite => true,
        };
        if is_to_be_done {
            request = edited(request, told, action != Action::Append)?;
        }
    }
    let mut response = HeaderEdits::default();
    for told in ok.response_headers_to_add {
        let action = match told.append {
            Some(true) => Action::Append,
            Some(false) => Action::Overwrite,
            None => told.action()?,
        };
        // What the response will have is not known yet: a field that is to be there is.
        let replaces = matches!(action, Action::Overwrite | Action::OverwriteIfExists);
        response = edited(response, told, replaces)?;
    }
    Ok(Answered::Yes(request, response))
}

fn edited(edits: HeaderEdits, told: HeaderValueOption, replaces: bool) -> Result<HeaderEdits, Reason> {
    let Some(name) = told.name().map(str::to_owned) else { return Ok(edits) };
    let replaced: &[&str] = if replaces { &[&name] } else { &[] };
    // An empty value takes the field away (HeaderValueOption.keep_empty_value).
    let appended: Vec<Appended> =
        told.field()?.map(super::by_http::appended).transpose()?.into_iter().collect();
    Ok(edits.followed_by(&HeaderEdits::default().and(replaced, appended)))
}

impl HeaderValueOption {
    /// Its name, unless the proxy alone decides what a field of this name says.
    fn name(&self) -> Option<&str> {
        let name = self.header.as_ref()?.key.as_str();
        (!is_protected(name.as_bytes())).then_some(name)
    }

    /// What is to be done with it.
    fn action(&self) -> Result<Action, Reason> {
        Action::try_from(self.append_action).map_err(|_| Reason::AuthorisationFailed)
    }

    /// The field; `None` where it is empty, or not the service's to set.
    ///
    /// # Errors
    /// Where a message can't have it.
    fn field(self) -> Result<Option<Told>, Reason> {
        if self.name().is_none() {
            return Ok(None);
        }
        let header = self.header.unwrap_or_default();
        let value = if header.value.is_empty() { header.raw_value } else { header.value.into_bytes() };
        let (name, value) = (header.key.into_bytes(), value.trim_ascii().to_vec());
        let known = field::check(&name, &value).map_err(|_| Reason::AuthorisationFailed)?;
        let passes = known != Known::HopByHop && (self.keep_empty_value || !value.is_empty());
        Ok(passes.then_some(Told { name, value }))
    }
}

#[cfg(test)]
mod tests;
