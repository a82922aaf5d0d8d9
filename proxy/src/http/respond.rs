//! Owns the answers that the proxy gives itself, and why.
//!
//! [`Reason`] is shared with metrics and access logs; its answers reveal nothing but their status.
//! Called by the codecs of both protocols; knows nothing of routes.

use super::authorise::Denial;
use super::filters::HeaderEdits;

/// Why the proxy answered by itself, or cut an exchange short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The request line is not `method SP target SP version`.
    MalformedRequestLine,
    /// A field line is malformed: its name, its value, a line folded, a control character.
    MalformedField,
    /// A line ends in a bare line feed or holds a bare carriage return.
    MalformedLineEnd,
    /// The target is of no allowed form, or holds a byte that no target may.
    MalformedTarget,
    /// A percent sign without two hexadecimal digits, or an encoded NUL.
    MalformedPercentEncoding,
    /// Dot segments that lead above the root.
    PathAboveRoot,
    /// Both Content-Length and Transfer-Encoding.
    ConflictingFraming,
    /// Content-Length is repeated, no decimal number, or contradicted by the content.
    MalformedContentLength,
    /// Transfer-Encoding is repeated, malformed, or sent in HTTP/1.0.
    MalformedTransferEncoding,
    /// A transfer coding other than chunked.
    UnknownTransferCoding,
    /// A chunk, its size, its extension or a trailer is malformed.
    MalformedChunk,
    /// No Host where one is needed.
    MissingHost,
    /// Host is repeated, malformed, holds user information, or differs from the authority.
    MalformedHost,
    /// CONNECT or TRACE.
    MethodNotAllowed,
    /// The head did not arrive in time.
    RequestHeadTimeout,
    /// The content stopped arriving.
    RequestBodyTimeout,
    /// The target is longer than the limit.
    TargetTooLong,
    /// The content is more than the service that is to authorise the request may be shown.
    ContentTooLarge,
    /// An expectation other than 100-continue.
    ExpectationFailed,
    /// The host is not one of those that the TLS connection was made for.
    Misdirected,
    /// Too many fields, or too large ones.
    FieldsTooLarge,
    /// Another major version than 1, or a later minor one.
    VersionNotSupported,
    /// The service that was asked whether the request may pass said no. What the client gets is its answer.
    AuthorisationDenied,
    /// That service could not be asked, or its answer can't be understood: the request does not pass.
    AuthorisationFailed,
    /// That service did not answer in time: the request does not pass.
    AuthorisationTimeout,
    /// No route takes the request.
    RouteNotFound,
    /// The rule, or the share of it that the request fell to, can't be served as it is written.
    InvalidRule,
    /// The backend has no endpoint.
    NoEndpoint,
    /// No endpoint could be connected to.
    ConnectFailed,
    /// No endpoint proved what its policy says that it must.
    UpstreamTlsFailed,
    /// Every endpoint that was tried serves as many requests as it may.
    EndpointsFull,
    /// As many requests to the backend were retries as its policy allows.
    RetriesExhausted,
    /// There are as many connections to endpoints as may be.
    UpstreamExhausted,
    /// The endpoint closed or reset before it answered.
    UpstreamReset,
    /// The endpoint's answer can't be understood, or must not be passed on.
    UpstreamMalformed,
    /// The endpoint did not answer in time.
    UpstreamTimeout,
    /// The request as a whole took too long.
    RequestTimeout,
    /// What took the request was taken away while it was served.
    Withdrawn,
    /// The client went away; nothing is sent.
    ClientGone,
    /// The response was cut after its head: the client sees that it is incomplete.
    ResponseCut,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 40] = [
        Self::MalformedRequestLine,
        Self::MalformedField,
        Self::MalformedLineEnd,
        Self::MalformedTarget,
        Self::MalformedPercentEncoding,
        Self::PathAboveRoot,
        Self::ConflictingFraming,
        Self::MalformedContentLength,
        Self::MalformedTransferEncoding,
        Self::UnknownTransferCoding,
        Self::MalformedChunk,
        Self::MissingHost,
        Self::MalformedHost,
        Self::MethodNotAllowed,
        Self::RequestHeadTimeout,
        Self::RequestBodyTimeout,
        Self::TargetTooLong,
        Self::ContentTooLarge,
        Self::ExpectationFailed,
        Self::Misdirected,
        Self::FieldsTooLarge,
        Self::VersionNotSupported,
        Self::AuthorisationDenied,
        Self::AuthorisationFailed,
        Self::AuthorisationTimeout,
        Self::RouteNotFound,
        Self::InvalidRule,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::UpstreamTlsFailed,
        Self::EndpointsFull,
        Self::RetriesExhausted,
        Self::UpstreamExhausted,
        Self::UpstreamReset,
        Self::UpstreamMalformed,
        Self::UpstreamTimeout,
        Self::RequestTimeout,
        Self::Withdrawn,
        Self::ClientGone,
        Self::ResponseCut,
    ];

    /// The status of the answer. 499 is never sent: the client is gone, or has part of a response.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedRequestLine
            | Self::MalformedField
            | Self::MalformedLineEnd
            | Self::MalformedTarget
            | Self::MalformedPercentEncoding
            | Self::PathAboveRoot
            | Self::ConflictingFraming
            | Self::MalformedContentLength
            | Self::MalformedTransferEncoding
            | Self::MalformedChunk
            | Self::MissingHost
            | Self::MalformedHost => 400,
            Self::AuthorisationDenied => 403,
            Self::RouteNotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestHeadTimeout | Self::RequestBodyTimeout => 408,
            Self::ContentTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::Misdirected => 421,
            Self::FieldsTooLarge => 431,
            Self::ClientGone | Self::ResponseCut => 499,
            Self::InvalidRule => 500,
            Self::UnknownTransferCoding => 501,
            Self::UpstreamTlsFailed | Self::UpstreamReset | Self::UpstreamMalformed => 502,
            Self::NoEndpoint
            | Self::ConnectFailed
            | Self::EndpointsFull
            | Self::RetriesExhausted
            | Self::UpstreamExhausted
            | Self::AuthorisationFailed
            | Self::Withdrawn => 503,
            Self::UpstreamTimeout | Self::RequestTimeout | Self::AuthorisationTimeout => 504,
            Self::VersionNotSupported => 505,
        }
    }

    /// The status of gRPC that says the same, in an answer to a call; `None` where that of HTTP says more:
    /// 421 has the client try again on another connection. Source: gRPC's "HTTP to gRPC Status Code
    /// Mapping"; GEP-1016 for rules that can't be served.
    pub fn grpc_status(self) -> Option<u8> {
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        Some(match self.status() {
            421 | 499 => return None,
            404 | 405 | 501 | 505 => UNIMPLEMENTED,
            408 | 504 => DEADLINE_EXCEEDED,
            403 => PERMISSION_DENIED,
            413 | 414 | 431 => RESOURCE_EXHAUSTED,
            400 | 417 => INTERNAL,
            _ => UNAVAILABLE,
        })
    }

    /// The reason as metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::MalformedRequestLine => "malformed_request_line",
            Self::MalformedField => "malformed_field",
            Self::MalformedLineEnd => "malformed_line_end",
            Self::MalformedTarget => "malformed_target",
            Self::MalformedPercentEncoding => "malformed_percent_encoding",
            Self::PathAboveRoot => "path_above_root",
            Self::ConflictingFraming => "conflicting_framing",
            Self::MalformedContentLength => "malformed_content_length",
            Self::MalformedTransferEncoding => "malformed_transfer_encoding",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::MalformedChunk => "malformed_chunk",
            Self::MissingHost => "missing_host",
            Self::MalformedHost => "malformed_host",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestHeadTimeout => "request_head_timeout",
            Self::RequestBodyTimeout => "request_body_timeout",
            Self::TargetTooLong => "target_too_long",
            Self::ContentTooLarge => "content_too_large",
            Self::ExpectationFailed => "expectation_failed",
            Self::Misdirected => "misdirected",
            Self::FieldsTooLarge => "fields_too_large",
            Self::VersionNotSupported => "version_not_supported",
            Self::AuthorisationDenied => "authorisation_denied",
            Self::AuthorisationFailed => "authorisation_failed",
            Self::AuthorisationTimeout => "authorisation_timeout",
            Self::RouteNotFound => "route_not_found",
            Self::InvalidRule => "invalid_rule",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamTlsFailed => "upstream_tls_failed",
            Self::EndpointsFull => "endpoints_full",
            Self::RetriesExhausted => "retries_exhausted",
            Self::UpstreamExhausted => "upstream_exhausted",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamMalformed => "upstream_malformed",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::Withdrawn => "withdrawn",
            Self::ClientGone => "client_gone",
            Self::ResponseCut => "response_cut",
        }
    }

    /// Whether an HTTP/1 connection must be closed after the answer: where the request ends is not
    /// known, or its sender can't be trusted to know.
    pub fn closes(self) -> bool {
        !matches!(
            self,
            Self::RouteNotFound
                | Self::InvalidRule
                | Self::NoEndpoint
                | Self::ConnectFailed
                | Self::UpstreamTlsFailed
                | Self::EndpointsFull
                | Self::RetriesExhausted
                | Self::UpstreamExhausted
                | Self::UpstreamReset
                | Self::UpstreamMalformed
                | Self::UpstreamTimeout
                | Self::RequestTimeout
                | Self::Misdirected
                | Self::AuthorisationDenied
                | Self::AuthorisationFailed
                | Self::AuthorisationTimeout
        )
    }
}

/// The methods that are served, as Allow names them.
pub(super) const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Appends an answer of the proxy's own to an HTTP/1 request. Its content is the status in words.
pub fn answer(reason: Reason, to_head: bool, close: bool, out: &mut Vec<u8>) {
    let status = reason.status();
    let text = phrase(status);
    begin(status, out);
    let mut push = |part: &str| out.extend_from_slice(part.as_bytes());
    push("Content-Type: text/plain\r\nContent-Length: ");
    push(itoa::Buffer::new().format(text.len() + 1));
    push("\r\n");
    if status == 405 {
        push("Allow: ");
        push(ALLOWED);
        push("\r\n");
    }
    push(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
    if !to_head {
        push(text);
        push("\n");
    }
}

/// Appends a redirect to an HTTP/1 request.
pub fn redirect(
    status: u16,
    location: impl FnOnce(&mut Vec<u8>),
    edits: &HeaderEdits,
    close: bool,
    out: &mut Vec<u8>,
) {
    begin(status, out);
    out.extend_from_slice(b"Location: ");
    location(out);
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n");
    out.extend_from_slice(if close { b"Connection: close\r\n" } else { b"" });
    out.extend_from_slice(edits.lines());
    out.extend_from_slice(b"\r\n");
}

/// The status of the answer to a preflight.
pub const PREFLIGHT: u16 = 204;

/// Appends the answer to a preflight of HTTP/1.
pub fn preflight(edits: &HeaderEdits, close: bool, out: &mut Vec<u8>) {
    begin(PREFLIGHT, out);
    out.extend_from_slice(if close { b"Connection: close\r\n" } else { b"" });
    out.extend_from_slice(edits.lines());
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer of a service that did not let an HTTP/1 request pass. `edits`: those of the filters
/// before it.
pub(super) fn denial(denial: &Denial, edits: &HeaderEdits, to_head: bool, close: bool, out: &mut Vec<u8>) {
    begin(denial.status, out);
    for field in denial.fields.iter().filter(|field| !edits.drops(&field.name)) {
        super::lines::line(&field.name, &field.value, out);
    }
    if denial.has_content() {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(denial.content.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(if close { b"Connection: close\r\n" } else { b"" });
    out.extend_from_slice(edits.lines());
    out.extend_from_slice(b"\r\n");
    if denial.has_content() && !to_head {
        out.extend_from_slice(&denial.content);
    }
}

/// The status line and Date, which an origin must send (RFC 9110 section 6.6.1): here the proxy is one.
fn begin(status: u16, out: &mut Vec<u8>) {
    let head = format!("HTTP/1.1 {status} {}\r\nDate: {}\r\n", phrase(status), date());
    out.extend_from_slice(head.as_bytes());
}

/// The value of Date, now.
pub(super) fn date() -> String {
    httpdate::HttpDate::from(std::time::SystemTime::now()).to_string()
}

/// The words of a status that the proxy answers with.
pub(super) fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_places_are_those_of_the_list() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{reason:?}");
            let same = Reason::ALL.into_iter().filter(|other| other.label() == reason.label());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
    }

    #[test]
    fn a_refusal_of_what_was_read_closes_and_reveals_nothing_but_its_status() {
        for reason in
            Reason::ALL.into_iter().filter(|reason| matches!(reason.status(), 400 | 408 | 414 | 431))
        {
            assert!(reason.closes(), "{reason:?}");
            let mut out = Vec::new();
            answer(reason, false, true, &mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains(reason.label()), "{text}");
            assert!(text.ends_with(&format!("\r\n\r\n{}\n", phrase(reason.status()))), "{text}");
        }
    }

    #[test]
    fn what_may_be_tried_again_is_unavailable_to_a_call_and_no_route_is_unimplemented() {
        for reason in [Reason::InvalidRule, Reason::NoEndpoint, Reason::ConnectFailed, Reason::UpstreamReset]
        {
            assert_eq!(reason.grpc_status(), Some(14), "{reason:?}");
        }
        assert_eq!(Reason::RouteNotFound.grpc_status(), Some(12));
        assert_eq!(Reason::UpstreamTimeout.grpc_status(), Some(4));
        assert_eq!(Reason::Misdirected.grpc_status(), None);
    }

    #[test]
    fn an_answer_to_head_has_no_content() {
        let mut out = Vec::new();
        answer(Reason::RouteNotFound, true, false, &mut out);
        assert!(out.ends_with(b"Content-Length: 10\r\n\r\n"));
    }
}
