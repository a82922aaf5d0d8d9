//! Owns checks, compiled: which services a request has to pass, and what stands before, between and behind
//! them.
//!
//! Filters are applied in the order in which they are written, so a service sees what the filters before it
//! have made of the request, and those behind it act on what it has changed. Called by the table (compile) and
//! by the plan. Knows nothing of what is said.

use std::sync::Arc;

use proxy_config::name::UnitId;
use proxy_config::route::{AuthProtocol, ExternalAuth, Filter, Target};

use crate::http::filters::{FilterError, Filters, HeaderEdits};
use crate::table::slot::Slot;
use crate::upstream::balance::Backend;

/// The checks of a rule, or of a rule and one of its backends.
#[derive(Debug)]
pub struct Checks {
    /// In order; never empty.
    pub(super) steps: Box<[Step]>,
    /// Edits of the request behind the last one.
    pub(super) rest: HeaderEdits,
}

/// A check.
#[derive(Debug)]
pub(super) struct Step {
    /// Edits of the request since the check before.
    pub(super) edits: HeaderEdits,
    /// All filters before it.
    pub(super) before: Filters,
    /// Whether it is the rule's, not one of a single backend's.
    pub(super) is_of_rule: bool,
    /// Edits of the request by the filters of the rule behind it.
    pub(super) rest_of_rule: HeaderEdits,
    /// The service; `None`: the reference to it is invalid.
    target: Option<Slot>,
    /// How it is asked.
    pub(super) how: How,
    /// How many bytes of content it is shown; 0: none.
    pub(super) max_body: usize,
}

/// How a service is asked.
#[derive(Debug)]
pub(super) enum How {
    Http(ByHttp),
    Grpc(ByGrpc),
}

/// By a request of its own.
#[derive(Debug)]
pub(super) struct ByHttp {
    /// Put before the path.
    pub(super) prefix: Box<str>,
    /// Fields that it is shown, besides those that it always is.
    pub(super) shown: Names,
    /// Fields of its answer that the backend is shown; empty: all that are not about the answer itself.
    pub(super) passed_on: Names,
}

/// By a call.
#[derive(Debug)]
pub(super) struct ByGrpc {
    /// The authority that is called.
    pub(super) authority: Box<str>,
    /// Fields that it is shown; empty: all.
    pub(super) shown: Names,
}

/// Names of fields.
#[derive(Debug)]
pub(super) struct Names(Box<[Box<str>]>);

impl Names {
    fn new(names: &[String]) -> Self {
        Self(names.iter().map(|name| name.as_str().into()).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }
}

impl Checks {
    /// The checks among the filters of a rule, then of one of its backends; `None` where there are none. A
    /// check behind a redirect is never come to. `slot` gives the place of a backend.
    ///
    /// # Errors
    /// Where one of the filters can't be applied to any request.
    pub fn compile(
        (of_rule, of_backend): (&[Filter], &[Filter]),
        mut slot: impl FnMut(&UnitId) -> Slot,
    ) -> Result<Option<Self>, FilterError> {
        let all = || of_rule.iter().chain(of_backend);
        let (mut steps, mut begun) = (Vec::new(), 0);
        for (place, filter) in all().enumerate() {
            let Filter::ExternalAuth(unit) = filter else { continue };
            let before = Filters::compile(all().take(place))?;
            if before.redirect.is_some() {
                break;
            }
            let target = match &unit.target {
                Target::Backend(id) => Some(slot(id)),
                Target::Invalid(_) | Target::NotPermitted(_) => None,
            };
            steps.push(Step {
                edits: Filters::compile(all().take(place).skip(begun))?.request,
                before,
                is_of_rule: place < of_rule.len(),
                rest_of_rule: Filters::compile(of_rule.iter().skip(place))?.request,
                target,
                how: How::new(unit),
                max_body: usize::try_from(unit.max_body).unwrap_or(usize::MAX),
            });
            begun = place;
        }
        let rest = Filters::compile(all().skip(begun))?.request;
        Ok((!steps.is_empty()).then(|| Self { steps: steps.into(), rest }))
    }

    /// The services, each at the place of its backend; `None` where one is not there to be asked.
    pub fn backends(&self, backend: impl Fn(Slot) -> Option<Arc<Backend>>) -> Option<Vec<Arc<Backend>>> {
        self.steps.iter().map(|step| backend(step.target?)).collect()
    }
}

impl How {
    fn new(unit: &ExternalAuth) -> Self {
        match &unit.protocol {
            AuthProtocol::Grpc { allowed_headers } => {
                Self::Grpc(ByGrpc { authority: authority(&unit.target), shown: Names::new(allowed_headers) })
            }
            AuthProtocol::Http { path, allowed_headers, allowed_response_headers } => Self::Http(ByHttp {
                prefix: path.as_str().into(),
                shown: Names::new(allowed_headers),
                passed_on: Names::new(allowed_response_headers),
            }),
        }
    }
}

/// The name under which a service is called: the one that it has in its cluster.
fn authority(target: &Target) -> Box<str> {
    let Target::Backend(id) = target else { return Box::default() };
    match id.as_str().split('/').collect::<Vec<_>>()[..] {
        [_, namespace, name, port] => format!("{name}.{namespace}.svc:{port}").into(),
        _ => "localhost".into(),
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::name::ObjectName;
    use proxy_config::route::{Field, HeaderEdits as EditsUnit, Redirect};

    use super::*;

    fn set(value: &str) -> Filter {
        let field = Field { name: "x-a".into(), value: value.into() };
        Filter::RequestHeaders(EditsUnit { set: vec![field], ..EditsUnit::default() })
    }

    fn auth(max_body: u32) -> Filter {
        let target = Target::Backend(UnitId::backend(&ObjectName::new("shop", "auth"), 90));
        let protocol = AuthProtocol::Grpc { allowed_headers: Vec::new() };
        Filter::ExternalAuth(ExternalAuth { target, protocol, max_body })
    }

    fn lines(edits: &HeaderEdits) -> &str {
        std::str::from_utf8(edits.lines()).unwrap()
    }

    #[test]
    fn each_check_stands_where_its_filter_does() {
        let (of_rule, of_backend) = ([set("1"), auth(1), set("2")], [set("3"), auth(2), set("4")]);
        let checks = Checks::compile((&of_rule, &of_backend), |_| Slot::default()).unwrap().unwrap();
        let [first, second] = &checks.steps[..] else { panic!("{checks:?}") };
        assert_eq!((first.max_body, first.is_of_rule), (1, true));
        assert_eq!((second.max_body, second.is_of_rule), (2, false));
        assert_eq!(lines(&first.edits), "x-a: 1\r\n");
        assert_eq!(lines(&first.rest_of_rule), "x-a: 2\r\n");
        assert_eq!(lines(&second.edits), "x-a: 3\r\n");
        assert_eq!(lines(&checks.rest), "x-a: 4\r\n");
        let How::Grpc(how) = &first.how else { panic!("{first:?}") };
        assert_eq!(&*how.authority, "auth.shop.svc:90");
    }

    #[test]
    fn a_check_behind_a_redirect_is_none() {
        let redirect = Filter::Redirect(Redirect {
            scheme: Some("https".into()),
            hostname: None,
            port: None,
            path: None,
            status: 302,
        });
        let count = |filters: &[Filter]| {
            let checks = Checks::compile((filters, &[]), |_| Slot::default()).unwrap();
            checks.map_or(0, |checks| checks.steps.len())
        };
        assert_eq!(count(&[redirect.clone(), auth(0)]), 0);
        assert_eq!(count(&[auth(0), redirect]), 1);
        assert_eq!(count(&[set("1")]), 0);
    }
}
