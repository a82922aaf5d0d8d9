//! A node: a network, mount and process namespace in which a containerd, a kubelet and a kube-proxy live as they would
//! on a machine of their own, with a /run, /var/lib and /var/log of their own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::binaries::Binaries;
use crate::image;
use crate::kubeconfig;
use crate::namespace::Namespace;
use crate::network::{self, PODS};
use crate::pki::Authority;
use crate::process::{Process, run};
use crate::state::State;

/// Kernel settings that a kubelet insists on and that belong to the whole host: the node sees files that say so.
const SHADOWED: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// Its internal address.
    pub internal_ip: Ipv4Addr,
    /// Its network namespace, which pods with `hostNetwork` share.
    pub namespace: Namespace,
    /// Its index, from 1.
    index: u8,
    init: Process,
    services: Vec<Process>,
}

impl Node {
    /// Plugs in node `index` of `nodes`, and starts its first process and its containerd, with the images loaded.
    pub(crate) fn start(state: &State, binaries: &Binaries, index: u8, nodes: u8) -> Result<Self> {
        let name = format!("node-{index}");
        let internal_ip = network::node_address(index);
        let namespace = network::plug(state, &name, internal_ip, Some((index, nodes)))?;
        for folder in ["lib/containerd", "lib/kubelet", "lib/cni", "log", "cni"] {
            fs::create_dir_all(state.path(&name).join(folder))?;
        }
        fs::write(state.path(&name).join("cni/10-pods.conflist"), pod_network(index).to_string())?;
        fs::write(state.path(&name).join("containerd.toml"), containerd_config(&name))?;

        let mut init = namespace.command("unshare");
        init.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation=private",
            "--",
        ]);
        init.arg(binaries.path("pause"));
        let record = state.path("processes");
        let init =
            Process::start(&format!("{name}-init"), init, &state.log(&format!("{name}-init")), &record)?;
        let mut node = Self { name, internal_ip, namespace, index, init, services: Vec::new() };
        node.furnish(state, binaries)?;
        node.serve(state, "containerd", &["/usr/bin/containerd", "--config", &node.own("containerd.toml")])?;
        node.load_images(binaries)?;
        Ok(node)
    }

    /// Starts the kubelet and the kube-proxy. The API server must be ready and know the node.
    pub(crate) fn join(&mut self, state: &State, server: &str, authority: &Authority) -> Result<()> {
        let folder = state.path(&self.name);
        let user = authority.user(&format!("system:node:{}", self.name), "system:nodes")?;
        kubeconfig::write(&folder.join("kubelet.kubeconfig"), server, authority, &user)?;
        let user = authority.user("system:kube-proxy", "system:node-proxier")?;
        kubeconfig::write(&folder.join("kube-proxy.kubeconfig"), server, authority, &user)?;
        fs::write(folder.join("kubelet.json"), kubelet_config(state.id(), &self.name).to_string())?;
        let kubelet = [
            "/run/bin/kubelet".to_owned(),
            format!("--config={}", self.own("kubelet.json")),
            format!("--kubeconfig={}", self.own("kubelet.kubeconfig")),
            format!("--hostname-override={}", self.name),
            format!("--node-ip={}", self.internal_ip),
        ];
        self.serve(state, "kubelet", &kubelet)?;
        let proxy = [
            "/run/bin/kube-proxy".to_owned(),
            format!("--kubeconfig={}", self.own("kube-proxy.kubeconfig")),
            format!("--hostname-override={}", self.name),
            format!("--cluster-cidr={PODS}"),
            "--proxy-mode=iptables".to_owned(),
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ];
        self.serve(state, "kube-proxy", &proxy)
    }

    /// The Node object as it is made before the kubelet comes, so that its pods' addresses are known beforehand.
    pub(crate) fn object(&self) -> serde_json::Value {
        let pods = network::pods_of(self.index);
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name},
            "spec": {"podCIDR": pods, "podCIDRs": [pods], "providerID": format!("namespace:///{}", self.namespace.name())},
        })
    }

    /// A command that runs `program` in all of the node's namespaces, as a process of the node would.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new("nsenter");
        let first = first_process(self.init.id()).context("the node's first process is gone")?;
        command.args(["--mount", "--pid", "--net", "--target"]).arg(first.to_string()).arg("--").arg(program);
        Ok(command)
    }

    /// Ends everything in the node at once, as if its power were cut. It does not come back.
    pub fn kill(&mut self) -> Result<()> {
        self.init.kill()?;
        self.services.clear();
        Ok(())
    }

    pub(crate) fn forget(self) {
        self.init.forget();
        self.services.into_iter().for_each(Process::forget);
    }

    /// Gives the node its own /run, /var/lib and /var/log, the state folder at /run/cluster, the programs at /run/bin.
    fn furnish(&self, state: &State, binaries: &Binaries) -> Result<()> {
        self.wait_for_first_process(&binaries.path("pause"))?;
        let shadows: String = SHADOWED
            .iter()
            .map(|(name, value)| {
                let file = name.replace('/', ".");
                format!(
                    "echo {value} >/run/shadow/{file}; mount --bind /run/shadow/{file} /proc/sys/{name}\n"
                )
            })
            .collect();
        let script = format!(
            "set -e
             mount -t tmpfs -o mode=755 tmpfs /run
             mkdir -p /run/cluster /run/bin /run/netns /run/lock /run/shadow
             mount --bind '{state}' /run/cluster
             mount --bind '{binaries}' /run/bin
             mount --bind /run/cluster/{name}/lib /var/lib
             mount --bind /run/cluster/{name}/log /var/log
             {shadows}",
            state = state.path("").display(),
            binaries = binaries.folder().display(),
            name = self.name,
        );
        run(self.command("sh")?.args(["-c", &script])).map(|_| ())
    }

    fn wait_for_first_process(&self, program: &Path) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(10);
        let runs =
            |process: u32| fs::read_link(format!("/proc/{process}/exe")).is_ok_and(|exe| exe == program);
        while !first_process(self.init.id()).is_some_and(runs) {
            if Instant::now() > until {
                bail!("the first process of {} did not start", self.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Starts a service of the node.
    fn serve(&mut self, state: &State, name: &str, line: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
        let name = format!("{}-{name}", self.name);
        let [program, arguments @ ..] = line else { bail!("{name}: nothing to run") };
        let mut command = self.command(program)?;
        command.args(arguments);
        self.services.push(Process::start(&name, command, &state.log(&name), &state.path("processes"))?);
        Ok(())
    }

    fn load_images(&self, binaries: &Binaries) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = run(self.command("ctr")?.args(["--connect-timeout=1s", "version"])) {
            if Instant::now() > until {
                return Err(error.context(format!("containerd of {} does not answer", self.name)));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        image::archives(&binaries.images()).iter().try_for_each(|archive| self.load_image(archive))
    }

    /// Loads an archive of the folder of images.
    pub(crate) fn load_image(&self, archive: &Path) -> Result<()> {
        let file = PathBuf::from("/run/bin/images").join(archive.file_name().unwrap_or_default());
        run(self.command("ctr")?.args(["--namespace=k8s.io", "images", "import"]).arg(file)).map(|_| ())
    }

    /// A file of the node's state folder, as the node sees it.
    fn own(&self, file: &str) -> String {
        format!("/run/cluster/{}/{file}", self.name)
    }
}

/// The one child of `unshare`: the node's process 1.
fn first_process(unshare: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))
        .ok()?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn pod_network(index: u8) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": network::pods_of(index)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// `restrict_oom_score_adj`: where CAP_SYS_RESOURCE is missing, runc can't lower it and fails without a word.
fn containerd_config(node: &str) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/run/cluster/{node}/cni"
"#,
        pause = image::PAUSE,
    )
}

fn kubelet_config(cluster: &str, node: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": "/run/cluster/pki/ca.crt"}, "anonymous": {"enabled": false}},
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/portreeve-{cluster}/{node}"),
        "cgroupsPerQOS": false, "enforceNodeAllocatable": [], "failCgroupV1": false, "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
        "resolvConf": "", "shutdownGracePeriod": "0s",
        "nodeStatusUpdateFrequency": "5s",
        // Fast enough for tests that wait for pods to be ready.
        "syncFrequency": "10s",
    })
}
