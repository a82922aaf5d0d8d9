//! Filters of rules and of backends.

use proxy_config::path;
use proxy_config::route::{Field, Filter, HeaderEdits, PathEdit, Redirect, Rewrite};

use crate::snapshot::http_route::{self, HeaderField, PathModifier};
use crate::snapshot::meta::Kind;

use super::backends::Scope;
use super::conditions::Fault;
use super::matches::is_token;
use super::rules::Rules;
use super::{hostnames, rule_extras};

/// Fields that frame a message or belong to a connection: a route must not touch them.
/// Source: RFC 9110 section 7.6.1, RFC 9112 section 6.
const FRAMING: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Translates a list of filters. None may be skipped, so one that can't be served is a fault of all.
pub(super) fn translate(
    scope: &Scope<'_, '_>,
    field: &str,
    written: &[http_route::Filter],
    all: &mut Rules,
) -> Result<Vec<Filter>, Fault> {
    let mut filters: Vec<Filter> = Vec::new();
    for (index, one) in written.iter().enumerate() {
        let filter = translate_one(scope, &format!("{field}[{index}]"), one, all)
            .map_err(|message| Fault::new("UnsupportedValue", format!("{field}[{index}].{message}")))?;
        let kind = std::mem::discriminant(&filter);
        let once = !matches!(filter, Filter::Mirror(_));
        if once && filters.iter().any(|known| std::mem::discriminant(known) == kind) {
            let message = format!("{field}[{index}]: {} may be there once", one.kind);
            return Err(Fault::new("IncompatibleFilters", message));
        }
        filters.push(filter);
    }
    let has = |wanted: fn(&Filter) -> bool| filters.iter().any(wanted);
    if has(|filter| matches!(filter, Filter::Redirect(_)))
        && has(|filter| matches!(filter, Filter::Rewrite(_)))
    {
        let message = format!("{field}: RequestRedirect and URLRewrite exclude each other");
        return Err(Fault::new("IncompatibleFilters", message));
    }
    Ok(filters)
}

/// The path edit of a filter.
pub(super) fn path_edit(filter: &Filter) -> Option<&PathEdit> {
    match filter {
        Filter::Redirect(Redirect { path, .. }) | Filter::Rewrite(Rewrite { path, .. }) => path.as_ref(),
        _ => None,
    }
}

/// The filters that GRPCRoutes have. Source: GRPCRouteFilter.type.
const OF_CALLS: &[&str] = &["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"];

fn translate_one(
    scope: &Scope<'_, '_>,
    field: &str,
    written: &http_route::Filter,
    all: &mut Rules,
) -> Result<Filter, String> {
    match &*written.kind {
        kind if scope.route.kind == Kind::GrpcRoute && !OF_CALLS.contains(&kind) => {
            Err(format!("type `{kind}` is not possible in a GRPCRoute"))
        }
        "RequestMirror" => {
            let wanted = written.request_mirror.as_ref().ok_or("requestMirror is missing")?;
            rule_extras::mirror(scope, field, wanted, all)
                .map(Filter::Mirror)
                .map_err(|reason| format!("requestMirror.{reason}"))
        }
        "CORS" => {
            let wanted = written.cors.as_ref().ok_or("cors is missing")?;
            rule_extras::cors(wanted).map(Filter::Cors).map_err(|reason| format!("cors.{reason}"))
        }
        "ExternalAuth" => {
            let wanted = written.external_auth.as_ref().ok_or("externalAuth is missing")?;
            rule_extras::external_auth(scope, field, wanted, all)
                .map(Filter::ExternalAuth)
                .map_err(|reason| format!("externalAuth.{reason}"))
        }
        "RequestHeaderModifier" => {
            let edits = written.request_header_modifier.as_ref().ok_or("requestHeaderModifier is missing")?;
            header_edits(edits)
                .map(Filter::RequestHeaders)
                .map_err(|reason| format!("requestHeaderModifier.{reason}"))
        }
        "ResponseHeaderModifier" => {
            let edits =
                written.response_header_modifier.as_ref().ok_or("responseHeaderModifier is missing")?;
            header_edits(edits)
                .map(Filter::ResponseHeaders)
                .map_err(|reason| format!("responseHeaderModifier.{reason}"))
        }
        "RequestRedirect" => {
            let wanted = written.request_redirect.as_ref().ok_or("requestRedirect is missing")?;
            redirect(wanted).map(Filter::Redirect).map_err(|reason| format!("requestRedirect.{reason}"))
        }
        "URLRewrite" => {
            let wanted = written.url_rewrite.as_ref().ok_or("urlRewrite is missing")?;
            let hostname = wanted.hostname.as_deref().map(hostname).transpose();
            let path = wanted.path.as_ref().map(edit_path).transpose();
            let rewrite = hostname.and_then(|hostname| Ok(Rewrite { hostname, path: path? }));
            rewrite.map(Filter::Rewrite).map_err(|reason| format!("urlRewrite.{reason}"))
        }
        kind => {
            Err(format!("type `{kind}` is not supported by this version: requests to this rule get a 500"))
        }
    }
}

fn header_edits(written: &http_route::HeaderModifier) -> Result<HeaderEdits, String> {
    for name in &written.remove {
        check_name(name).map_err(|reason| format!("remove: {reason}"))?;
    }
    Ok(HeaderEdits {
        remove: written.remove.clone(),
        set: fields(&written.set).map_err(|reason| format!("set: {reason}"))?,
        add: fields(&written.add).map_err(|reason| format!("add: {reason}"))?,
    })
}

/// Of entries with one name, the first counts. Source: HTTPHeaderFilter.set and .add.
fn fields(written: &[HeaderField]) -> Result<Vec<Field>, String> {
    let mut fields: Vec<Field> = Vec::new();
    for HeaderField { name, value } in written {
        check_name(name)?;
        let is_text = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
        if !value.bytes().all(is_text) || value.trim_matches([' ', '\t']) != value {
            return Err(format!("the value of `{name}` holds what is not ASCII, or has space around it"));
        }
        if fields.iter().all(|known| !known.name.eq_ignore_ascii_case(name)) {
            fields.push(Field { name: name.clone(), value: value.clone() });
        }
    }
    Ok(fields)
}

fn check_name(name: &str) -> Result<(), String> {
    if !is_token(name) {
        return Err(format!("`{name}` is not a header name"));
    }
    if FRAMING.contains(&&*name.to_ascii_lowercase()) {
        return Err(format!("`{name}` belongs to the connection and can't be edited"));
    }
    Ok(())
}

fn redirect(written: &http_route::RequestRedirect) -> Result<Redirect, String> {
    if let Some(scheme) = written.scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme)) {
        return Err(format!("scheme `{scheme}` is not supported: use http or https"));
    }
    let status = written.status_code.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        return Err(format!("statusCode {status} is not supported: use 301, 302, 303, 307 or 308"));
    }
    if written.port == Some(0) {
        return Err("port must be 1 to 65535".into());
    }
    Ok(Redirect {
        scheme: written.scheme.clone(),
        hostname: written.hostname.as_deref().map(hostname).transpose()?,
        port: written.port,
        path: written.path.as_ref().map(edit_path).transpose()?,
        status,
    })
}

fn hostname(written: &str) -> Result<String, String> {
    if written.starts_with('*') {
        return Err(format!("hostname `{written}` must be one name, not a pattern"));
    }
    match hostnames::fault(written) {
        Some(reason) => Err(format!("hostname: {reason}")),
        None => Ok(written.to_owned()),
    }
}

fn edit_path(written: &PathModifier) -> Result<PathEdit, String> {
    let edit = match (&*written.kind, &written.replace_full_path, &written.replace_prefix_match) {
        ("ReplaceFullPath", Some(path), _) => PathEdit::Full(path.clone()),
        ("ReplacePrefixMatch", _, Some(prefix)) => PathEdit::Prefix(prefix.clone()),
        ("ReplaceFullPath", None, _) => return Err("path.replaceFullPath is missing".into()),
        ("ReplacePrefixMatch", _, None) => return Err("path.replacePrefixMatch is missing".into()),
        (kind, _, _) => return Err(format!("path.type `{kind}` is not supported")),
    };
    let (PathEdit::Full(text) | PathEdit::Prefix(text)) = &edit;
    if text.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#".contains(&byte)) {
        return Err(format!(
            "path: `{text}` holds a space, ? or # or what is not ASCII: write it percent-encoded"
        ));
    }
    let is_rooted = text.starts_with('/') && !text.starts_with("//");
    let may_be_empty = matches!(edit, PathEdit::Prefix(_));
    if !(is_rooted || (text.is_empty() && may_be_empty)) {
        return Err(format!("path: `{text}` must start with one slash"));
    }
    let decoded = path::decode_unreserved(text.as_bytes())
        .map_err(|reason| format!("path: `{text}` is not a path: {reason}"))?;
    if decoded.split(|byte| *byte == b'/').any(|segment| matches!(segment, b"." | b"..")) {
        return Err(format!("path: `{text}` has segments of dots: write where they lead"));
    }
    Ok(edit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_path_is_one_that_a_request_can_have() {
        let check = |path: &str, is_good: bool| {
            let written = PathModifier {
                kind: "ReplaceFullPath".into(),
                replace_full_path: Some(path.into()),
                replace_prefix_match: None,
            };
            assert_eq!(edit_path(&written).is_ok(), is_good, "{path}");
        };
        check("/a%2Fb/caf%C3%A9", true);
        check("/a/", true);
        for bad in
            ["", "a", "//a", "/a b", "/a?b", "/a#b", "/é", "/%zz", "/%4", "/%00", "/a/../b", "/%2e%2E/b"]
        {
            check(bad, false);
        }
    }
}
