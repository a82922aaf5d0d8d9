//! Of rules: mirrors, CORS, external authorisation, retries and sessions.

use proxy_config::name::UnitId;
use proxy_config::resilience::{Retry, SessionCarrier, SessionPersistence};
use proxy_config::route::{AuthProtocol, Cors, ExternalAuth, Mirror};
use proxy_config::unit::ContentHash;

use crate::snapshot::rule_extras::{self, Fraction};

use super::backends::{self, Scope};
use super::conditions::Fault;
use super::durations;
use super::matches::is_token;
use super::rules::Rules;

/// How long a preflight's answer holds where nothing is said, in seconds. Source: HTTPCORSFilter.maxAge.
const MAX_AGE: u32 = 5;

/// How many bytes of content a service may be shown at most: they are held in memory.
const MAX_BODY: u32 = 64 << 10;

/// A mirror; `field` is where it is written in the rule.
pub(super) fn mirror(
    scope: &Scope<'_, '_>,
    field: &str,
    written: &rule_extras::RequestMirror,
    all: &mut Rules,
) -> Result<Mirror, String> {
    let (share, numerator, denominator) = match (written.percent, written.fraction) {
        (Some(_), Some(_)) => return Err("percent and fraction exclude each other".into()),
        (Some(percent), None) => ("percent", percent, 100),
        (None, share) => {
            let share = share.unwrap_or(Fraction { numerator: 1, denominator: 1 });
            ("fraction", share.numerator, share.denominator)
        }
    };
    if denominator == 0 || numerator > denominator {
        return Err(format!("{share}: {numerator} of {denominator} requests can't be copied"));
    }
    let field = format!("{field}.requestMirror.backendRef");
    let target = backends::target(scope, &field, &written.backend_ref, all);
    Ok(Mirror { target, numerator, denominator })
}

/// Cross-origin resource sharing.
pub(super) fn cors(written: &rule_extras::Cors) -> Result<Cors, String> {
    for origin in &written.allow_origins {
        check_origin(origin)?;
    }
    for (field, names) in [
        ("allowMethods", &written.allow_methods),
        ("allowHeaders", &written.allow_headers),
        ("exposeHeaders", &written.expose_headers),
    ] {
        if let Some(name) = names.iter().find(|name| !is_token(name)) {
            return Err(format!("{field}: `{name}` is not a name"));
        }
    }
    Ok(Cors {
        allow_origins: written.allow_origins.clone(),
        allow_credentials: written.allow_credentials.unwrap_or(false),
        allow_methods: written.allow_methods.clone(),
        allow_headers: written.allow_headers.clone(),
        expose_headers: written.expose_headers.clone(),
        max_age: written.max_age.unwrap_or(MAX_AGE),
    })
}

/// `*`, or a scheme and a host, which may begin with `*.` or be `*`, and a port.
fn check_origin(origin: &str) -> Result<(), String> {
    let host = origin.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme));
    let is_good = |host: &str| {
        let (name, port) = host.split_once(':').unwrap_or((host, "443"));
        let name = name.strip_prefix("*.").unwrap_or(name);
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        port.parse::<u16>().is_ok() && (name == "*" || (!name.is_empty() && name.bytes().all(inner)))
    };
    if origin == "*" || host.is_some_and(|(_, host)| is_good(host)) {
        return Ok(());
    }
    Err(format!("allowOrigins: `{origin}` is not an origin: write it as https://www.example.com"))
}

/// External authorisation; `field` is where it is written in the rule.
pub(super) fn external_auth(
    scope: &Scope<'_, '_>,
    field: &str,
    written: &rule_extras::ExternalAuth,
    all: &mut Rules,
) -> Result<ExternalAuth, String> {
    let protocol = match &*written.protocol {
        "GRPC" => AuthProtocol::Grpc { allowed_headers: written.grpc.allowed_headers.clone() },
        "HTTP" => AuthProtocol::Http {
            path: written.http.path.clone(),
            allowed_headers: written.http.allowed_headers.clone(),
            allowed_response_headers: written.http.allowed_response_headers.clone(),
        },
        other => return Err(format!("protocol `{other}` is not supported: use HTTP or GRPC")),
    };
    let max_body = written.forward_body.max_size;
    if max_body > MAX_BODY {
        return Err(format!("forwardBody.maxSize {max_body} is more than {MAX_BODY}"));
    }
    let path = &written.http.path;
    if path.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"?#".contains(&byte)) {
        return Err(format!("http.path `{path}` holds a space, ? or #, which a path can't have"));
    }
    let field = format!("{field}.externalAuth.backendRef");
    let target = backends::target(scope, &field, &written.backend_ref, all);
    Ok(ExternalAuth { target, protocol, max_body })
}

/// When a request is sent again.
pub(super) fn retry(written: &rule_extras::Retry) -> Result<Retry, Fault> {
    let fault = |message: String| Fault::new("UnsupportedValue", message);
    if let Some(code) = written.codes.iter().find(|code| !(400..=599).contains(*code)) {
        return Err(fault(format!("retry.codes: {code} is not a status of 400 to 599")));
    }
    let backoff = written.backoff.as_deref().map(|text| duration("retry.backoff", text)).transpose()?;
    Ok(Retry { codes: written.codes.clone(), attempts: written.attempts.unwrap_or(1), backoff })
}

/// How requests of one session reach the same endpoint; `name` is how sessions are called where nothing is
/// said.
pub(super) fn session(
    written: &rule_extras::SessionPersistence,
    name: String,
) -> Result<SessionPersistence, Fault> {
    let fault = |message: String| Fault::new("UnsupportedValue", message);
    let lifetime = written.cookie_config.lifetime_type.as_deref().unwrap_or("Session");
    let carrier = match (written.kind.as_deref().unwrap_or("Cookie"), lifetime) {
        ("Cookie", "Session") => SessionCarrier::SessionCookie,
        ("Cookie", "Permanent") => SessionCarrier::PermanentCookie,
        ("Header", _) => SessionCarrier::Header,
        (kind, lifetime) => {
            let message =
                format!("sessionPersistence: type `{kind}` with lifetimeType `{lifetime}` is not supported");
            return Err(fault(message));
        }
    };
    let absolute = written.absolute_timeout.as_deref();
    let absolute_timeout =
        absolute.map(|text| duration("sessionPersistence.absoluteTimeout", text)).transpose()?;
    if carrier == SessionCarrier::PermanentCookie && absolute_timeout.is_none() {
        return Err(fault("sessionPersistence: a permanent cookie needs an absoluteTimeout".into()));
    }
    let name = written.session_name.clone().unwrap_or(name);
    if !is_token(&name) {
        return Err(fault(format!("sessionPersistence.sessionName `{name}` is not a name")));
    }
    Ok(SessionPersistence { name, carrier, absolute_timeout, idle_timeout: None })
}

/// How the sessions of a rule are called: two rules must not read each other's cookies.
pub(super) fn session_name_of_rule(scope: &Scope<'_, '_>) -> String {
    session_name(&UnitId::route(scope.route.kind.as_str(), &scope.route.name), &scope.rule.to_string())
}

/// A name of its own for something and a part of it, the same on every replica.
pub(super) fn session_name(id: &UnitId, part: &str) -> String {
    let hash = ContentHash::of(id, part).to_string();
    format!("portreeve-{}", &hash[..12])
}

fn duration(field: &str, text: &str) -> Result<u64, Fault> {
    durations::milliseconds(text).ok_or_else(|| {
        let message = format!("{field} `{text}` is not a duration: write it as 1h30m, 10s or 500ms");
        Fault::new("UnsupportedValue", message)
    })
}

#[cfg(test)]
mod tests {
    use super::check_origin;

    #[test]
    fn origins_have_a_scheme_and_a_host() {
        for good in ["*", "https://a.example", "http://*.example.com", "https://*:8443", "http://a:80"] {
            assert_eq!(check_origin(good), Ok(()), "{good}");
        }
        for bad in
            ["a.example", "ftp://a.example", "https://", "https://a/b", "https://a:b", "https://a b", ""]
        {
            assert!(check_origin(bad).is_err(), "{bad}");
        }
    }
}
