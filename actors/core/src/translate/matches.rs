//! Matches: what requests a rule takes.

use proxy_config::path;
use proxy_config::route::{
    Match, PathMatch, REGEX_DEPTH, REGEX_LENGTH, REGEX_SIZE, ValueMatch, ValuePattern,
};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use crate::snapshot::http_route;

use super::conditions::Fault;

/// Translates the matches of a rule: those that can be served, and what is wrong with the first other.
pub(super) fn translate(written: &[http_route::Match]) -> (Vec<Match>, Option<Fault>) {
    if written.is_empty() {
        let all = Match {
            path: PathMatch::Prefix("/".into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        };
        return (vec![all], None);
    }
    let mut first = None;
    let mut usable = Vec::new();
    for (index, one) in written.iter().enumerate() {
        match translate_one(one) {
            Ok(one) => usable.push(one),
            Err(message) => {
                let message = format!("matches[{index}].{message}");
                first.get_or_insert(Fault::new("UnsupportedValue", message));
            }
        }
    }
    (usable, first)
}

/// Translates one match.
pub(super) fn translate_one(written: &http_route::Match) -> Result<Match, String> {
    let headers = values("headers", &written.headers, |name| name.to_ascii_lowercase())?;
    for header in &headers {
        if !is_token(&header.name) {
            return Err(format!("headers: `{}` is not a header name", header.name));
        }
    }
    let query = values("queryParams", &written.query_params, str::to_owned)?;
    Ok(Match { path: path_match(&written.path)?, method: written.method.clone(), headers, query })
}

fn path_match(written: &http_route::PathMatch) -> Result<PathMatch, String> {
    let value = &written.value;
    match &*written.kind {
        "RegularExpression" => {
            check_regex(value).map_err(|reason| format!("path.value: {reason}"))?;
            return Ok(PathMatch::Regex(value.clone()));
        }
        "Exact" | "PathPrefix" => {}
        kind => return Err(format!("path.type `{kind}` is not supported")),
    }
    if !value.starts_with('/')
        || value.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"?#".contains(&byte))
    {
        return Err(format!("path.value `{value}` is not a path: it begins with / and has no ?, # or space"));
    }
    path::pattern(value).map_err(|reason| format!("path.value `{value}` is not a path: {reason}"))?;
    if written.kind == "Exact" {
        return Ok(PathMatch::Exact(value.clone()));
    }
    // `/a/` takes what `/a` takes: prefixes are matched element by element.
    let trimmed = value.trim_end_matches('/');
    Ok(PathMatch::Prefix(if trimmed.is_empty() { "/".into() } else { trimmed.into() }))
}

/// Of entries with one name, the first counts. Source: HTTPRouteMatch.headers and .queryParams.
fn values(
    field: &str,
    written: &[http_route::ValueMatch],
    spell: impl Fn(&str) -> String,
) -> Result<Vec<ValueMatch>, String> {
    let mut values: Vec<ValueMatch> = Vec::new();
    for (index, one) in written.iter().enumerate() {
        let name = spell(&one.name);
        let value = match &*one.kind {
            "Exact" => ValuePattern::Exact(one.value.clone()),
            "RegularExpression" => {
                check_regex(&one.value).map_err(|reason| format!("{field}[{index}].value: {reason}"))?;
                ValuePattern::Regex(one.value.clone())
            }
            kind => return Err(format!("{field}[{index}].type `{kind}` is not supported")),
        };
        if values.iter().all(|known| known.name != name) {
            values.push(ValueMatch { name, value });
        }
    }
    Ok(values)
}

/// As the proxy compiles it: on bytes, in linear time, within limits.
pub(super) fn check_regex(pattern: &str) -> Result<(), String> {
    let refused = |reason: &str| Err(format!("the regular expression `{pattern}` can't be used: {reason}"));
    if pattern.len() > REGEX_LENGTH {
        return Err(format!("the regular expression is longer than {REGEX_LENGTH} bytes"));
    }
    let config = thompson::Config::new().nfa_size_limit(Some(REGEX_SIZE));
    let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(REGEX_DEPTH);
    let Err(error) = thompson::Compiler::new().configure(config).syntax(syntax).build(pattern) else {
        return Ok(());
    };
    // What the parser says draws the pattern over several lines; the last one says what is wrong.
    let parser = std::error::Error::source(&error).map(ToString::to_string);
    let reason = parser.unwrap_or_else(|| error.to_string());
    refused(reason.lines().next_back().unwrap_or_default().trim_start_matches("error: "))
}

/// Whether a text is a token. Source: RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_request_can_have_is_refused() {
        let check = |kind: &str, value: &str, want: Option<PathMatch>| {
            let written = http_route::PathMatch { kind: kind.into(), value: value.into() };
            assert_eq!(path_match(&written).ok(), want, "{kind} {value}");
        };
        check("Exact", "/a%2Fb/", Some(PathMatch::Exact("/a%2Fb/".into())));
        check("PathPrefix", "/a/", Some(PathMatch::Prefix("/a".into())));
        check("PathPrefix", "/", Some(PathMatch::Prefix("/".into())));
        for kind in ["Exact", "PathPrefix"] {
            for bad in ["", "a", "/a b", "/a?b", "/a#b", "/%zz", "/%4", "/%00", "/..", "/a/%2e%2e/.."] {
                check(kind, bad, None);
            }
        }
    }
}
