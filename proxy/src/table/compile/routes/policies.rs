//! Policies of a rule: what it does besides editing heads and choosing a backend.
//!
//! Called by the stage of routes. What a rule can't do as written makes the whole rule invalid.

use proxy_config::route::{Filter, Rule as RuleUnit};

use crate::http::filters::FilterError;
use crate::http::filters::cors::Cors;
use crate::table::route::Policies;

/// The policies of a rule; `None` where it has none.
pub(super) fn compile(rule: &RuleUnit) -> Result<Option<Policies>, String> {
    let mut compiled = None;
    for filter in &rule.filters {
        if let Filter::Cors(unit) = filter {
            let cors = Cors::compile(unit).map_err(|error| error.to_string())?;
            compiled.get_or_insert_with(Policies::default).cors = Some(cors);
        }
    }
    let mut of_backends = rule.backends.iter().flat_map(|backend| &backend.filters);
    if of_backends.any(|filter| matches!(filter, Filter::Cors(_))) {
        // A preflight is answered before a backend is chosen.
        return Err(FilterError::Unsupported("CORS of a single backend").to_string());
    }
    Ok(compiled)
}
