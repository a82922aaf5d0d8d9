//! The pages under docs/reference that come from the code: what the table of features says, and which tests of
//! the official suite show each. `UPDATE_REFERENCE=1 cargo test -p e2e --test reference` writes them anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use actors_core::translate::features::{Channel, FEATURES};

/// The tests of the suite with the features that each needs, which the suite's own test keeps true.
const TESTS: &str = include_str!("../conformance/features.tsv");
/// What is not about traffic into a cluster.
const MESH: &str = "Mesh";
/// Features that nearly every test needs, from the one that says the least: a test shows one of these only
/// where it needs nothing else.
const BASES: [&str; 3] = ["Gateway", "HTTPRoute", "ReferenceGrant"];

/// A pair of objects and what follows from them.
macro_rules! golden {
    ($name:literal) => {
        concat!("actors/core/tests/golden/", $name, ".in.yaml")
    };
}

/// What the API has and the suite has no test of, and the file of the test that shows it.
const BEYOND: &[(&str, &str)] = &[
    (
        "Default Gateways (`spec.defaultScope`, `useDefaultGateways`)",
        golden!("default_gateways_take_routes_that_ask_for_them"),
    ),
    (
        "Conditions of `GatewayClass` for CRDs of another version",
        golden!("definitions_of_an_unsupported_version"),
    ),
    ("`sessionPersistence` by cookie and header", "proxy/tests/http1/policies.rs"),
    (
        "`retry`: connection errors, time-outs, codes, attempts, backoff, budget",
        "proxy/tests/http1/policies.rs",
    ),
    ("`XBackendTrafficPolicy`: retry constraint, sessions", "proxy/tests/http1/policies.rs"),
    ("`XBackendTrafficPolicy`: conditions, conflicts", golden!("traffic_to_a_service_is_as_its_policy_says")),
    ("`XBackend`: references, grants, TLS, protocols", golden!("routes_lead_to_hosts_outside_the_cluster")),
    ("`XBackend`: conditions", golden!("hosts_outside_the_cluster_that_can_not_be_used_say_why")),
    ("`XBackend`: names, TLS, addresses that are never dialled", "proxy/tests/traffic/external.rs"),
    ("`ExternalAuth` by HTTP and by gRPC", "proxy/tests/http1/authorisation.rs"),
    ("`ExternalAuth` of HTTP/2 requests and streams", "proxy/tests/traffic/authorisation.rs"),
    ("Mirrors that never delay the reply; exact shares", "proxy/tests/http1/policies.rs"),
    ("gRPC of all four kinds, trailers, status mapping", "proxy/tests/traffic/grpc.rs"),
    (
        "TLS to backends: pinned, expired, URI names, rotation under load",
        "proxy/tests/traffic/backend_tls.rs",
    ),
    ("Client certificates: bundles that change, resumption, HTTP/2", "proxy/tests/traffic/clients.rs"),
    ("Listener isolation and 421, case by case", "proxy/src/table/compile/tests/certificates.rs"),
    ("TLS: a ClientHello in pieces, ports that end and pass on", "proxy/tests/traffic/l4/tls.rs"),
    ("TCP: half-close, a server that speaks first", "proxy/tests/traffic/l4.rs"),
    ("Objects that the schemas admit and make no sense", "e2e/tests/bad_input/main.rs"),
];

/// What GEP-4894 leaves open, and what was decided.
const XBACKEND: &str = "
## XBackend

Routes of all kinds but UDPRoute lead to an `XBackend` by `backendRefs`, and by the filters `RequestMirror` and
`ExternalAuth`.

| what | how |
|---|---|
| In another namespace | as for a Service, with a ReferenceGrant there for the kind `XBackend` of `gateway.networking.x-k8s.io`; else RefNotPermitted |
| `port` of the reference | none, or that of the XBackend; else BackendNotFound |
| `externalHostname.hostname` | fully qualified: no IP address nor what may be read as one, no single label, nothing under `cluster.local` or `svc` |
| `protocol` | none, HTTP, HTTP11, MCP: HTTP/1.1 (HTTP/2 for a GRPCRoute, which HTTP11 and MCP can't serve); HTTP2: HTTP/2, in clear with prior knowledge; H2C: the same, never over TLS; TCP: for TCPRoute and TLSRoute alone. To these what is in a stream does not matter |
| `tls` without `validation` | a certificate for `externalHostname.hostname` by an authority of the system |
| `tls` that can't be used | `status.parents` says why, for each Gateway; requests are answered by 500 |
| `tls` and a stream of TLS that is passed on | has no say: the TLS is the client's own |
| Secrets and ConfigMaps | read only while a route of a Gateway of ours leads there |
| BackendTLSPolicy | is never for an XBackend |
| XBackendTrafficPolicy | may be for an XBackend |
";

#[test]
fn what_the_suite_does_not_test_is_tested_where_the_page_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let missing: Vec<_> = BEYOND.iter().filter(|(_, test)| !root.join(test).is_file()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_page_of_gateway_api_says_what_the_table_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/gateway-api.md");
    let wanted = render();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&page, &wanted).expect("the page can be written");
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(found, wanted, "write it anew: UPDATE_REFERENCE=1 cargo test -p e2e --test reference");
}

#[test]
fn the_suite_tests_no_feature_that_the_table_lacks() {
    let known: BTreeSet<&str> = FEATURES.iter().map(|feature| feature.name).collect();
    let needed: BTreeSet<&str> = tests().into_values().flatten().collect();
    let lacking: Vec<_> = needed.difference(&known).filter(|name| !name.starts_with(MESH)).collect();
    assert!(lacking.is_empty(), "{lacking:?}");
}

fn tests() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let line = |line: &'static str| {
        let mut words = line.split('\t');
        (words.next().expect("a name"), words.collect())
    };
    TESTS.lines().map(line).collect()
}

/// What a test is about: the features that it needs less those that nearly all need.
fn shown_by(mut needed: BTreeSet<&'static str>) -> BTreeSet<&'static str> {
    for base in BASES {
        if needed.len() > 1 {
            needed.remove(base);
        }
    }
    needed
}

fn render() -> String {
    let mut shown: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (test, needed) in tests() {
        if !needed.contains(MESH) {
            shown_by(needed).into_iter().for_each(|feature| shown.entry(feature).or_default().push(test));
        }
    }
    let mut page = String::from(
        "# Gateway API\n\nEvery feature of Gateway API v1.6.1 that is not about meshes, as the official suite names \
         it. A GatewayClass\npublishes in `status.supportedFeatures` those whose kinds and fields are installed. \
         The tests are\nthose of the suite; [what came of them](../conformance/README.md). \
         What the suite does not test is below.\nNot served: ServiceImport, meshes.\n\nThis page is made from \
         `actors/core/src/translate/features.rs` and `e2e/tests/reference.rs`.\n\n| feature | needs | channel | tests of the suite |\n\
         |---|---|---|---|\n",
    );
    for feature in FEATURES {
        let channel = match feature.channel {
            Channel::Standard => "standard",
            Channel::Experimental => "experimental",
        };
        let tests = shown.get(feature.name).map_or_else(|| "-".to_owned(), |tests| tests.join(", "));
        let (name, kind) = (feature.name, feature.kind);
        let _ = writeln!(page, "| {name} | `{kind}` | {channel} | {tests} |");
    }
    page.push_str(XBACKEND);
    page.push_str("\n## Beyond the suite\n\n| what | shown by |\n|---|---|\n");
    for (what, test) in BEYOND {
        let _ = writeln!(page, "| {what} | `{test}` |");
    }
    page
}
