//! Owns: what is known of the content of a Secret or ConfigMap, in words for each kind.
//! Called by who reads them and by the stores. Refuses to know how they are read.

use actors_core::snapshot::cluster::{ConfigMapContent, SecretContent};
use actors_core::snapshot::meta::Kind;

/// What was read of a Secret or ConfigMap.
#[derive(Clone, Debug)]
pub enum Content {
    /// Of a Secret.
    Secret(SecretContent),
    /// Of a ConfigMap.
    ConfigMap(ConfigMapContent),
}

impl Content {
    /// Nothing, of an object of this kind.
    pub fn unread(kind: Kind) -> Self {
        match kind {
            Kind::ConfigMap => Self::ConfigMap(ConfigMapContent::NotRead),
            _ => Self::Secret(SecretContent::NotRead),
        }
    }

    /// Whether nothing is known of what it holds.
    pub(super) fn is_unread(&self) -> bool {
        matches!(self, Self::Secret(SecretContent::NotRead) | Self::ConfigMap(ConfigMapContent::NotRead))
    }

    /// Nothing that could be used, for this reason.
    pub fn wrong(kind: Kind, reason: String) -> Self {
        match kind {
            Kind::ConfigMap => Self::ConfigMap(ConfigMapContent::Other(reason)),
            _ => Self::Secret(SecretContent::Other(reason)),
        }
    }

    /// It may not be read, for this reason.
    pub fn refused(kind: Kind, reason: String) -> Self {
        Self::wrong(kind, format!("a {kind} that can't be read ({reason})"))
    }

    /// It could not be read yet, for this reason.
    pub fn unavailable(kind: Kind, reason: String) -> Self {
        match kind {
            Kind::ConfigMap => Self::ConfigMap(ConfigMapContent::Unavailable(reason)),
            _ => Self::Secret(SecretContent::Unavailable(reason)),
        }
    }
}
