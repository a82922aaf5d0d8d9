//! The network of a cluster: one bridge, in the control plane's namespace, and a cable from it to every machine.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::process::run;
use crate::state::State;

/// Where the control plane lives: the bridge's own address.
pub(crate) const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// All pods of all nodes.
pub(crate) const PODS: &str = "10.244.0.0/16";
/// The addresses of Services; the first is the API server's.
pub(crate) const SERVICES: &str = "10.96.0.0/16";

/// The address of node `index` (from 1).
pub(crate) fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + index)
}

/// The address of the `index`th machine that is not a node (from 1).
pub(crate) fn machine_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 1, index)
}

/// The addresses of the pods of node `index`.
pub(crate) fn pods_of(index: u8) -> String {
    format!("10.244.{index}.0/24")
}

/// Makes the control plane's namespace, with the bridge and the routes to the pods of `nodes` nodes.
pub(crate) fn lay(state: &State, nodes: u8) -> Result<Namespace> {
    let namespace = state.namespace("cp");
    add_namespace(&namespace)?;
    let mut lines = vec![
        "link add br0 type bridge".to_owned(),
        format!("addr add {CONTROL_PLANE}/16 dev br0"),
        "link set br0 up".to_owned(),
    ];
    lines.extend(pod_routes(nodes, None));
    ip(&namespace, &lines)?;
    Ok(namespace)
}

/// Makes the namespace `name` at `address` and plugs it in. `node` is its index if it is a node, which routes to the
/// pods of all other nodes itself; everyone else does so by the control plane.
pub(crate) fn plug(
    state: &State,
    name: &str,
    address: Ipv4Addr,
    node: Option<(u8, u8)>,
) -> Result<Namespace> {
    let (bridge, namespace) = (state.namespace("cp"), state.namespace(name));
    add_namespace(&namespace)?;
    let [_, _, net, host] = address.octets();
    let cable = format!("v{net}-{host}");
    ip(
        &bridge,
        &[
            format!("link add {cable} type veth peer name eth0 netns {}", namespace.name()),
            format!("link set {cable} master br0 up"),
        ],
    )?;
    let mut lines = vec![
        format!("addr add {address}/16 dev eth0"),
        "link set eth0 up".to_owned(),
        format!("route add default via {CONTROL_PLANE}"),
    ];
    if let Some((index, nodes)) = node {
        lines.extend(pod_routes(nodes, Some(index)));
    }
    ip(&namespace, &lines)?;
    Ok(namespace)
}

fn pod_routes(nodes: u8, except: Option<u8>) -> impl Iterator<Item = String> {
    (1..=nodes).filter(move |index| Some(*index) != except).map(move |index| {
        format!("route add {} via {} onlink dev {}", pods_of(index), node_address(index), device(except))
    })
}

fn device(node: Option<u8>) -> &'static str {
    if node.is_some() { "eth0" } else { "br0" }
}

fn add_namespace(namespace: &Namespace) -> Result<()> {
    run(Command::new("ip").args(["netns", "add", namespace.name()]))?;
    ip(namespace, &["link set lo up".to_owned()])?;
    run(namespace.command("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]))?;
    Ok(())
}

fn ip(namespace: &Namespace, lines: &[String]) -> Result<()> {
    for line in lines {
        run(Command::new("ip").args(["-n", namespace.name()]).args(line.split(' ')))?;
    }
    Ok(())
}
