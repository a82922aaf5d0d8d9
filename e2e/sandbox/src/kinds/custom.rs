//! The kinds that CustomResourceDefinitions define.
//!
//! Owns nothing. Called when a CRD is written. It refuses what the sandbox could not serve, and says which field.

use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use super::{Kind, Traits, Version};
use crate::{
    admission::Rules,
    schema::{Schema, SchemaError},
    store::ResourceKey,
};

/// Why a CustomResourceDefinition can not be served.
#[derive(Debug, Error)]
pub(crate) enum CrdError {
    /// A field that every CRD needs is missing or of the wrong type.
    #[error("CustomResourceDefinition {name}: {field} is missing or of the wrong type")]
    Missing {
        /// The CRD's name.
        name: String,
        /// The path of the field.
        field: &'static str,
    },
    /// A schema can not be read.
    #[error("CustomResourceDefinition {name}, version {version}: its schema can not be used")]
    Schema {
        /// The CRD's name.
        name: String,
        /// The version whose schema it is.
        version: String,
        /// What is wrong with it.
        #[source]
        source: SchemaError,
    },
}

/// Custom resources: no unconditional update, a generation, no creation by PUT.
const TRAITS: Traits = Traits {
    decode: None,
    unconditional_update: false,
    create_on_update: false,
    has_generation: true,
    selectable: &[],
};

pub(super) fn kind(crd: &Value) -> Result<Kind, CrdError> {
    let crd_name = crd["metadata"]["name"].as_str().unwrap_or_default();
    let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
    let text = |value: &Value, field: &'static str| {
        value.as_str().map(str::to_owned).ok_or(CrdError::Missing { name: crd_name.to_owned(), field })
    };
    let kind = text(&names["kind"], "spec.names.kind")?;
    let versions = spec["versions"]
        .as_array()
        .ok_or(CrdError::Missing { name: crd_name.to_owned(), field: "spec.versions" })?;
    Ok(Kind {
        key: ResourceKey {
            group: text(&spec["group"], "spec.group")?,
            plural: text(&names["plural"], "spec.names.plural")?,
        },
        list_kind: text(&names["listKind"], "").unwrap_or_else(|_| format!("{kind}List")),
        singular: text(&names["singular"], "").unwrap_or_else(|_| kind.to_lowercase()),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: text(&spec["scope"], "spec.scope")? == "Namespaced",
        versions: versions.iter().map(|version| read_version(crd_name, version)).collect::<Result<_, _>>()?,
        traits: TRAITS,
        kind,
    })
}

fn read_version(crd: &str, version: &Value) -> Result<Version, CrdError> {
    let name = version["name"].as_str().unwrap_or_default().to_owned();
    let document = &version["schema"]["openAPIV3Schema"];
    let schema = Schema::read(document).map_err(|source| CrdError::Schema {
        name: crd.to_owned(),
        version: name.clone(),
        source,
    })?;
    Ok(Version {
        served: version["served"].as_bool().unwrap_or(false),
        has_status: version["subresources"]["status"].is_object(),
        schema: Arc::new(schema),
        rules: Rules::of(document),
        name,
    })
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
