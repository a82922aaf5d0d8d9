//! `portreeve own-addresses` in a network of its own, as the kernel has it: what is local while it runs, and that nothing
//! is left, whoever runs beside it and however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const POOL: &str = "198.51.100.0/26";
const OTHER: &str = "2001:db8:7::/64";

/// A network namespace that lasts as long as this value.
struct Node(Child);

impl Node {
    fn new() -> Self {
        let mut unshare = Command::new("unshare");
        let child = unshare.args(["--map-root-user", "--net", "sleep", "600"]).spawn().expect("unshare runs");
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let end = Instant::now() + Duration::from_secs(10);
        let named = format!("/proc/{}/comm", child.id());
        // It is there once the program is another one.
        while fs::read_to_string(&named).is_ok_and(|name| name.trim() != "sleep") {
            assert!(Instant::now() < end, "the network is not there");
        }
        assert_ne!(network(&child.id().to_string()), network("self"));
        let node = Self(child);
        node.ip(&["link", "set", "lo", "up"]);
        node
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--net", "--target", &self.0.id().to_string()]);
        command.arg(program);
        command
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let output = self.command("ip").args(arguments).output().expect("ip runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it speaks UTF-8")
    }

    /// The ranges that are local by routes of ours, with their metrics.
    fn owned(&self) -> Vec<String> {
        let of = |family| self.ip(&[family, "route", "show", "table", "local", "proto", "117"]);
        let lines = of("-4") + &of("-6");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let metric =
            |words: &[String]| words.windows(2).find(|two| two[0] == "metric").map(|two| two[1].clone());
        let lines = lines.lines().map(words);
        lines.map(|words| format!("{} {}", words[1], metric(&words).unwrap_or_default())).collect()
    }

    fn portreeve(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_portreeve"));
        command.arg("own-addresses").args(arguments).env_clear();
        command
    }

    /// One that has made these ranges local, and has taken away what was left over.
    fn own(&self, ranges: &[&str]) -> Owner {
        let ranges: Vec<_> = ranges.iter().flat_map(|range| ["--range", *range]).collect();
        let mut child = self.portreeve(&ranges).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
        let owned = said.by_ref().lines().take(ranges.len() / 2);
        let owned: Vec<_> = owned.map(|line| line.expect("it is text")).collect();
        assert!(owned.iter().all(|line| line.ends_with("this node's own")), "{owned:?}");
        let end = Instant::now() + Duration::from_secs(10);
        // It looks for what is left over after it has said so: who is killed before that would be one that has left it.
        while !sleeps(&child) {
            assert!(Instant::now() < end, "it does not come to wait for its end");
        }
        self.check(&ranges, true);
        Owner { child, _said: said }
    }

    fn check(&self, ranges: &[&str], is_owned: bool) {
        let status = self.portreeve(&[&["--check"], ranges].concat()).status().expect("it runs");
        assert_eq!(status.success(), is_owned, "{:?}", self.owned());
    }

    /// Waits until exactly these are owned.
    fn owns(&self, wanted: &[&str]) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.owned() != wanted {
            assert!(Instant::now() < end, "{:?}", self.owned());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a process sleeps (proc_pid_stat(5)): a run does once it has nothing to do but to wait for its end.
fn sleeps(process: &Child) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("it runs");
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S'))
}

/// A run that has made its ranges local.
struct Owner {
    child: Child,
    _said: BufReader<ChildStdout>,
}

impl Owner {
    /// Asks it to end, and waits until it has.
    fn end(mut self) {
        let mut kill = Command::new("sh");
        let asked = kill.args(["-c", &format!("kill -TERM {}", self.child.id())]).status().expect("sh runs");
        assert!(asked.success());
        assert!(self.child.wait().expect("it ends").success());
    }

    fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn ranges_are_local_until_it_is_asked_to_end() {
    let node = Node::new();
    node.check(&["--range", POOL], false);
    let owner = node.own(&[POOL, OTHER]);
    node.owns(&["198.51.100.0/26 1", "2001:db8:7::/64 1"]);
    node.check(&["--range", POOL, "--range", "203.0.113.0/24"], false);
    owner.end();
    node.owns(&[]);
    node.check(&["--range", POOL], false);
}

#[test]
fn a_successor_keeps_what_its_predecessor_gives_up() {
    let node = Node::new();
    let old = node.own(&[POOL, OTHER]);
    let new = node.own(&[POOL]);
    node.owns(&["198.51.100.0/26 1", "198.51.100.0/26 2", "2001:db8:7::/64 1"]);
    old.end();
    node.owns(&["198.51.100.0/26 2"]);
    let next = node.own(&[POOL]);
    node.owns(&["198.51.100.0/26 1", "198.51.100.0/26 2"]);
    new.end();
    node.owns(&["198.51.100.0/26 1"]);
    next.end();
    node.owns(&[]);
}

#[test]
fn what_one_that_was_killed_has_left_is_taken_over_or_given_up() {
    let node = Node::new();
    node.own(&[POOL, OTHER]).kill();
    node.owns(&["198.51.100.0/26 1", "2001:db8:7::/64 1"]);
    let heir = node.own(&[POOL]);
    node.owns(&["198.51.100.0/26 1"]);
    let second = node.own(&[OTHER]);
    heir.kill();
    let third = node.own(&[OTHER]);
    node.owns(&["2001:db8:7::/64 1", "2001:db8:7::/64 2"]);
    second.kill();
    third.end();
    node.owns(&["2001:db8:7::/64 2"]);
    let last = node.own(&[]);
    node.owns(&[]);
    last.end();
}

#[test]
fn routes_of_others_stay() {
    let node = Node::new();
    let local = || node.ip(&["route", "show", "table", "local"]);
    node.ip(&["route", "add", "local", POOL, "dev", "lo"]);
    let before = local();
    node.own(&[POOL]).end();
    node.owns(&[]);
    assert_eq!(local(), before);
}
