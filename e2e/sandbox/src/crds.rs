//! CustomResourceDefinitions as objects, and the Gateway API's, which are kept in the repository.
//!
//! Owns the embedded YAML. Called by whoever installs CRDs and by the write path. It refuses to read schemas: see `kinds`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::clock::Clock;

/// A release channel of the Gateway API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// GA and beta kinds and fields.
    Standard,
    /// Everything.
    Experimental,
}

macro_rules! channel {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(include_str!(concat!("../../../actors/api/crds/", $folder, "/gateway.networking.", $name, ".yaml"))),+]
    };
}

const STANDARD: &[&str] = channel!("standard":
    "k8s.io_backendtlspolicies",
    "k8s.io_gatewayclasses",
    "k8s.io_gateways",
    "k8s.io_grpcroutes",
    "k8s.io_httproutes",
    "k8s.io_listenersets",
    "k8s.io_referencegrants",
    "k8s.io_tcproutes",
    "k8s.io_tlsroutes",
    "k8s.io_udproutes",
);

const EXPERIMENTAL: &[&str] = channel!("experimental":
    "k8s.io_backendtlspolicies",
    "k8s.io_gatewayclasses",
    "k8s.io_gateways",
    "k8s.io_grpcroutes",
    "k8s.io_httproutes",
    "k8s.io_listenersets",
    "k8s.io_referencegrants",
    "k8s.io_tcproutes",
    "k8s.io_tlsroutes",
    "k8s.io_udproutes",
    "x-k8s.io_xbackends",
    "x-k8s.io_xbackendtrafficpolicies",
    "x-k8s.io_xmeshes",
);

impl Channel {
    /// The CRDs of this channel, one YAML document each.
    #[must_use]
    pub fn documents(self) -> &'static [&'static str] {
        match self {
            Self::Standard => STANDARD,
            Self::Experimental => EXPERIMENTAL,
        }
    }

    /// The same, read. Reading them takes longer than most tests run, so that each process does it once.
    pub(crate) fn objects(self) -> &'static [Value] {
        static STANDARD_READ: LazyLock<Vec<Value>> = LazyLock::new(|| read(STANDARD));
        static EXPERIMENTAL_READ: LazyLock<Vec<Value>> = LazyLock::new(|| read(EXPERIMENTAL));
        match self {
            Self::Standard => &STANDARD_READ,
            Self::Experimental => &EXPERIMENTAL_READ,
        }
    }
}

fn read(documents: &[&str]) -> Vec<Value> {
    let read = |document: &&str| serde_saphyr::from_str(document).expect("our own CRDs are YAML");
    documents.iter().map(read).collect()
}

/// What the controllers of a real API server write into a CRD's status once its names are free.
pub(crate) fn accept(crd: &mut Value, clock: &Clock) {
    if crd["status"]["conditions"].is_array() {
        return;
    }
    let now = clock.stamp();
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
    let stored: Vec<Value> = crd["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    crd["status"] = json!({
        "acceptedNames": crd["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
    });
}
