//! A machine beside the cluster: a namespace with an address on the cluster's bridge, for a controller or a client.

use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::process::run;

/// A namespace on the cluster's network that is not a node.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its name within the cluster.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its network namespace.
    pub namespace: Namespace,
}

impl Machine {
    /// Cuts its cable, or mends it.
    pub fn set_connected(&self, connected: bool) -> Result<()> {
        let state = if connected { "up" } else { "down" };
        run(Command::new("ip").args(["-n", self.namespace.name(), "link", "set", "eth0", state]))?;
        if connected {
            // The kernel drops routes with the link that they go over.
            let via = crate::network::CONTROL_PLANE.to_string();
            run(Command::new("ip").args([
                "-n",
                self.namespace.name(),
                "route",
                "replace",
                "default",
                "via",
                &via,
            ]))?;
        }
        Ok(())
    }
}
