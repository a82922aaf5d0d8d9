//! Owns cross-origin resource sharing: which origins may read a response, and what a preflight is told.
//!
//! Pure. Called by the table (compile) and by the plan of a request. Its word is final: what an upstream
//! says of CORS itself is dropped, for two answers would contradict each other.
//! Source: Gateway API GEP-1767, the Fetch standard section 3.2.

use proxy_config::route::Cors as CorsUnit;

use super::{Appended, FilterError, HeaderEdits, is_token};
use crate::table::request::RequestView;

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
const ALLOW_CREDENTIALS: &str = "Access-Control-Allow-Credentials";
const ALLOW_METHODS: &str = "Access-Control-Allow-Methods";
const ALLOW_HEADERS: &str = "Access-Control-Allow-Headers";
const EXPOSE_HEADERS: &str = "Access-Control-Expose-Headers";
const MAX_AGE: &str = "Access-Control-Max-Age";
const OWNED: [&str; 6] =
    [ALLOW_ORIGIN, ALLOW_CREDENTIALS, ALLOW_METHODS, ALLOW_HEADERS, EXPOSE_HEADERS, MAX_AGE];

/// A pattern of origins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// All of them.
    Any,
    /// One.
    Exact(Box<str>),
    /// What begins and ends so, with at least one byte between: `https://` and `.example.com`.
    Around(Box<str>, Box<str>),
}

impl Pattern {
    fn compile(text: &str) -> Result<Self, FilterError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let refused = || FilterError::Origin(text.to_owned());
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic() && !b",\"\\".contains(&byte));
        let (scheme, rest) = text.split_once("://").filter(|_| clean).ok_or_else(refused)?;
        if !is_token(scheme.as_bytes()) || scheme.contains('*') || rest.is_empty() || rest.contains('/') {
            return Err(refused());
        }
        let text = canonical(text);
        Ok(match text.split_once('*') {
            None => Self::Exact(text.into()),
            Some((_, after)) if after.contains('*') || !rest.starts_with('*') => return Err(refused()),
            Some((before, after)) => Self::Around(before.into(), after.into()),
        })
    }

    fn takes(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => text.eq_ignore_ascii_case(canonical(origin)),
            Self::Around(before, after) => {
                let origin = canonical(origin).as_bytes();
                let Some(middle) = origin.len().checked_sub(before.len() + after.len()) else { return false };
                let (start, rest) = origin.split_at(before.len());
                // What the star stands for is part of a host: it can't reach over into a port.
                middle > 0
                    && start.eq_ignore_ascii_case(before.as_bytes())
                    && rest[middle..].eq_ignore_ascii_case(after.as_bytes())
                    && !rest[..middle].contains(&b':')
            }
        }
    }
}

/// An origin without the port that its scheme implies.
fn canonical(origin: &str) -> &str {
    let implied = match origin.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => ":443",
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => ":80",
        _ => return origin,
    };
    origin.strip_suffix(implied).unwrap_or(origin)
}

/// A list of methods or names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum List {
    /// All of them.
    Any,
    /// These, as a field's value.
    These(Box<str>),
}

impl List {
    fn compile(items: &[String]) -> Result<Option<Self>, FilterError> {
        if items.iter().any(|item| item == "*") {
            return Ok(Some(Self::Any));
        }
        if let Some(item) = items.iter().find(|item| !is_token(item.as_bytes())) {
            return Err(FilterError::Name(item.clone()));
        }
        Ok((!items.is_empty()).then(|| Self::These(items.join(", ").into())))
    }

    /// The value of the field that tells them: where all may be, those that were asked for, because `*` is
    /// a name like any other once there are credentials.
    fn told(&self, asked: Option<&str>, credentials: bool) -> Option<Box<str>> {
        match self {
            Self::These(list) => Some(list.clone()),
            Self::Any if credentials => asked.map(Into::into),
            Self::Any => Some("*".into()),
        }
    }
}

/// Cross-origin resource sharing, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Box<[Pattern]>,
    credentials: bool,
    methods: Option<List>,
    headers: Option<List>,
    exposed: Option<List>,
    max_age: Box<str>,
}

impl Cors {
    /// Compiles the filter.
    ///
    /// # Errors
    /// Where an origin is no origin, or a name no token.
    pub fn compile(unit: &CorsUnit) -> Result<Self, FilterError> {
        let origins = unit.allow_origins.iter().map(|origin| Pattern::compile(origin));
        Ok(Self {
            origins: origins.collect::<Result<_, _>>()?,
            credentials: unit.allow_credentials,
            methods: List::compile(&unit.allow_methods)?,
            headers: List::compile(&unit.allow_headers)?,
            exposed: List::compile(&unit.expose_headers)?,
            max_age: unit.max_age.to_string().into(),
        })
    }

    /// The fields of the answer to a preflight; `None` where the request is none.
    pub fn preflight<R: RequestView>(&self, request: &R) -> Option<HeaderEdits> {
        if request.method() != b"OPTIONS" {
            return None;
        }
        let origin = request.header("origin")?;
        let method = request.header("access-control-request-method")?;
        let mut fields = self.common(std::str::from_utf8(&origin).ok());
        if fields.iter().any(|field| &*field.name == ALLOW_ORIGIN) {
            let asked = request.header("access-control-request-headers");
            let asked = asked.as_deref().and_then(|names| std::str::from_utf8(names).ok());
            let method = std::str::from_utf8(&method).ok();
            let told = |list: &Option<List>, asked| {
                list.as_ref().and_then(|list| list.told(asked, self.credentials))
            };
            let more = [
                (ALLOW_METHODS, told(&self.methods, method)),
                (ALLOW_HEADERS, told(&self.headers, asked)),
                (MAX_AGE, Some(self.max_age.clone())),
            ];
            let more = more.into_iter().filter_map(|(name, value)| Some((name, value?)));
            fields.extend(more.map(|(name, value)| Appended { name: name.into(), value }));
            if self.credentials {
                fields
                    .push(appended("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers"));
            }
        }
        Some(HeaderEdits::default().and(&[], fields))
    }

    /// Edits of a response: `edits`, then what the request's origin may know.
    pub fn response<R: RequestView>(&self, request: &R, edits: &HeaderEdits) -> HeaderEdits {
        let origin = request.header("origin");
        let origin = origin.as_deref().and_then(|origin| std::str::from_utf8(origin).ok());
        edits.and(&OWNED, self.common(origin))
    }

    /// What preflights and other requests of an origin are told alike.
    fn common(&self, origin: Option<&str>) -> Vec<Appended> {
        let is_open = self.origins.contains(&Pattern::Any) && !self.credentials;
        let mut fields = Vec::with_capacity(8);
        if !is_open {
            fields.push(appended("Vary", "Origin"));
        }
        let Some(origin) = origin.filter(|origin| self.origins.iter().any(|each| each.takes(origin))) else {
            return fields;
        };
        fields.push(appended(ALLOW_ORIGIN, if is_open { "*" } else { origin }));
        if self.credentials {
            fields.push(appended(ALLOW_CREDENTIALS, "true"));
        }
        match &self.exposed {
            Some(List::These(list)) => fields.push(appended(EXPOSE_HEADERS, list)),
            Some(List::Any) => fields.push(appended(EXPOSE_HEADERS, "*")),
            None => {}
        }
        fields
    }
}

fn appended(name: &str, value: &str) -> Appended {
    Appended { name: name.into(), value: value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, takes: &[&str], refuses: &[&str]) {
        let compiled = Pattern::compile(pattern).unwrap();
        takes.iter().for_each(|origin| assert!(compiled.takes(origin), "{pattern} {origin}"));
        refuses.iter().for_each(|origin| assert!(!compiled.takes(origin), "{pattern} {origin}"));
    }

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        check("*", &["https://a.example", "null"], &[]);
        check(
            "https://a.example",
            &["https://a.example", "https://A.example:443"],
            &["http://a.example", "https://a.example:8443", "https://b.a.example", "https://a.example.evil"],
        );
        check("https://a.example:443", &["https://a.example"], &["https://a.example:80"]);
    }

    #[test]
    fn a_star_stands_for_one_label_or_more_and_never_for_none() {
        check(
            "https://*.a.example",
            &["https://x.a.example", "https://y.x.a.example"],
            &[
                "https://a.example",
                "https://.a.example",
                "https://xa.example",
                "https://evil.example:1.a.example",
            ],
        );
        check("http://*:8080", &["http://x:8080"], &["http://x", "http://x:80", "http://x:8080:8080"]);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "a.example",
            "https://",
            "https://a.example/",
            "https://a.*",
            "*://a",
            "https://*.*",
            "a\r\n://b",
        ] {
            assert_eq!(Pattern::compile(text), Err(FilterError::Origin(text.to_owned())), "{text}");
        }
    }
}
