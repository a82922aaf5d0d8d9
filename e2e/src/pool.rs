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

/// Routes a range from `machine` to a node.
pub fn route(machine: &Namespace, range: &str, node: &Node) -> Result<()> {
    let via = node.internal_ip.to_string();
    run(machine.command("ip").args(["route", "replace", range, "via", &via])).map(|_| ())
}

/// Routes a range from everywhere to all nodes: each connection goes to one of them, by its ports. That is a router's
/// work: where the connection begins, the kernel takes another way for what it sends when the connection has ended, and
/// the node never hears of the end.
pub fn route_to_all(cluster: &Cluster, range: &str) -> Result<()> {
    let router = cluster.control_plane();
    let mut route = router.command("ip");
    route.args(["route", "replace", range]);
    for node in cluster.nodes() {
        route.args(["nexthop", "via", &node.internal_ip.to_string()]);
    }
    run(&mut route)?;
    run(router.command("sysctl").args([
        "-qw",
        "net.ipv4.ip_forward=1",
        "net.ipv4.fib_multipath_hash_policy=1",
    ]))?;
    // A client that was told of one node would go there for ever.
    let silence = "for each in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$each; done";
    run(router.command("sh").args(["-c", silence])).map(|_| ())
}
