//! Owns what routing sees of an HTTP/1 request: its validated parts, and its fields by name.

use std::borrow::Cow;

use crate::http::head::Head;
use crate::http::validate::Request;
use crate::http::validate::field::Known;
use crate::table::request::RequestView;

/// A view of a request whose head is in `bytes`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// What was validated.
    pub(super) request: &'a Request<'a>,
    /// The places of the fields.
    pub(super) head: &'a Head,
    /// The head.
    pub(super) bytes: &'a [u8],
}

impl RequestView for View<'_> {
    fn method(&self) -> &[u8] {
        self.request.method_name
    }

    fn host(&self) -> &[u8] {
        self.request.authority.host
    }

    fn path(&self) -> &[u8] {
        &self.request.path
    }

    fn query(&self) -> &[u8] {
        self.request.query.strip_prefix(b"?").unwrap_or_default()
    }

    /// Fields that are not forwarded are not seen; those that the proxy writes anew are seen as sent.
    fn header(&self, lower_name: &str) -> Option<Cow<'_, [u8]>> {
        let is_named = |name: &[u8]| name.eq_ignore_ascii_case(lower_name.as_bytes());
        let mut found: Option<Cow<'_, [u8]>> = None;
        for field in self.head.fields(self.bytes) {
            if field.known == Known::Dropped || !is_named(field.name) {
                continue;
            }
            match &mut found {
                None => found = Some(Cow::Borrowed(field.value)),
                Some(values) => {
                    let values = values.to_mut();
                    values.push(b',');
                    values.extend_from_slice(field.value);
                }
            }
        }
        found
    }
}
