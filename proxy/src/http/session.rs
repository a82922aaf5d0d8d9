//! Owns sessions: which endpoint a request's session is bound to, and how a client is told.
//!
//! Pure. What a client carries names an endpoint by a digest of its address, so that any proxy, of any
//! configuration, finds the endpoint again with no memory of the session; it is no secret and proves
//! nothing: a client that forges one chooses among the endpoints that its request may go to anyway.
//! Called by the plan and by the codecs of both protocols.
//! Source: GEP-1619, RFC 6265.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proxy_config::resilience::{SessionCarrier, SessionPersistence};

use super::filters::{Appended, FilterError, HeaderEdits};
use super::validate::field::is_token;
use crate::table::request::RequestView;
use crate::upstream::balance::Backend;
use crate::upstream::registry::Endpoint;

/// How requests of one session reach the same endpoint, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    name: Box<str>,
    /// The name as fields are asked for.
    lower: Box<str>,
    carrier: SessionCarrier,
    absolute: Option<u64>,
    idle: Option<u64>,
}

/// What a client carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Carried<'a> {
    token: &'a str,
    /// When the session began, in seconds since 1970.
    began: u64,
    /// When it was used last.
    used: u64,
}

impl<'a> Carried<'a> {
    fn parse(value: &'a str) -> Option<Self> {
        let mut parts = value.split('.');
        let (token, began, used) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self { token, began, used })
    }
}

/// The session of a request.
#[derive(Debug)]
pub struct Bound {
    /// Its endpoint, where it has one that still takes requests.
    pub endpoint: Option<Arc<Endpoint>>,
    began: u64,
    now: u64,
}

impl Bound {
    /// A session that begins now, at no endpoint yet.
    pub fn new(now: SystemTime) -> Self {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs);
        Self { endpoint: None, began: now, now }
    }
}

impl Session {
    /// Compiles the policy of a rule or a backend.
    ///
    /// # Errors
    /// Where the name can be none of a cookie or a field.
    pub fn compile(unit: &SessionPersistence) -> Result<Self, FilterError> {
        if !is_token(unit.name.as_bytes()) {
            return Err(FilterError::Name(unit.name.clone()));
        }
        let seconds = |millis: Option<u64>| millis.map(|millis| millis.div_ceil(1000));
        Ok(Self {
            name: unit.name.as_str().into(),
            lower: unit.name.to_ascii_lowercase().into(),
            carrier: unit.carrier,
            absolute: seconds(unit.absolute_timeout),
            idle: seconds(unit.idle_timeout),
        })
    }

    /// The session of a request among the backends of its rule, with the index of the one that it is at.
    pub fn find<R: RequestView>(
        &self,
        request: &R,
        backends: impl Iterator<Item = (usize, impl Borrow<Arc<Backend>>)>,
        now: SystemTime,
    ) -> (Option<usize>, Bound) {
        let new = Bound::new(now);
        let now = new.now;
        let field = if self.carrier == SessionCarrier::Header { &*self.lower } else { "cookie" };
        let value = request.header(field);
        let value = value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
        let value = match self.carrier {
            SessionCarrier::Header => value,
            _ => value.and_then(|cookies| cookie(cookies, &self.name)),
        };
        let Some(carried) = value.and_then(Carried::parse).filter(|carried| self.lasts(carried, now)) else {
            return (None, new);
        };
        for (share, backend) in backends {
            let backend = backend.borrow();
            if let Some(endpoint) = backend.bound_to(carried.token) {
                let endpoint = Some(Arc::clone(endpoint));
                return (Some(share), Bound { endpoint, began: carried.began, now });
            }
        }
        (None, new)
    }

    fn lasts(&self, carried: &Carried<'_>, now: u64) -> bool {
        let within =
            |since: u64, limit: Option<u64>| limit.is_none_or(|limit| since <= now && now - since < limit);
        within(carried.began, self.absolute) && within(carried.used, self.idle)
    }

    /// `edits`, then what tells the client which endpoint its session is at; `None` where it knows.
    pub fn remember(
        &self,
        bound: &Bound,
        endpoint: &Arc<Endpoint>,
        secure: bool,
        edits: &HeaderEdits,
    ) -> Option<HeaderEdits> {
        let stays = bound.endpoint.as_ref().is_some_and(|bound| Arc::ptr_eq(bound, endpoint));
        if stays && self.idle.is_none() {
            return None;
        }
        // A session that goes on elsewhere goes on for no longer.
        let value = format!("{}.{}.{}", endpoint.token(), bound.began, bound.now);
        let field = match self.carrier {
            SessionCarrier::Header => Appended { name: self.name.clone(), value: value.into() },
            carrier => {
                let mut cookie = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax", self.name);
                if carrier == SessionCarrier::PermanentCookie
                    && let Some(absolute) = self.absolute
                {
                    let left = (bound.began + absolute).saturating_sub(bound.now);
                    cookie.push_str(&format!("; Max-Age={left}"));
                }
                if secure {
                    cookie.push_str("; Secure");
                }
                Appended { name: "Set-Cookie".into(), value: cookie.into() }
            }
        };
        Some(edits.and(&[], vec![field]))
    }
}

/// The value of a cookie among all of a request.
fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    // Fields that were sent several times are joined by commas.
    let mut each = cookies.split([';', ',']).map(str::trim);
    each.find_map(|cookie| cookie.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::registry::{EndpointKey, Registry};

    #[test]
    fn a_session_that_is_used_is_renewed_and_lasts_from_when_it_began_wherever_it_goes_on() {
        let unit = SessionPersistence {
            name: "s".into(),
            carrier: SessionCarrier::PermanentCookie,
            absolute_timeout: Some(100_000),
            idle_timeout: Some(20_000),
        };
        let (session, registry) = (Session::compile(&unit).unwrap(), Registry::default());
        let [home, other] = [1_u16, 2]
            .map(|port| registry.endpoint(EndpointKey { address: ([127, 0, 0, 1], port).into(), tls: None }));
        let bound = Bound { endpoint: Some(Arc::clone(&home)), began: 100, now: 150 };
        for endpoint in [&home, &other] {
            let edits = session.remember(&bound, endpoint, true, &HeaderEdits::default()).unwrap();
            let rest = "100.150; Path=/; HttpOnly; SameSite=Lax; Max-Age=50; Secure";
            assert_eq!(*edits.appended()[0].value, format!("s={}.{rest}", endpoint.token()));
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (cookies, want) in [
            ("s=1", Some("1")),
            ("a=2; s=1; b=3", Some("1")),
            ("a=2, s=1", Some("1")),
            ("xs=1; sx=2", None),
            ("", None),
        ] {
            assert_eq!(cookie(cookies, "s"), want, "{cookies}");
        }
    }

    #[test]
    fn a_session_lasts_as_long_as_both_timeouts_say() {
        let unit = |absolute, idle| SessionPersistence {
            name: "s".into(),
            carrier: SessionCarrier::Header,
            absolute_timeout: absolute,
            idle_timeout: idle,
        };
        let carried = Carried::parse("t.100.150").unwrap();
        for (absolute, idle, now, lasts) in [
            (None, None, 1_000_000, true),
            (Some(100_000), None, 199, true),
            (Some(100_000), None, 200, false),
            (None, Some(20_000), 169, true),
            (None, Some(20_000), 170, false),
            // Of the future: forged, or of a clock that is wrong.
            (Some(100_000), None, 99, false),
        ] {
            let session = Session::compile(&unit(absolute, idle)).unwrap();
            assert_eq!(session.lasts(&carried, now), lasts, "{absolute:?} {idle:?} {now}");
        }
    }

    #[test]
    fn what_no_proxy_has_written_is_no_session() {
        for value in ["", "t", "t.1", "t.x.1", "t.1.2.3", "t.-1.2"] {
            assert_eq!(Carried::parse(value), None, "{value}");
        }
    }
}
