//! Another controller writes to the same route as ours, again and again: neither loses what it wrote. That a steady state
//! writes nothing is held by the suite `chart`, on an installation.

use anyhow::{Result, ensure};
use cluster::audit::Event;
use e2e::manifests::route;
use e2e::stage::play;
use e2e::steady::{Controllers, OTHER, OURS, Route, entry};
use e2e::testbed::SOON;
use e2e::wait::until;

const ECHO: Route = Route("httproute", "echo");

#[test]
fn a_status_follows_its_route_while_another_controller_writes_to_it_and_keeps_what_it_wrote() -> Result<()> {
    play(async |testbed| {
        let cluster = &testbed.cluster;
        for (round, weight) in (1..=10).zip([0, 1].into_iter().cycle()) {
            cluster.apply(&route(&[("blue", 1), ("green", weight)]))?;
            let message = format!("round {round}");
            until("both have written", SOON, async || {
                // It may lose a race, and tries again as any controller does.
                ensure!(ECHO.write_as_another(cluster, &message)?, "written in between");
                let object = ECHO.read(cluster)?;
                let parents = ECHO.parents(cluster)?;
                let ours = entry(&parents, OURS)?;
                let observed = &ours["conditions"][0]["observedGeneration"];
                ensure!(*observed == object["metadata"]["generation"], "ours is of before: {ours}");
                let other = entry(&parents, OTHER)?;
                ensure!(other["conditions"][0]["message"] == message, "the other's is lost: {other}");
                Ok(())
            })
            .await?;
        }
        // What we wrote last has lost nothing either.
        let ours = |event: &Event| testbed.machines.iter().any(|one| one.address.to_string() == event.source);
        Controllers { cluster, ours: &ours }.settled().await?;
        let parents = ECHO.parents(cluster)?;
        assert_eq!(entry(&parents, OTHER)?["conditions"][0]["message"], "round 10", "{parents:?}");
        entry(&parents, OURS)?;
        // It goes with the other's entry.
        cluster.kubectl(&["delete", "httproute", "echo"]).map(|_| ())
    })
}
