//! Waiting for real components: a condition is asked again until it holds, never longer than a deadline.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cluster::Cluster;
use tokio::time::{Instant, sleep};

/// Asks `condition` every 50 ms until it is `Ok`, and gives that back; after `deadline`, the error says what was
/// waited for and what was the last thing in the way.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut in_the_way = "no answer".to_owned();
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if Instant::now() < end => {
                in_the_way = format!("{error:#}");
                sleep(Duration::from_millis(50)).await;
            }
            Ok(Err(error)) => bail!("{what}: not within {deadline:?}: {error:#}"),
            Err(_) => bail!("{what}: not within {deadline:?}: {in_the_way}"),
        }
    }
}

/// Waits until the Gateway called `name` is programmed, and gives back the addresses that its status lists.
pub async fn programmed(cluster: &Cluster, name: &str, deadline: Duration) -> Result<Vec<IpAddr>> {
    until(&format!("Gateway {name} is programmed"), deadline, async || {
        let path =
            "jsonpath={.status.conditions[?(@.type=='Programmed')].status} {.status.addresses[*].value}";
        let said = cluster.kubectl(&["get", "gateway", name, "-o", path])?;
        let addresses = said.strip_prefix("True ").with_context(|| format!("it says {said:?}"))?;
        addresses.split_whitespace().map(|one| Ok(one.parse()?)).collect()
    })
    .await
}
