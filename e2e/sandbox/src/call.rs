//! What a request asks for, read from its method, path, query and headers.
//!
//! Owns nothing. Called once per request. It refuses to know which resources exist: a path is split, not looked up.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, header, request};

use crate::refusal::Refusal;

/// What is done to a resource: the verbs of Kubernetes' authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One object is read.
    Get,
    /// A collection is read.
    List,
    /// A collection is followed.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH of any kind, server-side apply too.
    Patch,
    /// One object is deleted.
    Delete,
    /// A collection is deleted.
    DeleteCollection,
}

impl Verb {
    /// Whether it can change something.
    #[must_use]
    pub fn is_write(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// The path of a resource, an object or a subresource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// In which form objects are wanted (`Accept`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Whole,
    Metadata,
}

/// A request about a resource.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) target: Target,
    pub(crate) form: Form,
    pub(crate) content_type: String,
    user_agent: String,
    query: BTreeMap<String, String>,
}

/// A request about the API itself, or about a resource.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// A document below `/api`, `/apis`, `/version` or a health check; the path without slashes at its ends.
    Document(Vec<String>),
    Resource(Box<Call>),
}

impl Asked {
    pub(crate) fn read(parts: &request::Parts) -> Result<Self, Refusal> {
        let segments = segments(parts.uri.path());
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ if parts.method == Method::GET => return Ok(Self::Document(segments)),
            _ => return Err(Refusal::method_not_allowed()),
        };
        let target = Target::read(group, version, rest).ok_or_else(Refusal::unknown_path)?;
        let query = query(parts.uri.query().unwrap_or_default());
        let verb = verb(&parts.method, &target, &query)?;
        let text = |name| header_text(&parts.headers, name);
        Ok(Self::Resource(Box::new(Call {
            verb,
            target,
            form: form(&text(header::ACCEPT)),
            content_type: text(header::CONTENT_TYPE),
            user_agent: text(header::USER_AGENT),
            query,
        })))
    }
}

impl Target {
    fn read(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let at = |namespace: Option<&str>, plural: &str, name: Option<&str>, sub: Option<&str>| Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: sub.map(str::to_owned),
        };
        Some(match *rest {
            ["namespaces", name, sub @ ("status" | "finalize")] if group.is_empty() => {
                at(None, "namespaces", Some(name), Some(sub))
            }
            ["namespaces", name] if group.is_empty() => at(None, "namespaces", Some(name), None),
            ["namespaces", ns, plural] => at(Some(ns), plural, None, None),
            ["namespaces", ns, plural, name] => at(Some(ns), plural, Some(name), None),
            ["namespaces", ns, plural, name, sub] => at(Some(ns), plural, Some(name), Some(sub)),
            [plural] => at(None, plural, None, None),
            [plural, name] => at(None, plural, Some(name), None),
            [plural, name, sub] => at(None, plural, Some(name), Some(sub)),
            _ => return None,
        })
    }
}

impl Call {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), Some("true" | "1" | "True" | "TRUE" | "t"))
    }

    /// Who writes, for `managedFields`: `fieldManager`, else the head of User-Agent.
    pub(crate) fn manager(&self) -> &str {
        let agent = self.user_agent.split('/').next().unwrap_or_default();
        match self.param("fieldManager") {
            Some(manager) => manager,
            None if agent.is_empty() => "unknown",
            None => agent,
        }
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.param("dryRun") == Some("All")
    }

    /// `limit`; none or less than one is no limit.
    pub(crate) fn limit(&self) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.param("limit") else { return Ok(None) };
        let limit: i64 = text
            .parse()
            .map_err(|_| Refusal::bad_request(format!("invalid limit \"{text}\": not a number")))?;
        Ok(usize::try_from(limit).ok().filter(|limit| *limit > 0))
    }

    /// A query parameter that must be a whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.param(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    Refusal::bad_request(format!("invalid {name} \"{text}\": not a whole number"))
                })
            })
            .transpose()
    }
}

fn segments(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect()
}

fn query(text: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn verb(method: &Method, target: &Target, query: &BTreeMap<String, String>) -> Result<Verb, Refusal> {
    let watched = query.get("watch").is_some_and(|value| matches!(value.as_str(), "true" | "1"));
    match (method, target.name.is_some()) {
        (&Method::GET, true) => Ok(Verb::Get),
        (&Method::GET, false) if watched => Ok(Verb::Watch),
        (&Method::GET, false) => Ok(Verb::List),
        (&Method::POST, false) => Ok(Verb::Create),
        (&Method::PUT, true) => Ok(Verb::Update),
        (&Method::PATCH, true) => Ok(Verb::Patch),
        (&Method::DELETE, true) => Ok(Verb::Delete),
        (&Method::DELETE, false) => Ok(Verb::DeleteCollection),
        _ => Err(Refusal::method_not_allowed()),
    }
}

/// The first media range of Accept that is served decides.
fn form(accept: &str) -> Form {
    let wanted = accept
        .split(',')
        .find(|range| range.trim_start().starts_with("application/json") && !range.contains("as=Table"));
    match wanted {
        Some(range) if range.contains("as=PartialObjectMetadata") => Form::Metadata,
        _ => Form::Whole,
    }
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, uri: &str, verb: Verb, namespace: Option<&str>, rest: [Option<&str>; 2]) {
        let (parts, ()) = http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let Ok(Asked::Resource(call)) = Asked::read(&parts) else {
            panic!("{uri} names a resource");
        };
        assert_eq!(call.verb, verb, "{uri}");
        assert_eq!(call.target.namespace.as_deref(), namespace, "{uri}");
        assert_eq!(call.target.name.as_deref(), rest[0], "{uri}");
        assert_eq!(call.target.subresource.as_deref(), rest[1], "{uri}");
    }

    #[test]
    fn paths_are_split_as_the_api_server_splits_them() {
        let none = [None, None];
        check(Method::GET, "/api/v1/pods", Verb::List, None, none);
        check(Method::GET, "/api/v1/pods?watch=true", Verb::Watch, None, none);
        check(Method::GET, "/api/v1/namespaces/a", Verb::Get, None, [Some("a"), None]);
        check(Method::PATCH, "/api/v1/namespaces/a/status", Verb::Patch, None, [Some("a"), Some("status")]);
        check(Method::POST, "/api/v1/namespaces/a/pods", Verb::Create, Some("a"), none);
        check(
            Method::PUT,
            "/apis/g.io/v1/namespaces/a/things/b%3Ac",
            Verb::Update,
            Some("a"),
            [Some("b:c"), None],
        );
        check(Method::PATCH, "/apis/g.io/v1/things/b/status", Verb::Patch, None, [Some("b"), Some("status")]);
        check(Method::DELETE, "/apis/g.io/v1/things", Verb::DeleteCollection, None, none);
    }

    #[test]
    fn a_table_is_not_served_and_its_fallback_is_whole_objects() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Form::Whole);
        let meta = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(form(meta), Form::Metadata);
    }
}
