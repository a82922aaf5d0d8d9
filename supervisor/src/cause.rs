//! Why a child failed, as a value that keeps the whole chain of causes.
//!
//! Made by the keepers and the machine; read by parents, by the live tree and by whoever waits for
//! the end of the process. Refuses to know what the child was doing.

use std::sync::Arc;
use std::time::Duration;

use crate::spec::Intensity;

/// Why a child ended, or could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// `pre_start` returned an error or panicked.
    #[error("start failed: {0}")]
    Start(Arc<str>),
    /// `pre_start` did not return in time.
    #[error("start took longer than {0:?}")]
    StartTimeout(Duration),
    /// A child of the branch could not be started; what had been started was stopped again.
    #[error("child {child:?} did not start")]
    Boot {
        /// Name of the child.
        child: Arc<str>,
        /// Why it did not start.
        #[source]
        cause: Box<Cause>,
    },
    /// A callback returned an error or panicked.
    #[error("failed: {0}")]
    Failed(Arc<str>),
    /// Somebody killed the actor: always abnormal.
    #[error("killed")]
    Killed,
    /// The actor's task was cancelled: always abnormal.
    #[error("task cancelled")]
    Cancelled,
    /// It did not stop by its deadline and was killed.
    #[error("did not stop within {0:?} and was killed")]
    Overdue(Duration),
    /// It ended by itself without an error.
    #[error("ended by itself{}", reason.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    Exited {
        /// What it gave as reason.
        reason: Option<Arc<str>>,
    },
    /// Its supervisor was killed and took it along.
    #[error("killed with its supervisor")]
    Orphaned,
    /// More restarts than the branch allows.
    #[error("more than {} restarts within {:?}, last of child {child:?}", limit.restarts, limit.within)]
    Intensity {
        /// The branch's limit.
        limit: Intensity,
        /// The child whose failure was one too many.
        child: Arc<str>,
        /// Why that child failed.
        #[source]
        cause: Box<Cause>,
    },
}

impl Cause {
    /// The whole chain on one line, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and all its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// How an instance ended once it had started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Without an error: no restart for transient children.
    Normal(Option<Arc<str>>),
    /// With an error, by panic, kill or cancellation.
    Abnormal(Cause),
}

impl Exit {
    /// The exit as a cause, for children that should not have ended at all.
    pub(crate) fn into_cause(self) -> Cause {
        match self {
            Self::Normal(reason) => Cause::Exited { reason },
            Self::Abnormal(cause) => cause,
        }
    }
}
