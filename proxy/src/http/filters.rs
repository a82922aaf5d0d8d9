//! Owns filters, compiled: what is done to the head of a request and of a response.
//!
//! Any sequence of header edits comes to one set of names to drop and one list of fields to append, so
//! that a codec applies it while it copies a head. Called by the table (compile) and by the codecs of
//! both protocols; knows nothing of matching.
//! Source: Gateway API `HTTPRouteFilter`.

use proxy_config::route::{Field, Filter, HeaderEdits as EditsUnit};

pub mod cors;
pub mod redirect;

use redirect::{Redirect, Rewrite};

/// Why filters can't be compiled. The rule that has them is answered by 500.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No field may have this name.
    #[error("header name {0:?} is not a token: use letters, digits and hyphens")]
    Name(String),
    /// No field may have this value.
    #[error("the value of header {0:?} holds a control character or surrounding space: remove it")]
    Value(String),
    /// The proxy owns this field.
    #[error("header {0:?} belongs to the connection, not to the message: it can't be edited")]
    Protected(String),
    /// A path that no request may have.
    #[error("path {0:?} of a redirect or rewrite must start with '/' and hold only what a URI path may")]
    Path(String),
    /// A host that no request may have.
    #[error("hostname {0:?} of a redirect or rewrite is not a hostname")]
    Hostname(String),
    /// A status that is no redirect.
    #[error("status {0} of a redirect must be one of 301, 302, 303, 307, 308")]
    Status(u16),
    /// A scheme that is not served.
    #[error("scheme {0:?} of a redirect must be http or https")]
    Scheme(String),
    /// An origin that no page has.
    #[error("origin {0:?} of a CORS filter is not scheme://host[:port] with a host that may begin with *")]
    Origin(String),
    /// A filter that this proxy does not have, there.
    #[error("this proxy has no {0} filter")]
    Unsupported(&'static str),
}

/// A field to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its name, as written.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

/// Edits of a head, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// The names of fields to drop, lower case.
    dropped: Vec<Box<str>>,
    appended: Vec<Appended>,
    /// The same as field lines of HTTP/1.
    lines: Vec<u8>,
}

impl HeaderEdits {
    /// Whether the field is dropped.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.dropped.iter().any(|dropped| dropped.as_bytes().eq_ignore_ascii_case(name))
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.appended.is_empty()
    }

    /// What is appended, in order.
    pub fn appended(&self) -> &[Appended] {
        &self.appended
    }

    /// What is appended, as field lines of HTTP/1, each with its line end.
    pub fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Adds later edits: they also act on what the earlier ones appended.
    fn then(&mut self, edits: &EditsUnit) -> Result<(), FilterError> {
        for name in edits.remove.iter().chain(edits.set.iter().map(|field| &field.name)) {
            check_name(name)?;
            self.appended.retain(|field| !field.name.eq_ignore_ascii_case(name));
            if !self.drops(name.as_bytes()) {
                self.dropped.push(name.to_ascii_lowercase().into());
            }
        }
        for Field { name, value } in edits.set.iter().chain(&edits.add) {
            check_name(name)?;
            if !is_field_value(value) {
                return Err(FilterError::Value(name.clone()));
            }
            self.appended.push(Appended { name: name.as_str().into(), value: value.as_str().into() });
        }
        Ok(())
    }

    /// These edits, then others that are known only with the request: fields to drop of what the upstream
    /// sent, and fields to append.
    pub fn and(&self, dropped: &[&str], appended: Vec<Appended>) -> Self {
        let mut edits = self.clone();
        edits.dropped.extend(dropped.iter().map(|name| name.to_ascii_lowercase().into()));
        edits.appended.extend(appended);
        edits.seal();
        edits
    }

    /// These edits, then later ones, which also act on what these append.
    pub fn followed_by(&self, later: &Self) -> Self {
        let mut edits = self.clone();
        edits.appended.retain(|field| !later.drops(field.name.as_bytes()));
        edits.dropped.extend(later.dropped.iter().filter(|name| !self.drops(name.as_bytes())).cloned());
        edits.appended.extend_from_slice(&later.appended);
        edits.seal();
        edits
    }

    fn seal(&mut self) {
        self.lines.clear();
        for Appended { name, value } in &self.appended {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.lines.extend_from_slice(part);
            }
        }
    }
}

/// The filters of a rule, or of a rule and one of its backends, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Edits of the request.
    pub request: HeaderEdits,
    /// Edits of the response.
    pub response: HeaderEdits,
    /// The answer, instead of a backend's.
    pub redirect: Option<Redirect>,
    /// What the backend sees instead of the request's host and path.
    pub rewrite: Rewrite,
}

impl Filters {
    /// Compiles filters that are applied in this order: those of a rule, then those of a backend.
    ///
    /// # Errors
    /// Where one of them can't be applied to any request.
    pub fn compile<'a>(filters: impl IntoIterator<Item = &'a Filter>) -> Result<Self, FilterError> {
        let mut compiled = Self::default();
        for filter in filters {
            match filter {
                Filter::RequestHeaders(edits) => compiled.edit_request(edits)?,
                Filter::ResponseHeaders(edits) => compiled.response.then(edits)?,
                Filter::Redirect(redirect) => compiled.redirect = Some(Redirect::compile(redirect)?),
                Filter::Rewrite(rewrite) => compiled.rewrite.then(rewrite)?,
                // These are policies of a rule: see `Policies`.
                Filter::Cors(_) | Filter::Mirror(_) | Filter::ExternalAuth(_) => {}
            }
        }
        compiled.request.seal();
        compiled.response.seal();
        Ok(compiled)
    }

    /// Host is set as a rewrite of the host is: there is always exactly one.
    fn edit_request(&mut self, edits: &EditsUnit) -> Result<(), FilterError> {
        let is_host = |field: &&Field| field.name.eq_ignore_ascii_case("host");
        let Some(host) = edits.set.iter().find(is_host) else {
            return self.request.then(edits);
        };
        self.rewrite.set_host(&host.value)?;
        let mut others = edits.clone();
        others.set.retain(|field| !is_host(&field));
        self.request.then(&others)
    }
}

/// Fields that say how a message travels, which the proxy decides.
const PROTECTED: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "http2-settings",
];

/// Whether the proxy alone decides what a field of this name says.
pub(super) fn is_protected(name: &[u8]) -> bool {
    PROTECTED.iter().any(|protected| protected.as_bytes().eq_ignore_ascii_case(name))
}

fn check_name(name: &str) -> Result<(), FilterError> {
    if !is_token(name.as_bytes()) {
        return Err(FilterError::Name(name.to_owned()));
    }
    if is_protected(name.as_bytes()) {
        return Err(FilterError::Protected(name.to_owned()));
    }
    Ok(())
}

/// Source: RFC 9110 section 5.6.2.
fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Source: RFC 9110 section 5.5, less what is not ASCII.
fn is_field_value(value: &str) -> bool {
    value.trim_matches([' ', '\t']) == value
        && value.bytes().all(|byte| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(remove: &[&str], set: &[(&str, &str)], add: &[(&str, &str)]) -> Filter {
        let fields = |fields: &[(&str, &str)]| {
            fields
                .iter()
                .map(|(name, value)| Field { name: (*name).into(), value: (*value).into() })
                .collect()
        };
        Filter::RequestHeaders(EditsUnit {
            remove: remove.iter().map(|name| (*name).into()).collect(),
            set: fields(set),
            add: fields(add),
        })
    }

    /// Applies the edits to a head, field by field, as a codec does.
    #[track_caller]
    fn check(filters: &[Filter], head: &[(&str, &str)], want: &[(&str, &str)]) {
        let compiled = Filters::compile(filters).unwrap().request;
        let mut got: Vec<(&str, &str)> =
            head.iter().copied().filter(|(name, _)| !compiled.drops(name.as_bytes())).collect();
        got.extend(compiled.appended().iter().map(|field| (&*field.name, &*field.value)));
        assert_eq!(got, want);
    }

    #[test]
    fn set_replaces_add_appends_remove_removes() {
        let filters = [edits(&["x-gone"], &[("X-Set", "new")], &[("X-Add", "more")])];
        check(
            &filters,
            &[("X-Gone", "1"), ("x-set", "old"), ("X-SET", "older"), ("x-add", "one"), ("other", "o")],
            &[("x-add", "one"), ("other", "o"), ("X-Set", "new"), ("X-Add", "more")],
        );
    }

    #[test]
    fn a_backends_edits_act_on_what_the_rule_appended() {
        let rule = edits(&[], &[("x-a", "rule")], &[("x-b", "rule")]);
        let backend = edits(&["x-b"], &[("X-A", "backend")], &[("x-c", "backend")]);
        check(&[rule, backend], &[("x-a", "client")], &[("X-A", "backend"), ("x-c", "backend")]);
    }

    #[test]
    fn edits_that_are_compiled_follow_each_other_as_they_would_have_been_compiled() {
        let first = edits(&["x-c"], &[("x-a", "1")], &[("x-b", "1")]);
        let second = edits(&["X-B"], &[("X-A", "2")], &[("x-c", "2")]);
        let compile = |filters: &[Filter]| Filters::compile(filters).unwrap().request;
        let both = compile(&[first.clone(), second.clone()]);
        assert_eq!(compile(&[first]).followed_by(&compile(&[second])), both);
    }

    #[test]
    fn lines_are_rendered_once() {
        let compiled = Filters::compile(&[edits(&[], &[("X-A", "1")], &[("b", "2 3")])]).unwrap();
        assert_eq!(compiled.request.lines(), b"X-A: 1\r\nb: 2 3\r\n");
    }

    #[test]
    fn setting_host_is_a_rewrite_of_the_host() {
        let compiled = Filters::compile(&[edits(&[], &[("Host", "inner.example")], &[])]).unwrap();
        assert_eq!(compiled.rewrite.host(), Some("inner.example"));
        assert!(compiled.request.is_empty());
    }

    #[test]
    fn what_would_break_a_message_is_refused() {
        let refused = |filter: Filter| Filters::compile(&[filter]).unwrap_err();
        assert_eq!(refused(edits(&["a b"], &[], &[])), FilterError::Name("a b".into()));
        assert_eq!(refused(edits(&[], &[("x", "a\r\nb: c")], &[])), FilterError::Value("x".into()));
        assert_eq!(
            refused(edits(&[], &[], &[("Transfer-Encoding", "chunked")])),
            FilterError::Protected("Transfer-Encoding".into())
        );
        assert_eq!(refused(edits(&["Host"], &[], &[])), FilterError::Protected("Host".into()));
    }
}
