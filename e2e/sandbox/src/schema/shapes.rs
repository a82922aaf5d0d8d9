//! How the lists of built-in kinds merge: the `listType` and `listMapKey` marks of Kubernetes' own types.
//!
//! Owns the table, of the kinds we patch or apply. Called when the registry is made. A list that is not named here is atomic.

/// A path (`[]` steps into a list's items) and the keys of its items; no key means a set.
type Row = (&'static str, &'static [&'static str]);

const EVERY_KIND: &[Row] =
    &[("metadata.finalizers", &[]), ("metadata.ownerReferences", &["uid"]), ("status.conditions", &["type"])];

const SERVICE: &[Row] = &[("spec.ports", &["port", "protocol"])];

const NODE: &[Row] = &[("spec.podCIDRs", &[]), ("status.addresses", &["type"])];

const POD: &[Row] = &[
    ("spec.containers", &["name"]),
    ("spec.containers.[].env", &["name"]),
    ("spec.containers.[].ports", &["containerPort", "protocol"]),
    ("spec.containers.[].volumeMounts", &["mountPath"]),
    ("spec.initContainers", &["name"]),
    ("spec.volumes", &["name"]),
    ("status.podIPs", &["ip"]),
];

/// The rows of a built-in kind.
pub(crate) fn shapes(kind: &str) -> impl Iterator<Item = Row> {
    let own = match kind {
        "Service" => SERVICE,
        "Node" => NODE,
        "Pod" => POD,
        _ => &[],
    };
    EVERY_KIND.iter().chain(own).copied()
}
