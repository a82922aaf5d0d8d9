//! What is lost when a part is lost: of the traffic nothing, of the rest no more than said here.

use std::time::Duration;

use anyhow::Result;
use e2e::stage::play;
use e2e::wait::until;

/// A new leader is there this long after the old one's death (design: Lease 6 s, retry 1 s with jitter).
const FAILOVER: Duration = Duration::from_secs(8);
/// And this long after a clean shutdown.
const HAND_OVER: Duration = Duration::from_secs(2);
/// What a busy machine may add: both are held exactly in virtual time (`actors/src/lease_leader/tests.rs`). A Lease that
/// is not given up takes longer than this all the same.
const BUSY: Duration = Duration::from_secs(2);

#[test]
fn the_leader_killed_costs_no_request_and_another_leads_within_its_time() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];
        let leader = testbed.leader().await?;

        testbed.controllers[leader].kill()?;
        let next = testbed.new_leader(leader, FAILOVER + BUSY).await?;
        testbed.moves_to("green").await?;

        // The one that comes back follows; a clean end of the leader is quicker than a death.
        testbed.controllers[leader].start(&testbed.cluster)?;
        let status = testbed.controllers[next].terminate(Duration::from_secs(10))?;
        assert!(status.success(), "a clean shutdown: {status}");
        testbed.new_leader(next, HAND_OVER + BUSY).await?;
        testbed.moves_to("blue").await?;

        for load in loads {
            assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        }
        Ok(())
    })
}

#[test]
fn a_proxy_that_restarts_without_a_control_plane_serves_its_last_good_config() -> Result<()> {
    play(async |testbed| {
        let other = testbed.load(1);
        testbed.cluster.api_server().kill()?;
        for controller in &testbed.controllers {
            controller.kill()?;
        }
        testbed.proxies[0].kill()?;
        assert!(testbed.get(0, "/").await.is_err(), "nobody answers on node 0");

        testbed.proxies[0].start(&testbed.cluster)?;
        until("the last good config is served", Duration::from_secs(3), async || {
            let answer = testbed.get(0, "/").await?;
            anyhow::ensure!(answer.status == 200 && answer.deployment() == "blue", "{answer:?}");
            Ok(())
        })
        .await?;

        testbed.cluster.api_server().start()?;
        testbed.cluster.wait_ready().await?;
        for controller in &testbed.controllers {
            controller.start(&testbed.cluster)?;
        }
        testbed.moves_to("green").await?;
        assert_eq!(other.stop().await?.faults(), Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn traffic_goes_on_while_the_api_server_is_down_for_a_minute() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];
        testbed.cluster.api_server().kill()?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        testbed.all_live()?;

        testbed.cluster.api_server().start()?;
        testbed.cluster.wait_ready().await?;
        testbed.moves_to("green").await?;
        for load in loads {
            assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        }
        Ok(())
    })
}

#[test]
fn traffic_goes_on_while_the_api_server_hangs_and_changes_follow_when_it_wakes() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];
        testbed.cluster.api_server().pause()?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        testbed.all_live()?;
        testbed.cluster.api_server().resume()?;
        testbed.cluster.wait_ready().await?;
        testbed.moves_to("green").await?;
        for load in loads {
            assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        }
        Ok(())
    })
}
