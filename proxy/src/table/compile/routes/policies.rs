//! Policies of a rule: what it does besides editing heads and choosing a backend.
//!
//! Called by the stage of routes. What a rule can't do as written makes the whole rule invalid.

use proxy_config::name::UnitId;
use proxy_config::route::{Filter, Rule as RuleUnit, Target};

use crate::http::authorise::checks::Checks;
use crate::http::filters::FilterError;
use crate::http::filters::cors::Cors;
use crate::http::mirror::Mirror;
use crate::http::retry::Retry;
use crate::http::session::Session;
use crate::table::compile::backends::BackendStage;
use crate::table::route::{Authorisation, Policies};

/// The policies of a rule; `None` where it has none.
pub(super) fn compile(
    rule: &RuleUnit,
    backends: &mut BackendStage,
    held: &mut Vec<UnitId>,
) -> Result<Option<Policies>, String> {
    let mut compiled = None;
    for filter in &rule.filters {
        if let Filter::Cors(unit) = filter {
            let cors = Cors::compile(unit).map_err(|error| error.to_string())?;
            compiled.get_or_insert_with(Policies::default).cors = Some(cors);
        }
    }
    if let Some(retry) = &rule.retry {
        compiled.get_or_insert_with(Policies::default).retry = Some(Retry::compile(retry));
    }
    if let Some(session) = &rule.session {
        let session = Session::compile(session).map_err(|error| error.to_string())?;
        compiled.get_or_insert_with(Policies::default).session = Some(session);
    }
    let mirrors = mirrors(rule, backends, held);
    if !mirrors.is_empty() {
        compiled.get_or_insert_with(Policies::default).mirrors = mirrors;
    }
    if let Some(authorisation) = authorisation(rule, backends, held).map_err(|error| error.to_string())? {
        compiled.get_or_insert_with(Policies::default).authorisation = Some(authorisation);
    }
    let mut of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
    if of_backends.any(|filter| matches!(filter, Filter::Cors(_))) {
        // A preflight is answered before a backend is chosen.
        return Err(FilterError::Unsupported("CORS of a single backend").to_string());
    }
    Ok(compiled)
}

/// The mirrors of a rule and of its backends. None is made where the target is invalid.
fn mirrors(rule: &RuleUnit, backends: &mut BackendStage, held: &mut Vec<UnitId>) -> Box<[Mirror]> {
    let of_rule = rule.filters.iter().map(|filter| (None, filter));
    let of_shares = rule.backends.iter().enumerate();
    let of_shares = of_shares
        .flat_map(|(share, backend)| backend.filters.iter().map(move |filter| (Some(share), filter)));
    let mut mirrors = Vec::new();
    for (share, filter) in of_rule.chain(of_shares) {
        if let Filter::Mirror(unit) = filter
            && let Target::Backend(id) = &unit.target
        {
            held.push(id.clone());
            mirrors.push(Mirror::new(backends.acquire(id), share, unit.numerator, unit.denominator));
        }
    }
    mirrors.into()
}

/// The checks of a rule and of its backends; `None` where there are none.
fn authorisation(
    rule: &RuleUnit,
    backends: &mut BackendStage,
    held: &mut Vec<UnitId>,
) -> Result<Option<Authorisation>, FilterError> {
    let mut checks = |of_backend| {
        Checks::compile((&rule.filters, of_backend), |id| {
            held.push(id.clone());
            backends.acquire(id)
        })
    };
    let of_rule = checks(&[])?;
    let of_shares = rule.backends.iter().map(|backend| checks(&backend.filters));
    let of_shares = of_shares.collect::<Result<Box<[_]>, _>>()?;
    let has_any = of_rule.is_some() || of_shares.iter().any(Option::is_some);
    Ok(has_any.then_some(Authorisation { of_rule, of_shares }))
}
