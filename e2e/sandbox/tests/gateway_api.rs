//! Gateway API objects in the sandbox: schemas, defaults, status.

use kube::{
    Api, Client, Discovery,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
};
use sandbox::{Channel, Options, Sandbox};
use serde_json::{Value, json};

async fn gateway_api() -> (Sandbox, Client) {
    let sandbox = Sandbox::new(Options::default());
    sandbox.install_gateway_api(Channel::Standard).await.expect("our own CRDs are served");
    let client = sandbox.client();
    (sandbox, client)
}

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind));
    Api::default_namespaced_with(client.clone(), &resource)
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).expect("an object")
}

fn gateway() -> DynamicObject {
    object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
        "spec": {"gatewayClassName": "portreeve", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    }))
}

#[tokio::test(start_paused = true)]
async fn defaults_are_filled_in_and_status_has_a_path_of_its_own() {
    let (_sandbox, client) = gateway_api().await;
    let gateways = api(&client, "Gateway");
    let made = gateways.create(&PostParams::default(), &gateway()).await.unwrap();
    let listener = &made.data["spec"]["listeners"][0];
    assert_eq!(listener["allowedRoutes"]["namespaces"]["from"], "Same");
    assert_eq!(made.data["status"]["conditions"][0]["type"], "Accepted");
    assert_eq!(made.metadata.generation, Some(1));

    let both = Patch::Merge(
        json!({"spec": {"gatewayClassName": "other"}, "status": {"addresses": [{"value": "192.0.2.1"}]}}),
    );
    let params = PatchParams::default();
    let status = gateways.patch_status("edge", &params, &both).await.unwrap();
    assert_eq!(status.data["spec"]["gatewayClassName"], "portreeve");
    assert_eq!(status.data["status"]["addresses"][0]["value"], "192.0.2.1");
    assert_eq!(status.metadata.generation, Some(1));

    let spec = Patch::Merge(json!({"spec": {"gatewayClassName": "other"}, "status": null}));
    let spec = gateways.patch("edge", &params, &spec).await.unwrap();
    assert_eq!(spec.data["status"]["addresses"][0]["value"], "192.0.2.1");
    assert_eq!(spec.metadata.generation, Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_the_schema_refuses_is_refused_with_the_field_named() {
    let (_sandbox, client) = gateway_api().await;
    let mut wrong = gateway();
    wrong.data["spec"]["listeners"][0]["port"] = 70_000.into();
    wrong.data["spec"]["listeners"][0]["hostname"] = "UPPER.example".into();
    let refused = api(&client, "Gateway").create(&PostParams::default(), &wrong).await;
    let Err(kube::Error::Api(status)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let causes = status.details.as_ref().unwrap().causes.clone();
    let mut fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["spec.listeners[0].hostname", "spec.listeners[0].port"]);
}

#[tokio::test(start_paused = true)]
async fn discovery_names_every_kind_and_lists_page() {
    let (_sandbox, client) = gateway_api().await;
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let group = discovery.get("gateway.networking.k8s.io").unwrap();
    assert!(group.recommended_kind("HTTPRoute").is_some());
    assert_eq!(group.preferred_version_or_latest(), "v1");

    let gateways = api(&client, "Gateway");
    for number in 0..5 {
        let mut gateway = gateway();
        gateway.metadata.name = Some(format!("edge-{number}"));
        gateways.create(&PostParams::default(), &gateway).await.unwrap();
    }
    let mut params = ListParams::default().limit(2);
    let mut names = Vec::new();
    loop {
        let page = gateways.list(&params).await.unwrap();
        names.extend(page.items.into_iter().filter_map(|gateway| gateway.metadata.name));
        match page.metadata.continue_ {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["edge-0", "edge-1", "edge-2", "edge-3", "edge-4"]);
}

#[tokio::test(start_paused = true)]
async fn two_managers_apply_to_one_object() {
    let (sandbox, client) = gateway_api().await;
    let gateways = api(&client, "Gateway");
    let apply = |manager: &str| PatchParams::apply(manager);
    let wanted = |listeners: Value| {
        Patch::Apply(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
            "spec": {"gatewayClassName": "portreeve", "listeners": listeners},
        }))
    };
    let http = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let made = gateways.patch("edge", &apply("a"), &wanted(http.clone())).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let tcp = json!([{"name": "tcp", "port": 9000, "protocol": "TCP"}]);
    let both = gateways.patch("edge", &apply("b"), &wanted(tcp)).await.unwrap();
    assert_eq!(both.data["spec"]["listeners"].as_array().unwrap().len(), 2);

    let _before = sandbox.take_accesses();
    gateways.patch("edge", &apply("a"), &wanted(http)).await.unwrap();
    assert!(!sandbox.take_accesses()[0].changed, "applying the same again writes nothing");

    let status = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"},
            "status": {"addresses": [{"value": value}]},
        }))
    };
    gateways.patch_status("edge", &apply("status"), &status("192.0.2.1")).await.unwrap();
    let other = gateways.patch_status("edge", &apply("thief"), &status("192.0.2.2")).await;
    let Err(kube::Error::Api(refused)) = other else {
        panic!("{other:?}");
    };
    assert_eq!(refused.code, 409);
    assert_eq!(refused.details.unwrap().causes[0].field, ".status.addresses");
    let forced = gateways.patch_status("edge", &apply("thief").force(), &status("192.0.2.2")).await.unwrap();
    assert_eq!(forced.data["status"]["addresses"][0]["value"], "192.0.2.2");
    assert_eq!(forced.metadata.generation, Some(2));
}
