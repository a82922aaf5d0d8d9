//! The Service that each Gateway owns.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
};
use serde_json::json;

use crate::stage::{GROUND, Stage};

/// The Services that name a Gateway, once there are as many as wanted.
async fn services(stage: &Stage, count: usize) -> Vec<Service> {
    let api: Api<Service> = Api::namespaced(stage.sandbox.client(), "default");
    let of_edge = ListParams::default().labels("gateway.networking.k8s.io/gateway-name=edge");
    for _ in 0..300 {
        let found = api.list(&of_edge).await.unwrap().items;
        if found.len() == count {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("there are not {count}: {:#?}", api.list(&ListParams::default()).await.unwrap().items);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_owns_a_service_that_carries_its_labels_and_comes_back() {
    let stage = Stage::new(1).await;
    stage.apply(GROUND).await;
    let controller = stage.leader("c", 1).await;
    let made = services(&stage, 1).await.remove(0);
    let owner = &made.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((&*owner.kind, &*owner.name), ("Gateway", "edge"));
    assert_eq!(made.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("None"));

    let gvk = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    let gateways: Api<DynamicObject> =
        Api::namespaced_with(stage.sandbox.client(), "default", &ApiResource::from_gvk(&gvk));
    let labels = json!({ "spec": { "infrastructure": { "labels": { "team": "red" } } } });
    gateways.patch("edge", &PatchParams::default(), &Patch::Merge(&labels)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let changed = services(&stage, 1).await.remove(0);
    assert_eq!(changed.metadata.labels.unwrap().get("team").map(String::as_str), Some("red"));

    let api: Api<Service> = Api::namespaced(stage.sandbox.client(), "default");
    api.delete(made.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    services(&stage, 1).await;

    let leaves = json!({ "spec": { "gatewayClassName": "of-somebody-else" } });
    gateways.patch("edge", &PatchParams::default(), &Patch::Merge(&leaves)).await.unwrap();
    services(&stage, 0).await;
    controller.running.stop().await.unwrap();
}
