//! The built-in kinds: those that Portreeve reads or writes, and what kubectl needs beside them.
//!
//! Owns the table. Called once per sandbox. It refuses to validate: see `admission`.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Kind, Traits, Version};
use crate::{
    admission::Rules,
    schema::{Schema, shapes},
    store::ResourceKey,
};

/// A row of the table; everything else follows from it.
struct Row {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    has_status: bool,
    traits: Traits,
}

/// The common case: a PUT may come without a resourceVersion, creates nothing, and there is no generation.
fn plain<T: Serialize + DeserializeOwned>() -> Traits {
    Traits {
        decode: Some(decode::<T>),
        unconditional_update: true,
        create_on_update: false,
        has_generation: false,
        selectable: &[],
    }
}

fn decode<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, String> {
    let typed: T = T::deserialize(object).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

const fn row(plural: &'static str, kind: &'static str, traits: Traits) -> Row {
    Row { group: "", plural, kind, short: &[], namespaced: true, has_status: false, traits }
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "reason",
    "type",
];

fn core_rows() -> Vec<Row> {
    vec![
        Row {
            short: &["ns"],
            namespaced: false,
            has_status: true,
            ..row(
                "namespaces",
                "Namespace",
                Traits { selectable: &["status.phase"], ..plain::<core::Namespace>() },
            )
        },
        Row {
            short: &["no"],
            namespaced: false,
            has_status: true,
            ..row("nodes", "Node", Traits { selectable: &["spec.unschedulable"], ..plain::<core::Node>() })
        },
        Row {
            short: &["po"],
            has_status: true,
            ..row(
                "pods",
                "Pod",
                Traits {
                    has_generation: true,
                    selectable: &["spec.nodeName", "status.phase", "status.podIP", "spec.serviceAccountName"],
                    ..plain::<core::Pod>()
                },
            )
        },
        Row {
            short: &["svc"],
            has_status: true,
            ..row(
                "services",
                "Service",
                Traits { selectable: &["spec.clusterIP", "spec.type"], ..plain::<core::Service>() },
            )
        },
        row("secrets", "Secret", Traits { selectable: &["type"], ..plain::<core::Secret>() }),
        Row { short: &["cm"], ..row("configmaps", "ConfigMap", plain::<core::ConfigMap>()) },
        Row {
            short: &["ev"],
            ..row(
                "events",
                "Event",
                Traits { create_on_update: true, selectable: EVENT_FIELDS, ..plain::<core::Event>() },
            )
        },
    ]
}

fn group_rows() -> Vec<Row> {
    vec![
        Row {
            group: "discovery.k8s.io",
            ..row(
                "endpointslices",
                "EndpointSlice",
                Traits { has_generation: true, ..plain::<discovery::EndpointSlice>() },
            )
        },
        Row {
            group: "coordination.k8s.io",
            ..row(
                "leases",
                "Lease",
                Traits {
                    unconditional_update: false,
                    create_on_update: true,
                    ..plain::<coordination::Lease>()
                },
            )
        },
        Row {
            group: "events.k8s.io",
            short: &["ev"],
            ..row("events", "Event", Traits { create_on_update: true, ..plain::<events::Event>() })
        },
        Row {
            group: "apiextensions.k8s.io",
            short: &["crd", "crds"],
            namespaced: false,
            has_status: true,
            ..row(
                "customresourcedefinitions",
                "CustomResourceDefinition",
                Traits {
                    decode: Some(checked::<apiextensions::CustomResourceDefinition>),
                    unconditional_update: false,
                    has_generation: true,
                    ..plain::<apiextensions::CustomResourceDefinition>()
                },
            )
        },
    ]
}

/// For a CRD: its schemas stay as they were written.
fn checked<T: DeserializeOwned>(object: &Value) -> Result<Value, String> {
    T::deserialize(object).map(|_| object.clone()).map_err(|error| error.to_string())
}

pub(super) fn kinds() -> Vec<Kind> {
    core_rows()
        .into_iter()
        .chain(group_rows())
        .map(|row| {
            let version = Version {
                name: "v1".to_owned(),
                served: true,
                has_status: row.has_status,
                schema: Arc::new(Schema::of_lists(shapes(row.kind))),
                rules: Rules::none(),
            };
            let key = ResourceKey { group: row.group.to_owned(), plural: row.plural.to_owned() };
            Kind {
                key,
                kind: row.kind.to_owned(),
                list_kind: format!("{}List", row.kind),
                singular: row.kind.to_lowercase(),
                short_names: row.short.iter().map(|&short| short.to_owned()).collect(),
                categories: Vec::new(),
                namespaced: row.namespaced,
                versions: vec![version],
                traits: row.traits,
            }
        })
        .collect()
}
