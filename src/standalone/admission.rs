//! What an API server would say of a manifest: asked of the Kubernetes API in memory, which takes the same
//! schemas and fills in the same defaults. Nothing is kept there.

use std::sync::Arc;

use actors::observe::files::Admit;
use actors::observe::resource::Resource;
use actors_core::snapshot::meta::Kind;
use anyhow::{Context, Result};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Client, Error};
use sandbox::{Channel, Options, Sandbox};
use serde_json::{Value, json};

/// Who asks.
const MANAGER: &str = "portreeve-standalone";

/// The judge of manifests: endpoints may be anywhere, loopback too.
pub(crate) async fn judge() -> Result<Admit> {
    let sandbox = Sandbox::new(Options { loopback_endpoints: true, ..Options::default() });
    sandbox
        .install_gateway_api(Channel::Experimental)
        .await
        .context("reading the schemas of the Gateway API")?;
    for definition in actors_api::crds::ours() {
        let text = serde_json::to_string(&definition)?;
        sandbox.apply_yaml(&text).await.context("reading our own schemas")?;
    }
    let client = sandbox.client();
    Ok(Arc::new(move |object| {
        let client = client.clone();
        Box::pin(async move { admit(&client, object).await.map_err(|error| message(&error)) })
    }))
}

async fn admit(client: &Client, object: Value) -> Result<Value, Error> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name, namespace) = (text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else { return Ok(object) };
    let resource = Resource::of(kind).api_resource();
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        exists(client, &namespace).await?;
        Api::namespaced_with(client.clone(), &namespace, &resource)
    };
    let params = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let taken = api.patch(&name, &params, &Patch::Apply(&object)).await?;
    serde_json::to_value(taken).map_err(Error::SerdeError)
}

/// A namespace that files do not speak of is there all the same: there is no cluster that could lack it.
async fn exists(client: &Client, namespace: &str) -> Result<(), Error> {
    let api: Api<DynamicObject> =
        Api::all_with(client.clone(), &Resource::of(Kind::Namespace).api_resource());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    api.patch(namespace, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await.map(drop)
}

fn message(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_gateway_api_tries_out_is_taken_and_judged_too() {
        let judge = judge().await.expect("our own schemas can be read");
        let backend = |protocol: &str| {
            json!({
                "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
                "kind": "XBackend",
                "metadata": { "name": "api", "namespace": "shop" },
                "spec": {
                    "type": "ExternalHostname",
                    "externalHostname": { "hostname": "api.example.com" },
                    "port": { "port": 443 },
                    "protocol": protocol,
                },
            })
        };
        let taken = judge(backend("HTTP2")).await.expect("a backend as the schema wants it");
        assert_eq!(taken["spec"]["port"]["port"], 443);
        let refused = judge(backend("TELEPATHY")).await.expect_err("no such protocol");
        assert!(refused.contains("spec.protocol"), "{refused}");
    }
}
