//! What is in force: published by the config store, read by the admin port and the status page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_config::set::UnitSet;
use proxy_config::wire::{Broken, Version};

use crate::last_good::Remembered;

/// Endpoints that no controller has confirmed for this long are not used after a restart: their
/// addresses may belong to others by now.
pub(super) const ENDPOINTS_VALID_FOR: Duration = Duration::from_secs(3600);

/// Where a configuration came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// There is none yet.
    #[default]
    Nothing,
    /// The last good one, from disk.
    Disk,
    /// A controller, or a part of this process.
    Controller,
}

/// A configuration in force.
#[derive(Clone, Debug, Default)]
pub struct InForce {
    /// Its units.
    pub units: UnitSet,
    /// Its place in time.
    pub version: Version,
    /// Those of its units that can't be used, by id.
    pub broken: Vec<Broken>,
    /// Where it came from.
    pub source: Source,
    /// When a controller last said that this is what it wants.
    pub confirmed: Option<SystemTime>,
}

impl InForce {
    /// The last good configuration.
    pub(super) fn from_disk(Remembered { units, version, confirmed }: Remembered) -> Self {
        Self { units, version, broken: Vec::new(), source: Source::Disk, confirmed: Some(confirmed) }
    }

    /// An empty configuration that a controller confirmed just now, to be filled in.
    pub(super) fn from_controller(now: SystemTime) -> Self {
        Self { source: Source::Controller, confirmed: Some(now), ..Self::default() }
    }

    /// For how much longer its endpoints may be used, where they are from disk; `None`: for good, because a
    /// controller gave them.
    pub(super) fn endpoints_valid_for(&self, now: SystemTime) -> Option<Duration> {
        let age = now.duration_since(self.confirmed.unwrap_or(UNIX_EPOCH)).unwrap_or_default();
        (self.source == Source::Disk).then(|| ENDPOINTS_VALID_FOR.saturating_sub(age))
    }

    /// Whether there is a configuration to serve.
    pub fn is_some(&self) -> bool {
        self.source != Source::Nothing
    }
}
