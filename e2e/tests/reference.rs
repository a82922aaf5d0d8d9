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
         What the suite does not test is in [features.md](../features.md).\n\nThis page is made from \
         `actors/core/src/translate/features.rs`.\n\n| feature | needs | channel | tests of the suite |\n\
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
    page
}
