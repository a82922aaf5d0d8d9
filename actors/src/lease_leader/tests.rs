//! Replicas in one process under paused time, against the API in memory and what goes wrong with it.

mod fleet;
mod simulation;

use std::time::Duration;

use sandbox::{Fault, Faults, How, Matcher, Verb};

use fleet::{Clocks, Fleet, MS, SECOND};

#[tokio::test(start_paused = true)]
async fn one_of_three_leads_at_once_and_the_lease_names_it() {
    let fleet = Fleet::start(3).await;
    let first = fleet.await_leader(2 * SECOND).await;
    assert_eq!(fleet.acting(), [first]);
    let lease = fleet.lease().await.unwrap();
    assert_eq!(lease.holder.as_deref(), Some(fleet.identity(first)));
    assert_eq!(lease.term, Some(1));
    fleet.run_for(60 * SECOND).await;
    assert_eq!(fleet.lease().await.unwrap().transitions, 1, "nobody else led for a minute");
}

#[tokio::test(start_paused = true)]
async fn another_leads_within_8_s_of_a_death() {
    let mut fleet = Fleet::start(3).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.run_for(10 * SECOND + 700 * MS).await;
    fleet.kill(first).await;
    let second = fleet.await_leader(8 * SECOND).await;
    assert_ne!(first, second);
    assert_eq!(fleet.lease().await.unwrap().term, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_under_way_does_not_keep_the_lease_from_being_given_up() {
    let mut fleet = Fleet::start(3).await;
    let first = fleet.await_leader(2 * SECOND).await;
    let writes = Matcher::resource("leases").verb(Verb::Update);
    fleet.faults(first, Faults::none().with(writes, How::Times(1), Fault::DelayAnswer(900 * MS)));
    // The next renewal is written by then, and not answered.
    fleet.run_for(1500 * MS).await;
    fleet.stop(first).await;
    assert_ne!(fleet.await_leader(2 * SECOND).await, first);
}

#[tokio::test(start_paused = true)]
async fn another_leads_within_2_s_of_a_clean_shutdown() {
    let mut fleet = Fleet::start(3).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.run_for(5 * SECOND).await;
    fleet.stop(first).await;
    let second = fleet.await_leader(2 * SECOND).await;
    assert_ne!(first, second);
}

#[tokio::test(start_paused = true)]
async fn a_live_leader_is_not_deposed_by_one_lost_answer() {
    let lost = [
        Fault::LoseAnswer,
        Fault::Hang(10 * SECOND),
        Fault::Throttle { retry_after: 1 },
        Fault::Conflict,
        Fault::Refuse,
    ];
    for fault in lost {
        let fleet = Fleet::start(3).await;
        let first = fleet.await_leader(2 * SECOND).await;
        let writes = Matcher::resource("leases").verb(Verb::Update);
        fleet.faults(first, Faults::none().with(writes, How::Times(1), fault.clone()));
        fleet.run_for(20 * SECOND).await;
        assert_eq!(fleet.acting(), [first], "{fault:?}");
        assert_eq!(fleet.lease().await.unwrap().transitions, 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_leads() {
    let fleet = Fleet::start(3).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.run_for(5 * SECOND).await;
    fleet.faults(first, Faults::cut_off());
    fleet.run_for(5 * SECOND).await;
    assert_eq!(fleet.acting(), Vec::<usize>::new(), "stopped within its deadline, before the lease ends");
    let second = fleet.await_leader(3 * SECOND).await;
    assert_ne!(first, second);
    fleet.faults(first, Faults::none());
    fleet.run_for(20 * SECOND).await;
    assert_eq!(fleet.acting(), [second]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_stop_in_time_ends_the_process() {
    let fleet = Fleet::start_with(1, 10 * SECOND).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.faults(first, Faults::cut_off());
    assert!(!fleet.overran(first));
    fleet.run_for(6 * SECOND).await;
    assert!(fleet.overran(first));
}

#[tokio::test(start_paused = true)]
async fn terms_survive_a_deleted_and_a_restored_lease() {
    let mut fleet = Fleet::start(3).await;
    let first = fleet.await_leader(2 * SECOND).await;
    let old = fleet.raw_lease().await.unwrap();
    fleet.kill(first).await;
    let second = fleet.await_leader(8 * SECOND).await;
    fleet.run_for(5 * SECOND).await;
    fleet.kill(second).await;
    fleet.delete_lease().await;
    let third = fleet.await_leader(8 * SECOND).await;
    assert_eq!(fleet.lease().await.unwrap().term, Some(3), "above what was seen before it was deleted");
    fleet.run_for(5 * SECOND).await;
    fleet.restore_lease(old).await;
    fleet.run_for(SECOND + 500 * MS).await;
    assert_eq!(fleet.acting(), Vec::<usize>::new(), "the Lease names another: it leads no longer");
    fleet.run_for(8 * SECOND).await;
    assert_eq!(fleet.acting(), [third]);
    assert_eq!(fleet.lease().await.unwrap().term, Some(4), "above what it held itself");
}

#[tokio::test(start_paused = true)]
async fn a_lease_goes_with_the_config_map_of_the_release_also_where_it_is_made_again() {
    let mut fleet = Fleet::start(0).await;
    let uid = fleet.make_config_map().await;
    fleet.add(Clocks::TRUE).await;
    fleet.await_leader(8 * SECOND).await;
    for deleted in [false, true] {
        if deleted {
            fleet.delete_lease().await;
        }
        fleet.run_for(8 * SECOND).await;
        let lease = fleet.raw_lease().await.expect("somebody leads");
        let owners = lease.metadata.owner_references.unwrap_or_default();
        let [owner] = &owners[..] else { panic!("one owner: {owners:?}") };
        assert_eq!((&*owner.kind, &*owner.name, &owner.uid), ("ConfigMap", "portreeve-ca", &uid));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_proxies_refuse_takes_a_term_above() {
    let fleet = Fleet::start(2).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.name_term(first, 40);
    fleet.run_for(Duration::from_millis(100)).await;
    assert_eq!(fleet.lease().await.unwrap().term, Some(41));
    assert_eq!(fleet.acting(), [first]);
    fleet.name_term(first, 41 + 1_000_001);
    fleet.run_for(5 * SECOND).await;
    assert_eq!(fleet.lease().await.unwrap().term, Some(41), "an incredible claim is ignored");
}

#[tokio::test(start_paused = true)]
async fn a_lease_leader_that_crashes_leads_again_in_a_new_term() {
    let fleet = Fleet::start(1).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.run_for(3 * SECOND).await;
    fleet.crash_lease_leader(first);
    fleet.run_for(2 * SECOND).await;
    assert_eq!(fleet.acting(), [first]);
    assert_eq!(fleet.lease().await.unwrap().term, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_term_that_a_proxy_named_before_a_crash_is_heeded_after_it() {
    let fleet = Fleet::start(1).await;
    let first = fleet.await_leader(2 * SECOND).await;
    fleet.run_for(3 * SECOND).await;
    fleet.faults(first, Faults::cut_off());
    fleet.run_for(5 * SECOND).await;
    fleet.crash_lease_leader(first);
    fleet.name_term(first, 40);
    fleet.run_for(SECOND).await;
    fleet.faults(first, Faults::none());
    fleet.await_leader(10 * SECOND).await;
    fleet.run_for(SECOND).await;
    assert_eq!(fleet.lease().await.unwrap().term, Some(41));
}
