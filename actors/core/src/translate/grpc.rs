//! GRPCRoutes: their methods are paths, the rest is what HTTPRoutes have.
//!
//! Source: GEP-1016; a call of `service` and `method` is a request for `/service/method`.

use proxy_config::route::{Match, PathMatch, Timeouts};

use crate::snapshot::grpc_route::{self, GrpcRoute, MethodMatch};
use crate::snapshot::http_route;
use crate::snapshot::meta::{Kind, ObjectRef};

use super::conditions::Fault;
use super::matches;
use super::reader::Reader;
use super::rules::{Parts, Rules, translate_parts};

/// One element of a path, whatever it is.
const ANY: &str = "[^/]+";

/// Translates the rules of a GRPCRoute.
pub(super) fn translate(reader: &Reader<'_>, route: &GrpcRoute) -> Rules {
    let object = ObjectRef::new(Kind::GrpcRoute, route.meta.name.clone());
    let parts = route.spec.rules.iter().map(|rule| Parts {
        name: rule.name.as_ref(),
        matches: translate_matches(&rule.matches),
        filters: &rule.filters,
        backends: &rule.backend_refs,
        timeouts: Ok(Timeouts::default()),
        retry: None,
        session: rule.session_persistence.as_ref(),
    });
    translate_parts(reader, &object, parts)
}

/// Matches with their method as the path that HTTPRoutes would have.
fn translate_matches(written: &[grpc_route::Match]) -> (Vec<Match>, Option<Fault>) {
    let (mut usable, mut fault) = (Vec::new(), None);
    let all = [grpc_route::Match::default()];
    let written = if written.is_empty() { &all[..] } else { written };
    for (index, one) in written.iter().enumerate() {
        let http = http_route::Match { headers: one.headers.clone(), ..http_route::Match::default() };
        let path = one.method.as_ref().map_or(Ok(PathMatch::Prefix("/".into())), path);
        match path.and_then(|path| Ok(Match { path, ..matches::translate_one(&http)? })) {
            Ok(one) => usable.push(one),
            Err(message) => {
                let message = format!("matches[{index}].{message}");
                fault.get_or_insert(Fault::new("UnsupportedValue", message));
            }
        }
    }
    (usable, fault)
}

fn path(written: &MethodMatch) -> Result<PathMatch, String> {
    let part = |part: &Option<String>| part.clone().filter(|text| !text.is_empty());
    let (service, method) = (part(&written.service), part(&written.method));
    match &*written.kind {
        "Exact" => {
            // A package may be written from the root on.
            let of_service =
                service.iter().flat_map(|name| name.strip_prefix('.').unwrap_or(name).split('.'));
            for name in of_service.chain(method.as_deref()) {
                check_name(name)?;
            }
            Ok(match (service, method) {
                (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
                (Some(service), None) => PathMatch::Prefix(format!("/{service}")),
                (None, Some(method)) => PathMatch::Regex(format!("/{ANY}/{method}")),
                (None, None) => PathMatch::Prefix("/".into()),
            })
        }
        "RegularExpression" => {
            let group = |part: Option<String>| part.map_or(ANY.into(), |pattern| format!("(?:{pattern})"));
            for pattern in service.iter().chain(&method) {
                matches::check_regex(pattern).map_err(|reason| format!("method: {reason}"))?;
            }
            let pattern = format!("/{}/{}", group(service), group(method));
            matches::check_regex(&pattern).map_err(|reason| format!("method: {reason}"))?;
            Ok(PathMatch::Regex(pattern))
        }
        kind => Err(format!("method.type `{kind}` is not supported")),
    }
}

/// An identifier of Protocol Buffers. Source: the patterns of GRPCMethodMatch.
fn check_name(name: &str) -> Result<(), String> {
    let is_good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if is_good { Ok(()) } else { Err(format!("method: `{name}` is not the name of a service or method")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_become_paths() {
        let check = |kind: &str, service: &str, method: &str, want: PathMatch| {
            let written =
                MethodMatch { kind: kind.into(), service: Some(service.into()), method: Some(method.into()) };
            assert_eq!(path(&written), Ok(want), "{kind} {service} {method}");
        };
        check("Exact", "a.B", "C", PathMatch::Exact("/a.B/C".into()));
        check("Exact", "a.B", "", PathMatch::Prefix("/a.B".into()));
        check("Exact", ".a.B", "C", PathMatch::Exact("/.a.B/C".into()));
        check("Exact", "", "C", PathMatch::Regex("/[^/]+/C".into()));
        check("Exact", "", "", PathMatch::Prefix("/".into()));
        check("RegularExpression", "a|b", "", PathMatch::Regex("/(?:a|b)/[^/]+".into()));
        check("RegularExpression", "a", "b.*", PathMatch::Regex("/(?:a)/(?:b.*)".into()));
    }

    #[test]
    fn a_pattern_can_not_break_out_of_its_part() {
        let bad = |kind: &str, service: &str| {
            let written = MethodMatch { kind: kind.into(), service: Some(service.into()), method: None };
            assert!(path(&written).is_err(), "{kind} {service}");
        };
        bad("RegularExpression", "a)|(b");
        bad("RegularExpression", "(");
        bad("Exact", "a/b");
        for name in ["a b", "..", "a.", "a..b", "1a", "%zz"] {
            bad("Exact", name);
        }
        bad("Like", "a");
    }
}
