//! The network of an address pool: what an init container does on each node, and what a router in front of them does.

use anyhow::Result;
use cluster::namespace::Namespace;
use cluster::process::run;
use cluster::{Cluster, Node};

/// Makes a range of addresses local to every node, so that any of them can be bound there.
pub fn make_local(cluster: &Cluster, range: &str) -> Result<()> {
    for node in cluster.nodes() {
        run(node.namespace.command("ip").args(["route", "replace", "local", range, "dev", "lo"]))?;
    }
    Ok(())
}

/// Routes a range from `machine` to these nodes: each connection goes to one of them, by its ports.
pub fn route(machine: &Namespace, range: &str, nodes: &[Node]) -> Result<()> {
    let mut route = machine.command("ip");
    route.args(["route", "replace", range]);
    for node in nodes {
        route.args(["nexthop", "via", &node.internal_ip.to_string()]);
    }
    run(&mut route)?;
    run(machine.command("sysctl").args(["-qw", "net.ipv4.fib_multipath_hash_policy=1"])).map(|_| ())
}
