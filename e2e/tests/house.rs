//! The house keeps its own rules: which room may know which, and how a file is written.
//!
//! A new edge between crates is a decision about the architecture: it belongs into docs/architecture.md
//! and then into the table here, never into a manifest alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may depend on whom among our own crates (outside tests).
const EDGES: &[(&str, &[&str])] = &[
    ("portreeve", &["actors", "actors-api", "actors-core", "proxy", "proxy-config", "sandbox", "supervisor"]),
    ("supervisor", &[]),
    ("actors", &["actors-api", "actors-core", "proxy-config", "supervisor"]),
    ("actors-api", &[]),
    ("actors-core", &["actors-api", "proxy-config"]),
    ("proxy", &["proxy-config", "supervisor"]),
    ("proxy-config", &[]),
    ("sandbox", &[]),
    ("bench", &["actors", "actors-core", "cluster", "proxy", "proxy-config", "sandbox"]),
    ("cluster", &[]),
    (
        "e2e",
        &["actors", "actors-api", "actors-core", "cluster", "proxy", "proxy-config", "sandbox", "supervisor"],
    ),
];

/// What a room may never import, directly or through another of our rooms.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("proxy-config", &["tokio", "hyper", "kube", "ractor"]),
    ("actors-core", &["tokio", "kube-client", "kube-runtime", "ractor", "rand"]),
    ("proxy", &["kube", "k8s-openapi", "gateway-api"]),
    ("supervisor", &["kube", "k8s-openapi", "hyper", "h2", "http"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("e2e lies in the root").to_path_buf()
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

fn text<'a>(value: &'a serde_json::Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn package<'a>(metadata: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let mut packages = metadata["packages"].as_array().expect("packages").iter();
    packages.find(|package| text(package, "name") == name).expect(name)
}

#[test]
fn no_crate_depends_on_a_room_that_it_may_not_know() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    assert_eq!(ours, allowed.keys().copied().collect(), "every crate has a line in EDGES");
    for package in packages {
        let name = text(package, "name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let (to, dev) = (text(dependency, "name"), dependency["kind"].as_str() == Some("dev"));
            let known = allowed[name].contains(&to) || !ours.contains(to);
            let in_tests = dev && (to == "sandbox" || (name == "sandbox" && to == "cluster"));
            assert!(known || in_tests, "{name} may not depend on {to}");
        }
    }
}

#[test]
fn no_room_imports_what_it_must_not_know() {
    for (room, never) in FORBIDDEN {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "-e", "normal", "--prefix", "none", "-f", "{p}", "-p", room])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8_lossy(&output.stdout).into_owned();
        for crate_name in *never {
            let found = tree.lines().any(|line| line.split(' ').next() == Some(crate_name));
            assert!(!found, "{room} must not import {crate_name}: `cargo tree -i {crate_name} -p {room}`");
        }
    }
}

#[test]
fn the_chart_installs_the_version_that_it_lies_beside() {
    let metadata = metadata();
    let package = package(&metadata, "portreeve");
    let chart = root().join("helm/portreeve/Chart.yaml");
    let chart = std::fs::read_to_string(chart).expect("Chart.yaml is there");
    for key in ["version", "appVersion"] {
        let line = format!("{key}: {}", text(package, "version"));
        assert!(chart.lines().any(|known| known == line), "Chart.yaml lacks the line `{line}`");
    }
}

#[test]
fn the_test_command_runs_every_program_of_the_suites() {
    let metadata = metadata();
    let command = std::fs::read_to_string(root().join("test")).expect("./test is there");
    for target in package(&metadata, "e2e")["targets"].as_array().expect("targets") {
        let (name, is_test) = (text(target, "name"), target["kind"][0] == "test");
        let is_named = command.lines().any(|line| format!("{line} ").contains(&format!("--test {name} ")));
        assert!(!is_test || is_named, "./test does not run `--test {name}`");
    }
}

#[test]
fn the_lock_holds_one_kubernetes_and_one_cryptography() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is kept");
    let versions = lock.matches("name = \"k8s-openapi\"\n").count();
    assert_eq!(versions, 1, "one k8s-openapi: `cargo update -p k8s-openapi --precise 0.28.0`");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--workspace", "-e", "normal,build,dev", "--prefix", "none", "-f", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(!["ring", "openssl", "openssl-sys", "native-tls"].contains(&name), "{name} is built in");
    }
}

/// Every Rust source of ours, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .filter_map(|path| std::fs::read_to_string(root().join(&path)).ok().map(|text| (path, text)))
        .collect()
}

fn is_test(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.contains("tests/")
        || path.contains("benches/")
        || path.ends_with("tests.rs")
        || path.contains("/tests_")
}

/// The lines before the tests of a file.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut complaints = Vec::new();
    for (path, text) in sources() {
        let shown = path.display();
        if !text.starts_with("//!") {
            complaints
                .push(format!("{shown}: begin with //! what it owns, who calls it, what it does not know"));
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") {
            complaints.push(format!("{shown}: foo.rs beside foo/, never mod.rs"));
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if ["util", "utils", "common", "helpers", "misc"].contains(&stem) {
            complaints.push(format!("{shown}: a room is named for what it does"));
        }
        let lines = code(&text).count();
        if !is_test(&path) && lines > 400 && !path.starts_with("actors/api") {
            complaints.push(format!("{shown}: {lines} lines before its tests; 400 are the most"));
        }
        if stem == "main" && path.starts_with("src") && lines > 100 {
            complaints.push(format!("{shown}: main is a story of at most 100 lines"));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn nothing_is_left_unfinished() {
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    for (path, text) in sources() {
        for word in words {
            assert!(!text.contains(word), "{} holds {word}", path.display());
        }
    }
}

/// The rows of the requirements, in order.
fn rows() -> Vec<String> {
    let areas = [("R", 8), ("E", 15), ("H", 13), ("P", 11), ("O", 8), ("K", 4)];
    areas.iter().flat_map(|(area, last)| (1..=*last).map(move |number| format!("{area}{number}"))).collect()
}

#[test]
fn features_names_every_row_and_no_test_that_is_not_there() {
    let text = std::fs::read_to_string(root().join("docs/features.md")).expect("docs/features.md");
    let mut seen = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [id, _what, state, test, ..] = cells[..] else { continue };
        if id == "id" || id.starts_with('-') {
            continue;
        }
        seen.push(id.to_owned());
        let known = ["works", "partly", "not yet"].iter().any(|word| state.starts_with(word));
        assert!(known, "{id}: state is works, partly or not yet, not {state:?}");
        let paths: Vec<&str> = test.split('`').skip(1).step_by(2).collect();
        assert!(state.starts_with("not yet") || !paths.is_empty(), "{id}: {state} by which test?");
        for path in paths {
            let file = path.split("::").next().unwrap_or(path);
            assert!(root().join(file).exists(), "{id}: {file} does not exist");
        }
    }
    assert_eq!(seen, rows(), "one line per row, in order");
}

#[test]
fn supervision_prints_the_trees_as_the_code_has_them() {
    let document = std::fs::read_to_string(root().join("docs/supervision.md")).expect("docs/supervision.md");
    for folder in ["actors/tests/house/snapshots", "proxy/src/snapshots"] {
        let mut trees = 0;
        for file in std::fs::read_dir(root().join(folder)).expect("snapshots are kept").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(file.path()).expect("a snapshot is text");
            if name.contains("documentation") {
                let tree = text.splitn(3, "---\n").nth(2).expect("a snapshot has a head").trim_end();
                assert!(document.contains(tree), "docs/supervision.md must print what {name} holds:\n{tree}");
                trees += 1;
            }
        }
        assert_eq!(trees, 1, "one tree in {folder}");
    }
}
