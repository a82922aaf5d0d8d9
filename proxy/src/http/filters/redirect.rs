//! Owns redirects and rewrites: what becomes of a request's scheme, host, port and path.
//!
//! Pure. Called by [`super::Filters`] (compile) and by the codecs.
//! Source: Gateway API `HTTPRequestRedirectFilter`, `HTTPURLRewriteFilter`, `HTTPPathModifier`.

use proxy_config::route::{PathEdit, Redirect as RedirectUnit, Rewrite as RewriteUnit};

use super::FilterError;

/// A redirect, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    scheme: Option<Box<str>>,
    hostname: Option<Box<str>>,
    port: Option<u16>,
    path: Option<PathEdit>,
}

/// What a redirect reads of the request.
#[derive(Clone, Copy, Debug)]
pub struct Redirected<'a> {
    /// Whether the client came over TLS.
    pub tls: bool,
    /// Its host, without port.
    pub host: &'a [u8],
    /// The listener's port.
    pub port: u16,
    /// Its path, as it was matched.
    pub path: &'a [u8],
    /// Its query, with the question mark; empty where it has none.
    pub query: &'a [u8],
    /// How many bytes of the path a prefix match took.
    pub matched: usize,
}

impl Redirect {
    pub(super) fn compile(unit: &RedirectUnit) -> Result<Self, FilterError> {
        if !matches!(unit.status, 301 | 302 | 303 | 307 | 308) {
            return Err(FilterError::Status(unit.status));
        }
        if let Some(scheme) = unit.scheme.as_deref().filter(|scheme| !matches!(*scheme, "http" | "https")) {
            return Err(FilterError::Scheme(scheme.to_owned()));
        }
        unit.hostname.as_deref().map_or(Ok(()), check_host)?;
        unit.path.as_ref().map_or(Ok(()), check_path)?;
        Ok(Self {
            status: unit.status,
            scheme: unit.scheme.as_deref().map(Into::into),
            hostname: unit.hostname.as_deref().map(Into::into),
            port: unit.port,
            path: unit.path.clone(),
        })
    }

    /// Appends the value of Location.
    ///
    /// The port is the one of the filter, else the well-known one of a scheme that the filter sets, else
    /// the listener's; one that is well-known for the resulting scheme is left out.
    pub fn location(&self, request: &Redirected<'_>, out: &mut Vec<u8>) {
        let scheme = self.scheme.as_deref().unwrap_or(if request.tls { "https" } else { "http" });
        let well_known = if scheme == "https" { 443 } else { 80 };
        let implied = if self.scheme.is_some() { well_known } else { request.port };
        let port = self.port.unwrap_or(implied);
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(self.hostname.as_deref().map_or(request.host, str::as_bytes));
        if port != well_known {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        edit_path(self.path.as_ref(), request.path, request.matched, out);
        out.extend_from_slice(request.query);
    }
}

/// A rewrite, compiled; empty: nothing is rewritten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    host: Option<Box<str>>,
    path: Option<PathEdit>,
}

impl Rewrite {
    pub(super) fn then(&mut self, unit: &RewriteUnit) -> Result<(), FilterError> {
        if let Some(host) = &unit.hostname {
            self.set_host(host)?;
        }
        if let Some(path) = &unit.path {
            check_path(path)?;
            self.path = Some(path.clone());
        }
        Ok(())
    }

    pub(super) fn set_host(&mut self, host: &str) -> Result<(), FilterError> {
        check_host(host)?;
        self.host = Some(host.into());
        Ok(())
    }

    /// The host to send, where it is rewritten.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// Whether the path is rewritten.
    pub fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Appends the path to send, of which a prefix match took the first `matched` bytes.
    pub fn path(&self, path: &[u8], matched: usize, out: &mut Vec<u8>) {
        edit_path(self.path.as_ref(), path, matched, out);
    }
}

/// Between the new prefix and what follows the old one stands exactly one slash; with nothing following,
/// the result is the new prefix itself, and never empty.
fn edit_path(edit: Option<&PathEdit>, path: &[u8], matched: usize, out: &mut Vec<u8>) {
    match edit {
        None => out.extend_from_slice(path),
        Some(PathEdit::Full(full)) => out.extend_from_slice(full.as_bytes()),
        Some(PathEdit::Prefix(prefix)) => {
            let rest = path.get(matched..).unwrap_or_default();
            let rest = rest.strip_prefix(b"/").map_or(rest, |rest| rest);
            let had_slash = path.len() > matched;
            let prefix = prefix.as_bytes();
            let bare = prefix.strip_suffix(b"/").unwrap_or(prefix);
            if !had_slash {
                let whole: &[u8] = if prefix.is_empty() { b"/" } else { prefix };
                out.extend_from_slice(whole);
                return;
            }
            out.extend_from_slice(bare);
            out.push(b'/');
            out.extend_from_slice(rest);
        }
    }
}

fn check_path(edit: &PathEdit) -> Result<(), FilterError> {
    let (PathEdit::Full(path) | PathEdit::Prefix(path)) = edit;
    let empty_prefix = matches!(edit, PathEdit::Prefix(path) if path.is_empty());
    let clean = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'?');
    let rooted = path.starts_with('/') && !path.starts_with("//");
    let climbs = path.split('/').any(|segment| segment == ".." || segment == ".");
    if empty_prefix || (rooted && clean && !climbs) { Ok(()) } else { Err(FilterError::Path(path.clone())) }
}

fn check_host(host: &str) -> Result<(), FilterError> {
    let clean = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    if clean && !host.is_empty() { Ok(()) } else { Err(FilterError::Hostname(host.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Redirected<'static> = Redirected {
        tls: false,
        host: b"example.org",
        port: 8080,
        path: b"/old/rest",
        query: b"?q=1",
        matched: 4,
    };

    fn unit() -> RedirectUnit {
        RedirectUnit { scheme: None, hostname: None, port: None, path: None, status: 302 }
    }

    #[track_caller]
    fn check(unit: &RedirectUnit, request: &Redirected<'_>, want: &str) {
        let mut got = Vec::new();
        Redirect::compile(unit).unwrap().location(request, &mut got);
        assert_eq!(String::from_utf8(got).unwrap(), want);
    }

    #[test]
    fn location_keeps_what_the_filter_leaves_out() {
        check(&unit(), &REQUEST, "http://example.org:8080/old/rest?q=1");
        let host = RedirectUnit { hostname: Some("other.org".into()), ..unit() };
        check(&host, &REQUEST, "http://other.org:8080/old/rest?q=1");
    }

    #[test]
    fn the_port_follows_filter_scheme_and_listener() {
        let scheme = |scheme: &str, port| RedirectUnit { scheme: Some(scheme.into()), port, ..unit() };
        let at = |port, tls| Redirected { port, tls, ..REQUEST };
        let port = |port| RedirectUnit { port, ..unit() };
        let rest = "/old/rest?q=1";
        check(&scheme("https", None), &at(8080, false), &format!("https://example.org{rest}"));
        check(&scheme("http", None), &at(8080, false), &format!("http://example.org{rest}"));
        check(&scheme("https", Some(8443)), &at(80, false), &format!("https://example.org:8443{rest}"));
        check(&scheme("http", Some(443)), &at(80, false), &format!("http://example.org:443{rest}"));
        check(&scheme("http", Some(80)), &at(80, false), &format!("http://example.org{rest}"));
        check(&port(None), &at(80, false), &format!("http://example.org{rest}"));
        check(&port(None), &at(443, true), &format!("https://example.org{rest}"));
        check(&port(None), &at(443, false), &format!("http://example.org:443{rest}"));
        check(&port(Some(8083)), &at(80, false), &format!("http://example.org:8083{rest}"));
        check(&port(Some(80)), &at(8080, false), &format!("http://example.org{rest}"));
    }

    #[test]
    fn a_prefix_is_replaced_element_by_element() {
        let check = |path: &str, matched: usize, prefix: &str, want: &str| {
            let mut rewrite = Rewrite::default();
            let edit = PathEdit::Prefix(prefix.into());
            rewrite.then(&RewriteUnit { hostname: None, path: Some(edit) }).unwrap();
            let mut got = Vec::new();
            rewrite.path(path.as_bytes(), matched, &mut got);
            assert_eq!(String::from_utf8(got).unwrap(), want, "{path} with {prefix}");
        };
        // The table of Gateway API's HTTPPathModifier.
        check("/foo/bar", 4, "/xyz", "/xyz/bar");
        check("/foo/bar", 4, "/xyz/", "/xyz/bar");
        check("/foo/bar", 5, "/xyz", "/xyz/bar");
        check("/foo/bar", 5, "/xyz/", "/xyz/bar");
        check("/foo", 4, "/xyz", "/xyz");
        check("/foo/", 4, "/xyz", "/xyz/");
        check("/foo/bar", 4, "", "/bar");
        check("/foo/", 4, "", "/");
        check("/foo", 4, "", "/");
        check("/foo/", 4, "/", "/");
        check("/foo", 4, "/", "/");
        check("/bar", 1, "/xyz", "/xyz/bar");
        check("/", 1, "/xyz", "/xyz");
    }

    #[test]
    fn a_full_path_replaces_the_path_and_keeps_the_query() {
        let full = RedirectUnit { path: Some(PathEdit::Full("/new".into())), ..unit() };
        check(&full, &REQUEST, "http://example.org:8080/new?q=1");
    }

    #[test]
    fn what_no_request_may_have_is_refused() {
        let path = |path: &str| {
            let unit = RedirectUnit { path: Some(PathEdit::Full(path.into())), ..unit() };
            Redirect::compile(&unit).unwrap_err()
        };
        for bad in ["", "x", "//evil", "/a\r\nb", "/a/../b", "/a?b", "/a b"] {
            assert_eq!(path(bad), FilterError::Path(bad.into()));
        }
        let host = RedirectUnit { hostname: Some("a b".into()), ..unit() };
        assert_eq!(Redirect::compile(&host).unwrap_err(), FilterError::Hostname("a b".into()));
        assert_eq!(Redirect::compile(&RedirectUnit { status: 200, ..unit() }), Err(FilterError::Status(200)));
    }
}
