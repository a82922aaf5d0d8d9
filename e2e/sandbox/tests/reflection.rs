//! Whatever goes wrong on the way, a reflector ends up with what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use http::StatusCode;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sandbox::{Fault, Faults, How, Matcher, Options, Sandbox, Verb};
use serde_json::json;

/// Everything that a watch or its list may meet.
fn weather(seed: u64) -> Faults {
    let watch = Matcher::all().verb(Verb::Watch);
    let list = Matcher::all().verb(Verb::List);
    Faults::none()
        .with(watch.clone(), How::Chance(0.3), Fault::CutWatch(Duration::from_secs(3)))
        .with(watch.clone(), How::Chance(0.2), Fault::ExpireWatch(Duration::from_secs(4)))
        .with(watch, How::Chance(0.1), Fault::Refuse)
        .with(list.clone(), How::Chance(0.2), Fault::ServerError(StatusCode::INTERNAL_SERVER_ERROR))
        .with(list.clone(), How::Chance(0.2), Fault::LoseAnswer)
        .with(list, How::Chance(0.2), Fault::StaleRead { revisions: 5 })
        .seeded(seed)
}

/// One random write; most find something to do.
async fn write(api: &Api<ConfigMap>, dice: &mut StdRng) {
    let name = format!("item-{}", dice.random_range(0..6));
    let object = json!({"metadata": {"name": name}, "data": {"key": dice.random::<u32>().to_string()}});
    match dice.random_range(0..3) {
        0 => {
            let object = serde_json::from_value(object).unwrap();
            let _exists = api.create(&PostParams::default(), &object).await;
        }
        1 => {
            let _absent = api.patch(&name, &PatchParams::default(), &Patch::Merge(object)).await;
        }
        _ => {
            let _absent = api.delete(&name, &DeleteParams::default()).await;
        }
    }
}

type Seen = BTreeMap<String, (Option<String>, Option<BTreeMap<String, String>>)>;

fn seen<'a>(objects: impl IntoIterator<Item = &'a ConfigMap>) -> Seen {
    let entry = |object: &ConfigMap| {
        let metadata = object.metadata.clone();
        (metadata.name.unwrap_or_default(), (metadata.resource_version, object.data.clone()))
    };
    objects.into_iter().map(entry).collect()
}

async fn follow(seed: u64, streaming: bool) {
    let sandbox = Sandbox::new(Options { seed, ..Options::default() });
    let clients: [Client; 2] = [sandbox.client(), sandbox.client_with("reader", weather(seed))];
    let [writer, reader] = clients.map(Api::<ConfigMap>::default_namespaced);
    let (store, sink) = reflector::store();
    let config = watcher::Config::default().timeout(10);
    let config = if streaming { config.streaming_lists() } else { config.page_size(2) };
    let stream = reflector(sink, watcher(reader, config).default_backoff());
    let reflecting = tokio::spawn(stream.for_each(async |_| {}));

    let mut dice = StdRng::seed_from_u64(seed);
    for _ in 0..60 {
        write(&writer, &mut dice).await;
        if dice.random_bool(0.05) {
            sandbox.compact();
        }
        if dice.random_bool(0.05) {
            sandbox.cut_watches("reader");
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..900))).await;
    }
    sandbox.set_faults("reader", Faults::none());
    sandbox.cut_watches("reader");
    tokio::time::sleep(Duration::from_secs(120)).await;
    let there = writer.list(&ListParams::default()).await.unwrap();
    let reflected = store.state();
    assert_eq!(seen(reflected.iter().map(AsRef::as_ref)), seen(&there.items), "seed {seed}");
    reflecting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reflector_ends_up_with_what_is_there() {
    for seed in 0..100 {
        follow(seed, seed % 2 == 1).await;
    }
}
