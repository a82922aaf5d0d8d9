//! What we rely on in a Lease, and how a claim is written into one.
//!
//! Called by the elector and by the lease leader. Refuses to drop what others wrote into the object: a
//! claim changes our fields and leaves the rest.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The annotation that carries the term.
pub const TERM: &str = "portreeve.dev/term";

/// What a Lease says; nonsense reads as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The resourceVersion.
    pub version: Option<String>,
    /// `None` or empty: given up.
    pub holder: Option<String>,
    /// For how long the holder claims it after each renewal.
    pub duration: Option<Duration>,
    /// How often it changed hands.
    pub transitions: u64,
    /// The term of the holder.
    pub term: Option<u64>,
}

impl Record {
    /// Reads a Lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let term = lease.metadata.annotations.as_ref().and_then(|all| all.get(TERM)?.parse().ok());
        Self {
            version: lease.metadata.resource_version.clone(),
            holder: spec.holder_identity,
            duration: spec
                .lease_duration_seconds
                .and_then(|s| u64::try_from(s).ok())
                .map(Duration::from_secs),
            transitions: spec.lease_transitions.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
            term,
        }
    }
}

/// What we write into a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `None` gives it up.
    pub holder: Option<String>,
    /// Counted by others from when they see it.
    pub duration: Duration,
    /// The term.
    pub term: u64,
    /// How often the Lease changed hands.
    pub transitions: u64,
    /// It changes hands now.
    pub acquires: bool,
}

impl Claim {
    /// Gives up a Lease that we hold.
    #[must_use]
    pub fn release(record: &Record) -> Self {
        Self {
            holder: None,
            duration: Duration::from_secs(1),
            term: record.term.unwrap_or(0),
            transitions: record.transitions,
            acquires: false,
        }
    }

    /// The object to send. The wall clock is for those who read the Lease; nobody decides by it.
    #[must_use]
    pub fn write(&self, base: Option<&Lease>, name: &str, wall: Timestamp) -> Lease {
        let mut lease = base.cloned().unwrap_or_default();
        lease.metadata.name = Some(name.to_owned());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(TERM.to_owned(), self.term.to_string());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.holder.clone().unwrap_or_default());
        let seconds = self.duration.as_secs_f64().ceil();
        // Whole seconds, at least one: the API server refuses others.
        #[expect(clippy::cast_possible_truncation, reason = "a float to integer cast saturates")]
        let seconds = (seconds as i32).max(1);
        spec.lease_duration_seconds = Some(seconds);
        spec.lease_transitions = Some(i32::try_from(self.transitions).unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(wall));
        if self.acquires {
            spec.acquire_time = Some(MicroTime(wall));
        }
        lease
    }
}
