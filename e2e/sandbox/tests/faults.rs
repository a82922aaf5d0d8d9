//! Each fault as the client meets it, and the history that a server forgets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response, StatusCode};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{GetParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use sandbox::{Fault, Faults, How, Matcher, Options, Sandbox, Verb};
use serde_json::json;
use tokio::time::Instant;

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

async fn sandbox_with(names: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new(Options::default());
    let api = config_maps(&sandbox.client());
    for name in names {
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    sandbox
}

fn struck(fault: Fault) -> Faults {
    Faults::none().with(Matcher::resource("configmaps"), How::Always, fault)
}

/// A raw GET, so that no client's retry hides the answer.
async fn get(client: &Client, path: &str) -> Result<Response<kube::client::Body>, kube::Error> {
    client.send(Request::get(path).body(kube::client::Body::empty()).unwrap()).await
}

const ONE: &str = "/api/v1/namespaces/default/configmaps/a";

#[tokio::test(start_paused = true)]
async fn refusals_are_answers_with_their_codes() {
    let sandbox = sandbox_with(&["a"]).await;
    let cases = [
        (Fault::Throttle { retry_after: 3 }, 429),
        (Fault::ServerError(StatusCode::SERVICE_UNAVAILABLE), 503),
        (Fault::Conflict, 409),
    ];
    for (fault, code) in cases {
        let answer = get(&sandbox.client_with("c", struck(fault.clone())), ONE).await.unwrap();
        assert_eq!(answer.status(), code);
        let retry = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(retry, (code == 429).then_some("3"));
        let access = sandbox.accesses().pop().unwrap();
        assert_eq!((access.code, access.fault), (Some(code), Some(fault)));
    }
}

#[tokio::test(start_paused = true)]
async fn broken_and_slow_connections_take_their_time() {
    let sandbox = sandbox_with(&["a"]).await;
    let second = Duration::from_secs(1);
    let cases = [
        (Fault::Refuse, 0, false),
        (Fault::Hang(second * 30), 30, false),
        (Fault::Delay(second), 1, true),
        (Fault::LoseAnswer, 0, false),
        (Fault::DelayAnswer(second * 2), 2, true),
    ];
    for (fault, seconds, answered) in cases {
        let client = sandbox.client_with("c", struck(fault.clone()));
        let start = Instant::now();
        let outcome = get(&client, ONE).await;
        assert_eq!((start.elapsed().as_secs(), outcome.is_ok()), (seconds, answered), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_or_late_answer_was_carried_out_and_a_refused_request_was_not() {
    let sandbox = sandbox_with(&[]).await;
    let cases = [
        (Fault::LoseAnswer, "lost", true),
        (Fault::DelayAnswer(Duration::from_secs(9)), "late", true),
        (Fault::Refuse, "refused", false),
        (Fault::Hang(Duration::from_secs(9)), "hung", false),
    ];
    for (fault, name, carried_out) in cases {
        let api = config_maps(&sandbox.client_with("c", struck(fault)));
        let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let post = PostParams::default();
        let _impatient = tokio::time::timeout(Duration::from_secs(5), api.create(&post, &object)).await;
        let found = config_maps(&sandbox.client()).get_opt(name).await.unwrap();
        assert_eq!(found.is_some(), carried_out, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_is_of_an_older_revision() {
    let sandbox = sandbox_with(&["a", "b"]).await;
    let stale = config_maps(&sandbox.client_with("c", struck(Fault::StaleRead { revisions: 1 })));
    let listed = stale.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = listed.items.iter().filter_map(|item| item.metadata.name.as_deref()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(listed.metadata.resource_version.unwrap(), (sandbox.revision() - 1).to_string());
    assert!(stale.get_opt("b").await.unwrap().is_none());
    let least = GetParams::at(&sandbox.revision().to_string());
    assert!(stale.get_with("b", &least).await.is_ok(), "it is never older than what is asked for");
}

#[tokio::test(start_paused = true)]
async fn rules_strike_as_often_as_they_say_and_alike_for_one_seed() {
    let sandbox = sandbox_with(&["a"]).await;
    let outcomes = async |how: How, seed: u64| {
        let faults = Faults::none().with(Matcher::all().verb(Verb::Get), how, Fault::Conflict).seeded(seed);
        let client = sandbox.client_with("c", faults);
        let mut text = String::new();
        for _ in 0..24 {
            text.push(if get(&client, ONE).await.unwrap().status() == 409 { 'x' } else { '.' });
        }
        text
    };
    assert_eq!(outcomes(How::Always, 0).await, "xxxxxxxxxxxxxxxxxxxxxxxx");
    assert_eq!(outcomes(How::Times(2), 0).await, "xx......................");
    assert_eq!(outcomes(How::After { skip: 3, times: 2 }, 0).await, "...xx...................");
    let (one, same, other) = (
        outcomes(How::Chance(0.5), 1).await,
        outcomes(How::Chance(0.5), 1).await,
        outcomes(How::Chance(0.5), 2).await,
    );
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert!(one.contains('x') && one.contains('.'));
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_cut_muted_or_expired() {
    let sandbox = sandbox_with(&["a"]).await;
    let five = Duration::from_secs(5);
    let cases =
        [(Fault::CutWatch(five), "A!"), (Fault::MuteWatch(five), "!"), (Fault::ExpireWatch(five), "AE")];
    for (fault, expected) in cases {
        let api = config_maps(&sandbox.client_with("c", struck(fault.clone())));
        let start = Instant::now();
        let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        let mut seen = String::new();
        while let Some(event) = events.next().await {
            seen.push(match event {
                Ok(WatchEvent::Added(_)) => 'A',
                Ok(WatchEvent::Error(status)) if status.code == 410 => 'E',
                Ok(_) => '?',
                Err(_) => '!',
            });
        }
        assert_eq!((seen.as_str(), start.elapsed()), (expected, five), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_open_watches_of_one_client_are_cut() {
    let sandbox = sandbox_with(&["a"]).await;
    let mut streams = Vec::new();
    for name in ["one", "other"] {
        let api = config_maps(&sandbox.client_with(name, Faults::none()));
        let params = WatchParams::default().timeout(9);
        streams.push(api.watch(&params, "0").await.unwrap().boxed());
    }
    sandbox.cut_watches("one");
    sandbox.set_faults("one", Faults::cut_off());
    let mut outcomes = Vec::new();
    for stream in streams {
        outcomes.push(stream.try_collect::<Vec<_>>().await.is_ok());
    }
    assert_eq!(outcomes, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn forgotten_history_is_gone_for_watches_lists_and_pages() {
    let sandbox = sandbox_with(&["a", "b", "c"]).await;
    let api = config_maps(&sandbox.client());
    let page = api.list(&ListParams::default().limit(1)).await.unwrap().metadata;
    let old = page.resource_version.unwrap();
    // One that is behind when the history goes, because it was not read.
    let behind = api.watch(&WatchParams::default(), &old).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"x": "y"}}));
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    sandbox.compact();

    let told: Vec<_> = behind.try_collect().await.unwrap();
    assert!(matches!(&told[..], [WatchEvent::Error(status)] if status.code == 410), "{told:?}");
    let late: Vec<_> = api.watch(&WatchParams::default(), &old).await.unwrap().try_collect().await.unwrap();
    assert!(matches!(&late[..], [WatchEvent::Error(status)] if status.reason == "Expired"), "{late:?}");

    let exact = ListParams { resource_version: Some(old), ..ListParams::default() };
    let exact = exact.matching(kube::api::VersionMatch::Exact);
    let Err(kube::Error::Api(refused)) = api.list(&exact).await else { panic!("a list of the past") };
    assert_eq!((refused.code, refused.reason.as_str()), (410, "Expired"));

    let token = page.continue_.unwrap();
    let Err(kube::Error::Api(refused)) =
        api.list(&ListParams::default().limit(1).continue_token(&token)).await
    else {
        panic!("a page of the past")
    };
    assert_eq!((refused.code, refused.reason.as_str()), (410, "Expired"));
    let fresh = refused.metadata.unwrap().continue_.unwrap();
    let rest = api.list(&ListParams::default().limit(9).continue_token(&fresh)).await.unwrap();
    assert_eq!(rest.items.len(), 2, "the rest, from where the first page ended");
}

#[tokio::test(start_paused = true)]
async fn a_client_has_a_clock_of_its_own() {
    let start = "2026-01-01T00:00:00Z".parse().unwrap();
    let sandbox = Sandbox::new(Options { start: Some(start), ..Options::default() });
    sandbox.set_faults("ahead", Faults::none().clock_ahead(SignedDuration::from_secs(30)));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(sandbox.clock_of("ahead").to_string(), "2026-01-01T00:01:30Z");
    assert_eq!(sandbox.clock_of("other").to_string(), "2026-01-01T00:01:00Z");
}
