//! The command `cluster`: a real Kubernetes on this machine, for a person who wants to look.

use std::process::Command;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use cluster::{Channel, Cluster, State, binaries, serve_relay, sweep};

#[derive(Parser)]
#[command(about = "A real Kubernetes of N nodes as processes and namespaces. Needs root.")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the programs that clusters are made of, where they are missing.
    Build,
    /// Bring a cluster up and leave it up.
    Up {
        /// How many nodes; 0 is a control plane alone.
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// What to call it.
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Take a cluster down, with everything that is left of it.
    Down {
        /// What it is called.
        #[arg(long, default_value = "default")]
        name: String,
    },
    /// Relay from loopback to the API server of a cluster (started by `up`).
    #[command(hide = true)]
    Relay {
        /// What the cluster is called.
        name: String,
        /// Where to accept.
        on: std::net::SocketAddr,
        /// The API server, in the cluster's namespaces.
        to: std::net::SocketAddr,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    // The client logs each answer that says "not yet" as an error.
    let filter = tracing_subscriber::EnvFilter::new("info,kube_client=off");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().action {
        Action::Build => binaries::build(|name| println!("building {name}")).map(|_| ()),
        Action::Up { nodes, name } => up(nodes, &name).await,
        Action::Down { name } => {
            sweep()?;
            State::find(&name).with_context(|| format!("there is no cluster {name:?}"))?.tear_down()
        }
        Action::Relay { name, on, to } => {
            let state = State::find(&name).with_context(|| format!("there is no cluster {name:?}"))?;
            serve_relay(tokio::net::TcpListener::bind(on).await?, state.namespace("cp"), to).await
        }
    }
}

async fn up(nodes: u8, name: &str) -> Result<()> {
    let started = std::time::Instant::now();
    let cluster = Cluster::builder().nodes(nodes).name(name).channel(Channel::Experimental).up().await?;
    let kubeconfig = cluster.kubeconfig();
    let kubectl = cluster.binaries().path("kubectl");
    cluster.leave_up(|name, on, to| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["relay", name, &on.to_string(), &to.to_string()]);
        Ok(command)
    })?;
    println!(
        "Ready after {:.1} s: {nodes} nodes. Take it down with: cluster down --name {name}",
        started.elapsed().as_secs_f32()
    );
    println!(
        "export KUBECONFIG={} PATH={}:$PATH",
        kubeconfig.display(),
        kubectl.parent().unwrap_or(&kubectl).display()
    );
    Ok(())
}
