//! The suite: how it is run, and what its log says of each test.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::scene::{CLASS, Scene, UNUSABLE, USABLE};

/// How long the whole suite may take.
const PATIENCE: Duration = Duration::from_secs(60 * 60);
/// The profiles that are claimed: all that are not about meshes.
const PROFILES: &str = "GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP";

/// What of the suite is run.
#[derive(Args)]
pub(crate) struct Choice {
    /// Only the tests whose whole name this regular expression matches.
    #[arg(long)]
    run: Option<String>,
    /// Only these profiles, separated by commas.
    #[arg(long, default_value = PROFILES)]
    profiles: String,
    /// Flags for the suite itself.
    #[arg(last = true)]
    flags: Vec<String>,
}

impl Choice {
    /// Whether all of it is run.
    pub(crate) fn is_whole(&self) -> bool {
        self.run.is_none() && self.profiles == PROFILES && self.flags.is_empty()
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Whether `go test` ended well, which alone is proof.
    succeeded: bool,
    tests: Vec<Test>,
}

/// What came of a test.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    outcome: String,
    time: String,
}

impl Verdict {
    /// Whether `go test` ended well.
    pub(crate) fn passed(&self) -> bool {
        self.succeeded
    }

    /// A line for each test, failed ones first: outcome, name, time.
    pub(crate) fn table(&self) -> String {
        let mut lines: Vec<_> = self
            .tests
            .iter()
            .map(|test| format!("{}\t{}\t{}\n", test.outcome, test.name, test.time))
            .collect();
        lines.sort();
        lines.concat()
    }

    /// The tests that failed.
    pub(crate) fn failed(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter(|test| test.outcome == "FAIL").map(|test| &*test.name)
    }

    /// How many passed, failed and were skipped.
    pub(crate) fn summary(&self) -> String {
        let count = |outcome| self.tests.iter().filter(|test| test.outcome == outcome).count();
        let end = if self.succeeded { "succeeded" } else { "FAILED" };
        format!(
            "go test {end}: {} passed, {} failed, {} skipped",
            count("PASS"),
            count("FAIL"),
            count("SKIP")
        )
    }
}

/// Runs the suite, or what of it is chosen.
pub(crate) async fn run(scene: &Scene, choice: &Choice) -> Result<Verdict> {
    let log = scene.results.join("suite.log");
    let mut command = scene.machine.namespace.command(&scene.suite);
    command.env("KUBECONFIG", scene.cluster.inner_kubeconfig());
    command.args(["-test.v", "-test.timeout=60m", "-allow-crds-mismatch=false"]);
    command.arg(format!("-gateway-class={CLASS}"));
    command.arg(format!("-conformance-profiles={}", choice.profiles));
    command.arg(format!("-usable-address={USABLE}")).arg(format!("-unusable-address={UNUSABLE}"));
    command.arg(format!("-report-output={}", scene.results.join("report.yaml").display()));
    command.args(["-organization=portreeve", "-project=portreeve", "-url=https://portreeve.dev"]);
    command.args([concat!("-version=", env!("CARGO_PKG_VERSION")), "-contact=@portreeve/maintainers"]);
    if let Some(only) = &choice.run {
        command.arg(format!("-test.run=^TestConformance$/^({only})$"));
    }
    command.args(&choice.flags);
    let mut process = scene.cluster.start_process("suite", command, &log)?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        if Instant::now() > deadline {
            bail!("the suite did not end within {PATIENCE:?}: see {}", log.display());
        }
        sleep(Duration::from_millis(200)).await;
    };
    let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    scene.keep_logs()?;
    if !status.success() {
        scene.keep_evidence()?;
    }
    Ok(Verdict { succeeded: status.success(), tests: outcomes(&text) })
}

/// The suite's own tests, as its log names them; not the parts of each.
fn outcomes(log: &str) -> Vec<Test> {
    let lines = log.lines().filter_map(|line| line.strip_prefix("    --- "));
    let test = |line: &str| {
        let (outcome, rest) = line.split_once(": TestConformance/")?;
        let (name, time) = rest.split_once(" (")?;
        let whole = !name.contains('/');
        whole.then(|| Test {
            name: name.to_owned(),
            outcome: outcome.to_owned(),
            time: time.trim_end_matches(')').to_owned(),
        })
    };
    lines.filter_map(test).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_of_the_suite_is_counted_once() {
        let log = "\
--- FAIL: TestConformance (9.00s)
    --- PASS: TestConformance/HTTPRouteWeight (1.50s)
        --- PASS: TestConformance/HTTPRouteWeight/Requests (1.20s)
    --- FAIL: TestConformance/GatewayInfrastructure (2.00s)
    --- SKIP: TestConformance/UDPRoute (0.00s)
";
        let verdict = Verdict { succeeded: false, tests: outcomes(log) };
        assert_eq!(
            verdict.table(),
            "FAIL\tGatewayInfrastructure\t2.00s\nPASS\tHTTPRouteWeight\t1.50s\nSKIP\tUDPRoute\t0.00s\n"
        );
        assert_eq!(verdict.failed().collect::<Vec<_>>(), ["GatewayInfrastructure"]);
        assert_eq!(verdict.summary(), "go test FAILED: 1 passed, 1 failed, 1 skipped");
    }
}
