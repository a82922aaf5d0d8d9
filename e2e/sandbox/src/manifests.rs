//! YAML manifests, put in through the same path as any client's requests.
//!
//! Owns nothing. Called by tests and the demo. Each document is made, or takes the place of what is there.

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use thiserror::Error;
use tower::ServiceExt as _;

use crate::{Channel, Sandbox, object};

/// Why a manifest was not taken.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The text is no YAML.
    #[error("the manifest is no YAML")]
    Yaml(#[source] serde_saphyr::Error),
    /// Nothing serves this kind.
    #[error("{kind} {name}: no kind {kind} of {api_version} is served: install its CRD first")]
    UnknownKind {
        /// The object's `apiVersion`.
        api_version: String,
        /// The object's `kind`.
        kind: String,
        /// The object's name.
        name: String,
    },
    /// The API server refused it.
    #[error("{kind} {name} was refused ({code}): {message}")]
    Refused {
        /// The object's `kind`.
        kind: String,
        /// The object's name.
        name: String,
        /// The HTTP status.
        code: u16,
        /// The Status message.
        message: String,
    },
}

/// How often an object is written again that has been changed between the reading and the writing.
const CONFLICTS: u32 = 10;

impl Sandbox {
    /// Installs the CRDs of a Gateway API channel.
    ///
    /// # Errors
    /// When a CRD is refused, which would be a fault of this repository.
    pub async fn install_gateway_api(&self, channel: Channel) -> Result<(), ManifestError> {
        for object in channel.objects() {
            self.apply_object(object.clone()).await?;
        }
        Ok(())
    }

    /// Makes or replaces every object of a manifest, in order.
    ///
    /// # Errors
    /// At the first document that is no YAML, of no served kind, or refused; those before it stay.
    pub async fn apply_yaml(&self, text: &str) -> Result<(), ManifestError> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(ManifestError::Yaml)?;
        for document in documents.into_iter().filter(|document| !document.is_null()) {
            self.apply_object(document).await?;
        }
        Ok(())
    }

    /// Makes or replaces one object; a controller that writes its status meanwhile is not in the way.
    ///
    /// # Errors
    /// When its kind is not served, or it is refused.
    pub async fn apply_object(&self, mut object: Value) -> Result<(), ManifestError> {
        let collection = self.path_of(&object)?;
        let name = object::meta(&object, "name").to_owned();
        let one = format!("{collection}/{name}");
        let mut conflicts = 0;
        let (code, answer) = loop {
            let (code, old) = self.send(Method::GET, &one, &Value::Null).await;
            let (code, answer) = if code == 404 {
                self.send(Method::POST, &collection, &object).await
            } else {
                object::set_revision(&mut object, object::revision(&old));
                self.send(Method::PUT, &one, &object).await
            };
            conflicts += u32::from(code == 409);
            if code != 409 || conflicts > CONFLICTS {
                break (code, answer);
            }
        };
        if code >= 400 {
            return Err(ManifestError::Refused {
                kind: text(&object["kind"]),
                name,
                code,
                message: text(&answer["message"]),
            });
        }
        Ok(())
    }

    /// The path of the collection that an object belongs to.
    fn path_of(&self, object: &Value) -> Result<String, ManifestError> {
        let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let state = self.shared.lock();
        let Some((found, version)) = state.kinds.of(&api_version, &kind) else {
            return Err(ManifestError::UnknownKind {
                api_version,
                kind,
                name: object::meta(object, "name").to_owned(),
            });
        };
        let root = if found.key.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{}/{version}", found.key.group)
        };
        let namespace = match object::meta(object, "namespace") {
            "" => "default",
            namespace => namespace,
        };
        Ok(if found.namespaced {
            format!("{root}/namespaces/{namespace}/{}", found.key.plural)
        } else {
            format!("{root}/{}", found.key.plural)
        })
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes::Bytes::from(bytes)))
            .expect("the path is made of names that the API gave or will refuse");
        // The manifests' own client has no faults, so that nothing breaks on the way.
        let Ok(answer) = self.service("manifests").oneshot(request).await else {
            return (503, Value::Null);
        };
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.map(|body| body.to_bytes());
        let value = serde_json::from_slice(&bytes.unwrap_or_default());
        (code, value.unwrap_or_default())
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
