//! What the chart is installed on: a cluster of two nodes, the pools that are routed to them, and a machine for clients.
//!
//! Owns nothing of the release but the means to install it: which values it has is the suite's to say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::{Channel, Cluster, Machine};

use crate::installation::Installation;
use crate::traffic::Client;
use crate::{fleet, manifests, pool, wait};

/// How long something may take that a test of an installation waits for: pods start, probes pass.
pub const SOON: Duration = Duration::from_secs(90);

/// A cluster that the chart can be installed on.
pub struct Site {
    /// The release.
    pub installation: Installation,
    /// The program that the image holds.
    pub program: PathBuf,
    /// Where clients are.
    pub machine: Machine,
    /// One of them.
    pub client: Client,
    /// The cluster: dropped last, it takes the rest with it.
    pub cluster: Cluster,
}

impl Site {
    /// Brings the cluster up, with the image on its nodes and these ranges of addresses routed to them.
    pub async fn up(channel: Channel, pools: &[&str]) -> Result<Self> {
        let program = tokio::task::spawn_blocking(fleet::build).await??;
        let cluster = Cluster::builder().nodes(2).channel(channel).up().await?;
        let installation = tokio::task::block_in_place(|| Installation::prepare(&cluster, &program))?;
        let machine = cluster.add_machine("client")?;
        for range in pools {
            pool::route_to_all(&cluster, range)?;
        }
        let client = Client::new(machine.namespace.clone());
        Ok(Self { installation, program, machine, client, cluster })
    }

    /// Waits until [`manifests::HOST`] is served at this address.
    pub async fn serves(&self, to: SocketAddr) -> Result<()> {
        wait::until(&format!("{to} serves"), SOON, async || {
            let answer = self.client.get(to, manifests::HOST, "/").await?;
            ensure!(answer.status == 200, "it answers {}: {}", answer.status, answer.body);
            Ok(())
        })
        .await
    }
}
