//! What is installed in a fresh cluster: the CRDs of Gateway API.

use std::path::{Path, PathBuf};

/// Which Gateway API CRDs a cluster comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Channel {
    /// None.
    None,
    /// The standard channel.
    Standard,
    /// The experimental channel, which includes the standard one.
    #[default]
    Experimental,
}

impl Channel {
    /// The folder of its manifests.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        let name = match self {
            Self::None => return None,
            Self::Standard => "standard",
            Self::Experimental => "experimental",
        };
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../actors/api/crds").join(name))
    }
}
