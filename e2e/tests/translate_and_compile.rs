//! What the control plane takes, a proxy can use: of all the clusters of the golden pairs, whatever is
//! wrong with their objects, no unit is broken but for what proxies say that they lack.

use std::net::IpAddr;
use std::path::Path;

use actors_core::observe::observe;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::Kind;
use actors_core::translate::{Settings, Translator};
use proxy::metrics::Metrics;
use proxy::table::compile::Compiler;
use proxy::upstream::registry::Registry;
use proxy_config::wire::Version;
use serde_json::Value;

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn snapshot(yaml: &str) -> Snapshot {
    let pair = || rcgen::generate_simple_self_signed(["example.com".to_owned()]).expect("a certificate");
    let (one, other) = (pair(), pair());
    let quoted = |text: String| text.replace('\n', "\\n");
    let yaml = yaml
        .replace("${CERTIFICATE}", &quoted(one.cert.pem()))
        .replace("${KEY}", &quoted(one.signing_key.serialize_pem()))
        .replace("${OTHER_KEY}", &quoted(other.signing_key.serialize_pem()));
    let mut snapshot = Snapshot::default();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).expect("the input is YAML");
    for object in objects.iter().filter(|object| !object.is_null()) {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        let kind = Kind::of(text("apiVersion"), text("kind")).expect("the kind is one that is observed");
        snapshot.put(observe(kind, object));
    }
    snapshot
}

/// What proxies do not serve, and say so of themselves.
fn is_known(reason: &str) -> bool {
    reason.contains("this proxy has no CORS of a single backend filter")
}

#[test]
fn no_unit_that_the_control_plane_makes_is_broken_in_a_proxy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../actors/core/tests/golden");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a golden input");
    let base = read(&folder.join("base.yaml"));
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the golden pairs") {
        let path = entry.expect("an entry").path();
        if !path.to_string_lossy().ends_with(".in.yaml") {
            continue;
        }
        let snapshot = snapshot(&format!("{base}---\n{}", read(&path)));
        let translation = Translator::new(Settings::default()).update(&snapshot);
        let mut compiler = Compiler::new(NODE, std::sync::Arc::new(Registry::default()), Metrics::new(1));
        compiler.apply(translation.units.iter(), [], Version::default(), translation.units.root());
        let broken: Vec<_> = compiler.broken().filter(|broken| !is_known(&broken.reason)).collect();
        assert!(broken.is_empty(), "{}: {broken:#?}", path.display());
        count += translation.units.len();
    }
    assert!(count > 30, "{count} units");
}
