//! The command as a person or a script meets it: help, exit codes, settings, certificates.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn portreeve(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
    command.args(arguments).env_clear();
    command
}

fn output(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it speaks UTF-8");
    (status.code().expect("it ends by itself"), text(stdout), text(stderr))
}

#[test]
fn help_names_every_command_and_where_to_begin() {
    let (code, out, _) = output(&mut portreeve(&["--help"]));
    assert_eq!(code, 0);
    for word in
        ["demo", "standalone", "controller", "proxy", "probe", "certificates", "completion", "portreeve demo"]
    {
        assert!(out.contains(word), "{word} in {out}");
    }
}

#[test]
fn the_help_of_a_command_names_each_setting_with_its_variable_and_default() {
    let (code, out, _) = output(&mut portreeve(&["controller", "--help"]));
    assert_eq!(code, 0);
    for word in [
        "--admin-port",
        "ROUTER_ADMIN_PORT",
        "9901",
        "KUBECONFIG",
        "--config",
        "RECONCILE_INTERVAL_MS",
        "5000",
    ] {
        assert!(out.contains(word), "{word} in {out}");
    }
}

#[test]
fn a_mistake_in_arguments_ends_with_64_and_says_what_there_is() {
    let (code, _, err) = output(&mut portreeve(&["controler"]));
    assert_eq!(code, 64);
    assert!(err.contains("controller"), "{err}");
}

#[test]
fn all_mistakes_in_settings_are_said_at_once() {
    let mut command = portreeve(&["proxy", "--node-address", "nowhere", "--workers", "many"]);
    let (code, _, err) = output(command.env("ROUTER_ADMIN_PORT", "70000"));
    assert_eq!(code, 64, "{err}");
    for key in ["node-address", "workers", "admin-port", "name", "tls-dir"] {
        assert!(err.contains(&format!("\n  {key}: ")), "{key} in {err}");
    }
}

#[test]
fn a_filter_of_the_log_that_is_none_is_a_mistake_in_settings() {
    let mut command = portreeve(&["controller", "--name", "c"]);
    let (code, _, err) = output(command.env("PORTREEVE_LOG", "info,proxy=loud"));
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("log: \"info,proxy=loud\": "), "{err}");
}

#[test]
fn certificates_that_would_have_ended_or_never_end_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    for hours in ["0", "18446744073709551615"] {
        let (code, _, err) = output(&mut portreeve(&["certificates", "--tls-dir", path, "--hours", hours]));
        assert_eq!(code, 64, "{err}");
        assert!(err.contains("hours: must be 1 to 8760"), "{err}");
    }
    assert_eq!(std::fs::read_dir(path).unwrap().count(), 0, "nothing was issued");
}

#[test]
fn a_resync_without_a_pause_is_refused() {
    let mut command = portreeve(&["controller", "--name", "c"]);
    let (code, _, err) = output(command.env("RECONCILE_INTERVAL_MS", "0"));
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("reconcile-interval-ms: must be at least 100"), "{err}");
}

#[test]
fn a_flag_stands_above_the_environment_and_the_environment_above_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.yaml");
    std::fs::write(&file, "admin-port: file\n").unwrap();
    let run = |flag: &[&str], env: Option<&str>| {
        let mut command = portreeve(&["proxy", "--config", file.to_str().unwrap()]);
        command.args(flag).envs(env.map(|value| ("ROUTER_ADMIN_PORT", value)));
        output(&mut command).2
    };
    assert!(run(&[], None).contains("admin-port: \"file\""));
    assert!(run(&[], Some("env")).contains("admin-port: \"env\""));
    assert!(run(&["--admin-port", "flag"], Some("env")).contains("admin-port: \"flag\""));
}

#[test]
fn completion_is_a_script_for_the_shell() {
    let (code, out, _) = output(&mut portreeve(&["completion", "bash"]));
    assert_eq!(code, 0);
    assert!(out.contains("complete") && out.contains("standalone"));
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let mut child =
        portreeve(&["completion", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

fn identity(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name).join("tls.crt")).expect("it was issued")
}

#[test]
fn certificates_are_issued_by_a_ca_that_is_kept_and_keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let issue = || output(&mut portreeve(&["certificates", "--tls-dir", path, "--proxy", "a,b"]));
    let (code, out, err) = issue();
    assert_eq!((code, out.lines().count()), (0, 3), "{err}");
    let authority = std::fs::read_to_string(folder.path().join("ca/ca.crt")).unwrap();
    let before = identity(folder.path(), "proxy-a");
    issue();
    assert_eq!(std::fs::read_to_string(folder.path().join("ca/ca.crt")).unwrap(), authority);
    assert_ne!(identity(folder.path(), "proxy-a"), before, "issued anew");
    for key in ["ca/ca.key", "controller/tls.key", "proxy-b/tls.key"] {
        let mode = std::fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{key} is for its owner alone");
    }
}
