//! A cluster comes up, works, and leaves nothing behind, however it ends. Needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::namespace::Namespace;
use cluster::{ApiServer, Channel, Cluster, sweep};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, PostParams};

/// Everything of a cluster that outsiders can see: files, namespaces, control groups, mounts, processes.
fn traces(id: &str) -> Vec<String> {
    let named = |folder: &str, prefix: String| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(move |name| name.starts_with(&prefix)).collect::<Vec<_>>()
    };
    let mut found = named("/var/lib/portreeve/clusters", id.to_owned());
    found.extend(named("/run/netns", format!("pr-{id}-")));
    for controller in ["", "memory", "cpu", "pids", "systemd"] {
        found.extend(named(&format!("/sys/fs/cgroup/{controller}"), format!("portreeve-{id}")));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(&format!("clusters/{id}"))).map(str::to_owned));
    for process in named("/proc", String::new()) {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let ours = line.contains(&format!("clusters/{id}")) || line.contains(&format!("netns/pr-{id}-"));
        found.extend(ours.then_some(line));
    }
    found
}

/// Waits until nothing of the cluster is left, for at most 20 s.
#[track_caller]
fn nothing_is_left_of(id: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let left = traces(id);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "left of cluster {id}: {left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_alone_keeps_its_objects_while_the_api_server_is_down() {
    let cluster = Cluster::builder().nodes(0).channel(Channel::None).up().await.unwrap();
    let id = cluster.id().to_owned();
    assert!(!traces(&id).is_empty(), "the check for traces sees a live cluster");
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let object = serde_json::from_value(serde_json::json!({"metadata": {"name": "kept"}})).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();

    cluster.api_server().kill().unwrap();
    let dial = cluster.control_plane().connect(ApiServer::address(), Duration::from_secs(1)).await;
    assert!(dial.is_err(), "nothing answers");
    cluster.api_server().start().unwrap();
    cluster.wait_ready().await.unwrap();
    api.get("kept").await.unwrap();

    cluster.down().unwrap();
    nothing_is_left_of(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_a_machine_of_its_own_and_machines_reach_it() {
    let cluster = Cluster::builder().nodes(1).up().await.unwrap();
    let id = cluster.id().to_owned();
    let node = cluster.node(0);
    let object = Api::<Node>::all(cluster.client()).get(&node.name).await.unwrap();
    let addresses = object.status.unwrap().addresses.unwrap();
    assert!(
        addresses.iter().any(|one| one.type_ == "InternalIP" && one.address == node.internal_ip.to_string())
    );
    let crds = cluster.kubectl(&["get", "crd", "-o", "name"]).unwrap();
    assert!(crds.contains("httproutes.gateway.networking.k8s.io"), "{crds}");

    let listed = node.command("ls").unwrap().arg("/run").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("containerd") && !std::path::Path::new("/run/containerd").exists(), "{listed}");

    let machine = cluster.add_machine("client").unwrap();
    let kubelet = (node.internal_ip, 10250).into();
    machine.namespace.connect(kubelet, Duration::from_secs(5)).await.unwrap();
    machine.set_connected(false).unwrap();
    assert!(
        machine.namespace.connect(kubelet, Duration::from_millis(300)).await.is_err(),
        "the cable is cut"
    );
    machine.set_connected(true).unwrap();
    machine.namespace.connect(kubelet, Duration::from_secs(5)).await.unwrap();

    drop(cluster);
    nothing_is_left_of(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_on_every_node_and_services_reach_them() {
    let cluster = Cluster::builder().nodes(2).channel(Channel::None).up().await.unwrap();
    cluster.apply(ECHO_ON_EVERY_NODE).unwrap();
    let ready = "--for=jsonpath={.status.numberReady}=2";
    cluster.kubectl(&["wait", ready, "daemonset/echo", "--timeout=60s"]).unwrap();
    let pods = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.podIP}"]).unwrap();
    assert_eq!(pods.split(' ').count(), 2, "{pods}");
    let service = cluster.kubectl(&["get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    for node in cluster.nodes() {
        for address in pods.split(' ') {
            // A pod is ready before its program listens.
            reach(&node.namespace, (address.parse::<std::net::IpAddr>().unwrap(), 3000).into()).await;
        }
        // kube-proxy may need a moment for its rules.
        reach(&node.namespace, (service.parse::<std::net::IpAddr>().unwrap(), 80).into()).await;
    }
    let log = cluster.kubectl(&["logs", "daemonset/echo"]).unwrap();
    assert!(log.contains("Starting server"), "{log}");
    cluster.down().unwrap();
}

/// Connects until somebody listens, for at most 20 s.
async fn reach(from: &Namespace, to: SocketAddr) {
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = from.connect(to, Duration::from_secs(1)).await {
        assert!(Instant::now() < until, "{error:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

const ECHO_ON_EVERY_NODE: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers: [{name: echo, image: "registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3"}]
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 3000}]}
"#;

#[test]
fn a_cluster_goes_when_its_owner_is_killed() {
    let (mut owner, id) = owner_of_a_cluster();
    owner.kill().unwrap();
    owner.wait().unwrap();
    nothing_is_left_of(&id);
}

#[test]
fn the_next_cluster_sweeps_up_what_was_left_when_the_guard_was_killed_too() {
    let (mut owner, id) = owner_of_a_cluster();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&format!("clusters/{id} --when-input-ends")) {
            let guard = process.file_name().to_string_lossy().parse().unwrap();
            let guard = rustix::process::Pid::from_raw(guard).unwrap();
            rustix::process::kill_process(guard, rustix::process::Signal::KILL).unwrap();
        }
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!traces(&id).is_empty(), "nobody is there to take it down");
    sweep().unwrap();
    nothing_is_left_of(&id);
}

#[test]
fn the_command_leaves_a_cluster_up_until_it_is_told_to_take_it_down() {
    let id = format!("c{:x}", std::process::id());
    let command = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_cluster")).args(arguments).args(["--name", &id]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = command(&["up", "--nodes", "0"]);
    let line = said.lines().find(|line| line.starts_with("export KUBECONFIG=")).unwrap();
    let script = format!("{line}; kubectl get namespace default -o name");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "namespace/default\n", "{said}");
    command(&["down"]);
    nothing_is_left_of(&id);
}

/// Another process of this program, which holds a cluster; and the cluster's name.
fn owner_of_a_cluster() -> (Child, String) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "hold_a_cluster"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let mut ids = lines.filter_map(|line| Some(line.ok()?.split_once("holding cluster ")?.1.to_owned()));
    let id = ids.next().expect("the owner says which cluster it holds");
    (owner, id)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "not a test: the process that owner_of_a_cluster starts and kills"]
async fn hold_a_cluster() {
    let cluster = Cluster::builder().nodes(0).channel(Channel::None).up().await.unwrap();
    println!("holding cluster {}", cluster.id());
    tokio::time::sleep(Duration::from_secs(120)).await;
}
