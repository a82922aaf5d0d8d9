//! What routing reads of a request: a borrowed view, so that both protocols match on the bytes that
//! they will send.

use std::borrow::Cow;

/// A request as routing sees it. Implemented by each codec over its own buffers.
pub trait RequestView {
    /// The method.
    fn method(&self) -> &[u8];
    /// The host without its port, as sent: it is compared without regard to case.
    fn host(&self) -> &[u8];
    /// The path, normalised, without the query.
    fn path(&self) -> &[u8];
    /// The query, without `?`; empty where there is none.
    fn query(&self) -> &[u8];
    /// The value of a header field by its lower-case name; repeated fields are joined by `,`.
    fn header(&self, lower_name: &str) -> Option<Cow<'_, [u8]>>;
}

/// Why no rule takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No listener, host, path or condition takes it: 404.
    NotFound,
    /// The listener of its host is not the one that the TLS handshake chose: 421 (RFC 9110 15.5.20).
    Misdirected,
}
