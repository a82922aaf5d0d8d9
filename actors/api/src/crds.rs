//! The CustomResourceDefinitions of Gateway API v1.6.1, both channels, and our own.
//!
//! Those of Gateway API are the project's release files, unchanged (Apache-2.0: `crds/LICENSE`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::edge::EdgeParameters;

/// The version of Gateway API whose manifests these are.
pub const BUNDLE_VERSION: &str = "v1.6.1";

macro_rules! manifests {
    ($channel:literal: $($file:literal),+ $(,)?) => {
        &[$((
            concat!($file, ".yaml"),
            include_str!(concat!("../crds/", $channel, "/gateway.networking.", $file, ".yaml")),
        )),+]
    };
}

/// The standard channel: (end of the file's name, YAML).
pub const STANDARD: &[(&str, &str)] = manifests!["standard":
    "k8s.io_backendtlspolicies", "k8s.io_gatewayclasses", "k8s.io_gateways", "k8s.io_grpcroutes",
    "k8s.io_httproutes", "k8s.io_listenersets", "k8s.io_referencegrants", "k8s.io_tcproutes",
    "k8s.io_tlsroutes", "k8s.io_udproutes",
];

/// The experimental channel: (end of the file's name, YAML).
pub const EXPERIMENTAL: &[(&str, &str)] = manifests!["experimental":
    "k8s.io_backendtlspolicies", "k8s.io_gatewayclasses", "k8s.io_gateways", "k8s.io_grpcroutes",
    "k8s.io_httproutes", "k8s.io_listenersets", "k8s.io_referencegrants", "k8s.io_tcproutes",
    "k8s.io_tlsroutes", "k8s.io_udproutes", "x-k8s.io_xbackends", "x-k8s.io_xbackendtrafficpolicies",
    "x-k8s.io_xmeshes",
];

/// Our own definitions, generated from the types of this crate.
pub fn ours() -> Vec<CustomResourceDefinition> {
    vec![EdgeParameters::crd()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_of_the_bundle_and_channel_that_it_says() {
        for (channel, manifests) in [("standard", STANDARD), ("experimental", EXPERIMENTAL)] {
            for (file, yaml) in manifests {
                let version = format!("gateway.networking.k8s.io/bundle-version: {BUNDLE_VERSION}\n");
                assert!(yaml.contains(&version), "{channel} {file}");
                assert!(yaml.contains(&format!("gateway.networking.k8s.io/channel: {channel}\n")), "{file}");
            }
        }
    }

    #[test]
    fn edge_parameters_are_cluster_scoped_and_take_one_provider() {
        let crd = serde_json::to_value(&ours()[0]).unwrap();
        assert_eq!(crd["metadata"]["name"], "edgeparameters.portreeve.dev");
        assert_eq!(crd["spec"]["scope"], "Cluster");
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(schema["properties"]["addressProvider"]["type"], "object", "{schema}");
    }

    /// What helm installs is what the types say: written anew with `UPDATE=1`.
    #[test]
    fn the_chart_carries_our_definitions() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../helm/portreeve/crds");
        for definition in ours() {
            let name = definition.metadata.name.clone().unwrap();
            let path = format!("{folder}/{name}.yaml");
            let mut text = serde_json::to_value(&definition).unwrap();
            text.as_object_mut().unwrap().remove("status");
            let yaml = serde_saphyr::to_string(&text).unwrap();
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&path, &yaml).unwrap();
            }
            let carried = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(carried == yaml, "{path} is out of date: UPDATE=1 cargo test -p actors-api");
        }
    }
}
