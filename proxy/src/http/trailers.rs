//! Owns which trailer fields are passed on, in both directions and both protocols.
//!
//! Pure. What comes behind the content was not there when the message was routed, authorised and framed, so
//! it must not be taken for what decides that. Everything else passes: metadata of gRPC, checksums, timings.
//! Source: RFC 9110 section 6.5.1.

/// Fields that must not be sent as trailers, besides those that [`PREFIXES`] cover.
const FORBIDDEN: &[&str] = &[
    // How the message is framed, and what is of one connection alone.
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Where a request goes and who sent it.
    "forwarded",
    "host",
    "via",
    "x-real-ip",
    // What modifies a request.
    "cache-control",
    "expect",
    "max-forwards",
    "pragma",
    "range",
    // Who may do it.
    "authentication-info",
    "authorization",
    "cookie",
    "set-cookie",
    "www-authenticate",
    // What controls what becomes of a response.
    "age",
    "alt-svc",
    "clear-site-data",
    "date",
    "expires",
    "location",
    "refresh",
    "retry-after",
    "strict-transport-security",
    "vary",
    "warning",
    // How the content is to be processed.
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-type",
];

/// What the names of such fields begin with: conditions, proxies, forwarding, permissions.
const PREFIXES: &[&str] = &["access-control-", "cross-origin-", "if-", "proxy-", "sec-", "x-forwarded-"];

/// Whether a trailer field of this name, which is a token, is passed on. An underscore counts as a hyphen: some
/// backends take one for the other.
pub fn may_pass(name: &[u8]) -> bool {
    let byte = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let begins = |start: &&str| {
        name.len() >= start.len() && name.iter().zip(start.bytes()).all(|(ours, theirs)| byte(ours) == theirs)
    };
    let is = |whole: &&str| name.len() == whole.len() && begins(whole);
    !FORBIDDEN.iter().any(is) && !PREFIXES.iter().any(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_checksums_pass() {
        for name in [
            "grpc-status",
            "Grpc-Message",
            "grpc-status-details-bin",
            "trace-proto-bin",
            "my_key-bin",
            "x-checksum",
            "Content-Digest",
            "server-timing",
            "etag",
            "hosts",
            "dates",
            "iffy",
        ] {
            assert!(may_pass(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_frames_routes_authorises_or_controls_a_message_does_not() {
        for name in [
            "Content-Length",
            "content_length",
            "Transfer-Encoding",
            "HOST",
            "Authorization",
            "cookie",
            "Set-Cookie",
            "Proxy-Authorization",
            "X-Forwarded-For",
            "x_forwarded_proto",
            "If-None-Match",
            "Sec-WebSocket-Key",
            "Access-Control-Allow-Origin",
            "Content-Type",
            "te",
        ] {
            assert!(!may_pass(name.as_bytes()), "{name}");
        }
    }
}
