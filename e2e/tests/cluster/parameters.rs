//! EdgeParameters, our own kind, as a user meets it: not installed at first, then installed, used, misused and removed.
//! No controller is restarted.

use actors_api::crds;
use anyhow::{Context, Result, ensure};
use e2e::stage::play;
use e2e::testbed::{SOON, Testbed};
use e2e::wait::until;
use serde_json::{Value, json};

/// The name of the definition.
pub(crate) const CRD: &str = "edgeparameters.portreeve.dev";
/// A class with parameters, and a Gateway of it with a route on a port of its own.
const CLASS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: with-parameters}
spec:
  controllerName: portreeve.dev/gateway-controller
  parametersRef: {group: portreeve.dev, kind: EdgeParameters, name: edge}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: parametrized}
spec:
  gatewayClassName: with-parameters
  listeners: [{name: http, port: 8088, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: parametrized}
spec:
  parentRefs: [{name: parametrized}]
  rules: [{backendRefs: [{name: green, port: 8080}]}]
---"#;

fn parameters(provider: &Value) -> String {
    json!({
        "apiVersion": "portreeve.dev/v1alpha1", "kind": "EdgeParameters",
        "metadata": {"name": "edge"}, "spec": {"addressProvider": provider},
    })
    .to_string()
}

/// Installs our own definitions.
pub(crate) async fn install(testbed: &Testbed) -> Result<()> {
    for crd in crds::ours() {
        testbed.cluster.apply(&serde_json::to_string(&crd)?)?;
    }
    testbed.cluster.kubectl(&["wait", "--for=condition=Established", "crd", CRD, "--timeout=30s"])?;
    // That is said before those who ask for the kind are told of it.
    until("the kind is served", SOON, async || {
        testbed.cluster.kubectl(&["get", "edgeparameters"]).map(|_| ())
    })
    .await
}

/// Points the class at this object.
fn refer(testbed: &Testbed, reference: &Value) -> Result<()> {
    let patch = json!({"spec": {"parametersRef": reference}}).to_string();
    let patch = ["patch", "gatewayclass", "with-parameters", "--type=merge", "-p", &patch];
    testbed.cluster.kubectl(&patch).map(|_| ())
}

/// Waits until the class says whether it is accepted, and why, in a message that contains `message`.
async fn class_says(testbed: &Testbed, wanted: &str, message: &str) -> Result<()> {
    until(&format!("the class says {wanted}: {message}"), SOON, async || {
        let class = testbed.cluster.kubectl(&["get", "gatewayclass", "with-parameters", "-o", "json"])?;
        let class: Value = serde_json::from_str(&class)?;
        let conditions = class.pointer("/status/conditions").and_then(Value::as_array);
        let accepted = conditions.into_iter().flatten().find(|condition| condition["type"] == "Accepted");
        let accepted = accepted.context("it says nothing")?;
        let said = format!("{} {}", accepted["status"], accepted["reason"]).replace('"', "");
        ensure!(accepted["observedGeneration"] == class["metadata"]["generation"], "of before: {accepted}");
        ensure!(said == wanted && accepted["message"].to_string().contains(message), "{accepted}");
        Ok(())
    })
    .await
}

/// Waits until each node answers the parametrized Gateway's port with this status.
async fn serves(testbed: &Testbed, status: u16) -> Result<()> {
    for node in 0..testbed.proxies.len() {
        let mut address = testbed.address(node);
        address.set_port(8088);
        until("the Gateway with parameters serves", SOON, async || {
            let answer = testbed.client.get(address, "any.example", "/").await?;
            ensure!(answer.status == status, "{answer:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn parameters_are_read_once_their_definition_is_installed_and_said_to_be_invalid_else() -> Result<()> {
    play(async |testbed| {
        let loads = [testbed.load(0), testbed.load(1)];
        testbed.cluster.apply(CLASS)?;
        class_says(testbed, "False InvalidParameters", "EdgeParameters edge is not there").await?;

        install(testbed).await?;
        testbed.cluster.apply(&parameters(&json!({"node": {}})))?;
        class_says(testbed, "True Accepted", "").await?;
        serves(testbed, 200).await?;

        wrong_references(testbed).await?;
        let both = parameters(&json!({"node": {}, "slots": {}}));
        let refused = testbed.cluster.apply(&both).unwrap_err();
        assert!(refused.to_string().contains("set one of node, pool and slots"), "{refused}");
        testbed.cluster.apply(&parameters(&json!({"slots": {}})))?;
        class_says(testbed, "False InvalidParameters", "slots").await?;
        // A field that another one applied goes only with the object.
        testbed.cluster.kubectl(&["delete", "edgeparameters", "edge"])?;
        class_says(testbed, "False InvalidParameters", "is not there").await?;
        // What is served goes on being served.
        serves(testbed, 200).await?;
        testbed.cluster.apply(&parameters(&json!({})))?;
        class_says(testbed, "True Accepted", "").await?;

        // Removed with its definition, and installed again.
        testbed.cluster.kubectl(&["delete", "crd", CRD])?;
        class_says(testbed, "False InvalidParameters", "is not there").await?;
        install(testbed).await?;
        testbed.cluster.apply(&parameters(&json!({"node": {}})))?;
        class_says(testbed, "True Accepted", "").await?;
        serves(testbed, 200).await?;

        testbed.all_live()?;
        for load in loads {
            assert_eq!(load.stop().await?.faults(), Vec::<String>::new());
        }
        testbed.cluster.kubectl(&["delete", "httproute/parametrized", "gateway/parametrized"])?;
        testbed.cluster.kubectl(&["delete", "gatewayclass/with-parameters", &format!("crd/{CRD}")])?;
        Ok(())
    })
}

/// References that lead nowhere, then the right one again.
async fn wrong_references(testbed: &Testbed) -> Result<()> {
    let right = json!({"group": "portreeve.dev", "kind": "EdgeParameters", "name": "edge"});
    for (field, value, said) in [
        ("name", "other", "EdgeParameters other is not there"),
        ("kind", "Parameters", "names Parameters of group portreeve.dev"),
        ("group", "example.com", "names EdgeParameters of group example.com"),
    ] {
        let mut wrong = right.clone();
        wrong[field] = value.into();
        refer(testbed, &wrong)?;
        class_says(testbed, "False InvalidParameters", said).await?;
    }
    refer(testbed, &right)?;
    class_says(testbed, "True Accepted", "").await
}
