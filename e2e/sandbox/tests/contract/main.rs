//! What Portreeve relies on in the Kubernetes API, seen alike on the sandbox and on the real API server.
//!
//! Each case talks to an API server and keeps a transcript, cleaned of times, uids and revisions. The transcripts in
//! `snapshots/` are the real API server's; both must keep to them. After a change of a case, record them anew:
//! `INSTA_UPDATE=always cargo test -p sandbox --test contract the_real_api_server`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod apply;
mod custom;
mod events;
mod leases;
mod lists;
mod objects;
mod talk;
mod watches;

use std::{future::Future, pin::Pin};

use cluster::Cluster;
use kube::Client;
use sandbox::{Options, Sandbox};
use serde_json::Value;
use talk::Talk;

type Case = for<'a> fn(&'a mut Talk) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Every case, by the name of its transcript.
const CASES: &[(&str, Case)] = &[
    ("admission-builtin", |talk| Box::pin(admission::builtin(talk))),
    ("admission-gateway", |talk| Box::pin(admission::gateways(talk))),
    ("admission-route", |talk| Box::pin(admission::routes(talk))),
    ("admission-types", |talk| Box::pin(admission::types(talk))),
    ("apply", |talk| Box::pin(apply::managers(talk))),
    ("apply-services", |talk| Box::pin(apply::services(talk))),
    ("apply-status", |talk| Box::pin(apply::status(talk))),
    ("custom", |talk| Box::pin(custom::fields(talk))),
    ("custom-status", |talk| Box::pin(custom::status(talk))),
    ("custom-versions", |talk| Box::pin(custom::versions(talk))),
    ("discovery", |talk| Box::pin(custom::discovery(talk))),
    ("events", |talk| Box::pin(events::recording(talk))),
    ("leases", |talk| Box::pin(leases::locking(talk))),
    ("lists", |talk| Box::pin(lists::reading(talk))),
    ("lists-paging", |talk| Box::pin(lists::paging(talk))),
    ("lists-selectors", |talk| Box::pin(lists::selectors(talk))),
    ("objects", |talk| Box::pin(objects::life(talk))),
    ("objects-deletion", |talk| Box::pin(objects::deletion(talk))),
    ("objects-patches", |talk| Box::pin(objects::patches(talk))),
    ("objects-paths", |talk| Box::pin(objects::paths(talk))),
    ("watches", |talk| Box::pin(watches::following(talk))),
    ("watches-forms", |talk| Box::pin(watches::forms(talk))),
    ("watches-refused", |talk| Box::pin(watches::refused(talk))),
];

async fn transcript(case: Case, name: &str, client: &Client) -> Vec<Value> {
    let mut talk = Talk::begin(client.clone(), name).await;
    case(&mut talk).await;
    talk.end()
}

/// Compares with what the real API server said; all cases are seen before any fails. `forget` makes the server lose its
/// history: none does on a word of a client.
async fn keep_the_contract(client: &Client, forget: impl AsyncFnOnce()) {
    let mut broken = Vec::new();
    let mut compare = |name: &'static str, transcript: Vec<Value>| {
        let compared = std::panic::catch_unwind(|| insta::assert_json_snapshot!(name, transcript));
        if compared.is_err() {
            broken.push(name);
        }
    };
    for (name, case) in CASES {
        compare(name, transcript(*case, name, client).await);
    }
    let mut talk = Talk::begin(client.clone(), "expired").await;
    let old = watches::before_expiry(&mut talk).await;
    forget().await;
    watches::after_expiry(&mut talk, &old).await;
    compare("watches-expired", talk.end());
    assert!(broken.is_empty(), "differ from the real API server: {broken:?}");
}

#[tokio::test(start_paused = true)]
async fn the_sandbox_keeps_the_contract() {
    let sandbox = Sandbox::new(Options::default());
    for document in talk::definitions() {
        sandbox.apply_yaml(document).await.unwrap();
    }
    keep_the_contract(&sandbox.client(), async || sandbox.compact()).await;
}

/// Needs root: it starts etcd and kube-apiserver in namespaces of their own.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_api_server_keeps_the_contract() {
    let plane = Cluster::builder().nodes(0).without_controllers().channel(cluster::Channel::None);
    let plane = plane.up().await.expect("a control plane comes up");
    for document in talk::definitions() {
        plane.apply(document).unwrap();
    }
    let restart = async || {
        plane.api_server().kill().unwrap();
        plane.api_server().start().unwrap();
        plane.wait_ready().await.unwrap();
    };
    keep_the_contract(&plane.client(), restart).await;
    plane.down().unwrap();
}
