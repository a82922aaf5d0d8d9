//! Owns how a service is asked by a request of its own, and what its answer means: 200 lets the request pass,
//! any other status is the client's answer.
//!
//! Source: Gateway API `HTTPAuthConfig`.

use proxy_config::backend::BackendProtocol;

use super::call::{Answer, call};
use super::checks::{ByHttp, Step};
use super::{Answered, Denial, Subject, Told};
use crate::http::filters::{Appended, HeaderEdits, is_protected};
use crate::http::h1::buffer::Buffers;
use crate::http::lines;
use crate::http::render::Nominated;
use crate::http::respond::Reason;
use crate::http::validate::field::{FieldRef, Known};
use crate::upstream::balance::Backend;
use crate::upstream::pool::Pool;

/// Asks.
pub(super) async fn ask<'f, F>(
    how: &ByHttp,
    (subject, step, edits): (&Subject<'_, F>, &Step, &HeaderEdits),
    backend: &Backend,
    on: (&Pool, &Buffers),
) -> Result<Answered, Reason>
where
    F: Iterator<Item = FieldRef<'f>> + Clone,
{
    let message = render(how, subject, step, edits);
    let protocol = match backend.protocol {
        BackendProtocol::H2c => BackendProtocol::H2c,
        _ => BackendProtocol::Http1,
    };
    judge(how, call(backend, protocol, (subject.request.method, &message), on).await?)
}

/// The request: method, host and path of the client's, `Authorization`, and the fields that are to be shown.
fn render<'f, F>(how: &ByHttp, subject: &Subject<'_, F>, step: &Step, edits: &HeaderEdits) -> Vec<u8>
where
    F: Iterator<Item = FieldRef<'f>> + Clone,
{
    let Subject { request, fields, routed, origin, content, .. } = subject;
    let rewrite = &step.before.rewrite;
    let mut out = [request.method_name, b" ", how.prefix.trim_end_matches('/').as_bytes()].concat();
    if request.path.starts_with(b"/") || how.prefix.is_empty() {
        rewrite.path(&request.path, routed.matched, &mut out);
    }
    let host = rewrite.host().map_or(request.authority.text, str::as_bytes);
    for part in [request.query, b" HTTP/1.1\r\nHost: ", host, b"\r\n"] {
        out.extend_from_slice(part);
    }
    let is_shown = |name: &[u8]| name.eq_ignore_ascii_case(b"authorization") || how.shown.has(name);
    let nominated = Nominated::new(request.nominates, fields);
    for field in fields.clone().filter(|field| matches!(field.known, Known::Other | Known::Cookie)) {
        if is_shown(field.name) && !nominated.names(field.name) && !edits.drops(field.name) {
            lines::line(field.name, field.value, &mut out);
        }
    }
    for (name, value) in origin.fields(request) {
        if how.shown.has(name.as_bytes()) && !edits.drops(name.as_bytes()) {
            lines::line(name.as_bytes(), value, &mut out);
        }
    }
    for field in edits.appended().iter().filter(|field| is_shown(field.name.as_bytes())) {
        lines::line(field.name.as_bytes(), field.value.as_bytes(), &mut out);
    }
    let content = content.filter(|_| step.max_body > 0).map_or(&[][..], |content| &content.bytes);
    lines::line(b"Content-Length", content.len().to_string().as_bytes(), &mut out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(content);
    out
}

fn judge(how: &ByHttp, answer: Answer) -> Result<Answered, Reason> {
    let failed = Reason::AuthorisationFailed;
    match answer.status {
        200 => Ok(Answered::Yes(passed_on(how, answer.fields)?, HeaderEdits::default())),
        // Not a word on the request, but on the service's own state: none of the client's business.
        500.. => Err(failed),
        status => Ok(Answered::No(Denial {
            status,
            fields: answer
                .fields
                .into_iter()
                .filter(|field| !field.name.eq_ignore_ascii_case(b"date"))
                .collect(),
            content: answer.content.ok_or(failed)?.into(),
        })),
    }
}

/// The fields of the answer take the place of the request's. Those that are listed are the service's to set:
/// where it says nothing of one, nobody else does.
fn passed_on(how: &ByHttp, fields: Vec<Told>) -> Result<HeaderEdits, Reason> {
    let passes = |name: &[u8]| match how.passed_on.is_empty() {
        true => !is_about_content(name),
        false => how.passed_on.has(name),
    };
    let passing = fields.into_iter().filter(|field| passes(&field.name) && !is_protected(&field.name));
    let appended = passing.map(appended).collect::<Result<Vec<_>, _>>()?;
    let listed = how.passed_on.iter().filter(|name| !is_protected(name.as_bytes()));
    let replaced: Vec<&str> = appended.iter().map(|field| &*field.name).chain(listed).collect();
    Ok(HeaderEdits::default().and(&replaced, appended.clone()))
}

/// Whether a field describes the content of its own message: the request has other content.
fn is_about_content(name: &[u8]) -> bool {
    name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
}

/// A field that is added to a head.
///
/// # Errors
/// Where its value is no text: to leave it out would be to let the client speak for the service.
pub(super) fn appended(field: Told) -> Result<Appended, Reason> {
    let text = |bytes| String::from_utf8(bytes).map(Into::into).map_err(|_| Reason::AuthorisationFailed);
    Ok(Appended { name: text(field.name)?, value: text(field.value)? })
}
