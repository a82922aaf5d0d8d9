//! What holds for all traffic to a backend, compiled, whichever rule sends it. Source: GEP-3388, GEP-1619.

use proxy_config::resilience::BackendTraffic;

use crate::http::filters::FilterError;
use crate::http::session::Session;
use crate::upstream::retries::Constraint;

/// What holds for all traffic to a backend.
#[derive(Debug)]
pub struct Traffic {
    /// How many requests may be retries; `None`: as many as by default.
    pub retries: Option<Constraint>,
    /// Its sessions, for rules that have none of their own.
    pub session: Option<Session>,
}

impl Traffic {
    /// Compiles what a policy says.
    ///
    /// # Errors
    /// Where the name of a session can be none of a cookie or a field.
    pub(super) fn compile(unit: &BackendTraffic) -> Result<Self, FilterError> {
        let session = unit.session.as_ref().map(Session::compile).transpose()?;
        Ok(Self { retries: unit.retries.map(Constraint::compile), session })
    }
}
