//! The sandbox over HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::StreamExt as _;
use http::Request;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use sandbox::{Options, Sandbox};
use serde_json::json;

async fn served() -> (Sandbox, sandbox::Server, Client) {
    let sandbox = Sandbox::new(Options::default());
    let server = sandbox.serve("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    (sandbox, server, client)
}

#[tokio::test]
async fn a_client_with_its_kubeconfig_writes_and_watches() {
    let (sandbox, _server, client) = served().await;
    assert_eq!(client.apiserver_version().await.unwrap().major, "1");
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    let object = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Added(_)))));
    assert!(sandbox.accesses().iter().all(|access| access.client == "http"));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_as_such() {
    let (_sandbox, _server, client) = served().await;
    let request = Request::post("/api/v1/namespaces")
        .header("content-type", "application/vnd.kubernetes.protobuf")
        .body(kube::client::Body::from(b"k8s\0".to_vec()))
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 415);
}

#[tokio::test]
async fn the_port_closes_and_watches_end_with_the_server() {
    let (_sandbox, server, client) = served().await;
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut events = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    drop(server);
    assert!(!matches!(events.next().await, Some(Ok(_))));
    assert!(api.get_opt("a").await.is_err());
}
