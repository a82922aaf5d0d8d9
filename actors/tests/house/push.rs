//! From a snapshot to the proxies.

use crate::stage::{GROUND, Stage, until};

#[tokio::test(start_paused = true)]
async fn a_leader_brings_every_proxy_to_its_term() {
    let stage = Stage::new(2).await;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 7).await;
    until("acks", || (0..2).all(|index| stage.proxy(index).held().version.term == 7)).await;
    controller.running.stop().await.unwrap();
}
