//! The sandbox as `kube::Client` sees it, under paused time.

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Namespace, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use sandbox::{Fault, Faults, How, Matcher, Options, Sandbox, Verb};
use serde_json::json;

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "data": {"key": value},
    }))
    .expect("a ConfigMap")
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

#[tokio::test(start_paused = true)]
async fn an_object_is_made_read_replaced_and_deleted() {
    let sandbox = Sandbox::new(Options::default());
    let api = config_maps(&sandbox.client());
    let made = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());

    let mut changed = made.clone();
    changed.data = config_map("a", "2").data;
    let replaced = api.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_ne!(replaced.resource_version(), made.resource_version());

    let stale = api.replace("a", &PostParams::default(), &changed).await.unwrap_err();
    let kube::Error::Api(status) = stale else {
        panic!("{stale}");
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));

    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_changes_nothing_makes_no_revision() {
    let sandbox = Sandbox::new(Options::default());
    let api = config_maps(&sandbox.client());
    let made = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"key": "1"}}));
    let same = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(same.resource_version(), made.resource_version());
    assert!(!sandbox.accesses().last().unwrap().changed);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_lists_follows_and_recovers_from_cuts_and_compaction() {
    let sandbox = Sandbox::new(Options::default());
    let writer = config_maps(&sandbox.client());
    writer.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let faults = Faults::none().with(
        Matcher::resource("configmaps").verb(Verb::Watch),
        How::Times(2),
        Fault::CutWatch(Duration::from_secs(5)),
    );
    let reader = config_maps(&sandbox.client_with("reader", faults));
    let mut events = watcher(reader, watcher::Config::default()).default_backoff().applied_objects().boxed();
    for round in 1..=20 {
        let patch = Patch::Merge(json!({"data": {"key": round.to_string()}}));
        writer.patch("a", &PatchParams::default(), &patch).await.unwrap();
        if round == 10 {
            sandbox.compact();
        }
        loop {
            match tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap() {
                Some(Ok(seen)) if seen.data.as_ref().unwrap()["key"] == round.to_string() => break,
                Some(_) => {}
                None => panic!("the watcher ended"),
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_with_a_selector_sees_objects_come_and_go() {
    let sandbox = Sandbox::new(Options::default());
    let api = config_maps(&sandbox.client());
    let start = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    api.create(&PostParams::default(), &config_map("a", "0")).await.unwrap();
    let relabel = |to: &str| Patch::Merge(json!({"metadata": {"labels": {"app": to}}}));
    for label in ["b", "a"] {
        api.patch("a", &PatchParams::default(), &relabel(label)).await.unwrap();
    }
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let params = WatchParams::default().labels("app=a").timeout(10).disable_bookmarks();
    let events: Vec<&str> = api
        .watch(&params, &start)
        .await
        .unwrap()
        .map_ok(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(_) => "error",
        })
        .try_collect()
        .await
        .unwrap();
    assert_eq!(events, ["added", "deleted", "added", "deleted"]);
}

#[tokio::test(start_paused = true)]
async fn one_client_can_be_cut_off_alone() {
    let sandbox = Sandbox::new(Options::default());
    let lost = sandbox.client_with(
        "lost",
        Faults::none().with(Matcher::resource("leases").verb(Verb::Create), How::Times(1), Fault::LoseAnswer),
    );
    let fine = sandbox.client();
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": "leader"}, "spec": {"holderIdentity": "lost"},
    }))
    .unwrap();
    let made = Api::default_namespaced(lost.clone());
    assert!(made.create(&PostParams::default(), &lease).await.is_err());
    let seen: Lease = Api::default_namespaced(fine).get("leader").await.unwrap();
    assert_eq!(seen.spec.unwrap().holder_identity.as_deref(), Some("lost"));

    sandbox.set_faults("lost", Faults::cut_off());
    let leases: Api<Lease> = Api::default_namespaced(lost);
    assert!(leases.get("leader").await.is_err());
    let codes: Vec<_> = sandbox.accesses().iter().map(|access| access.code).collect();
    assert_eq!(codes, [None, Some(200), None]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_what_is_in_it() {
    let sandbox = Sandbox::new(Options::default());
    let client = sandbox.client();
    sandbox.apply_yaml("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n").await.unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), "shop");
    let service = json!({
        "metadata": {"name": "web", "finalizers": ["test/hold"]}, "spec": {"ports": [{"port": 80}]},
    });
    let service = serde_json::from_value(service).unwrap();
    services.create(&PostParams::default(), &service).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let held = namespaces.get("shop").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());

    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    services.patch("web", &PatchParams::default(), &release).await.unwrap();
    assert!(services.get_opt("web").await.unwrap().is_none());
    assert!(namespaces.get_opt("shop").await.unwrap().is_none());
}
