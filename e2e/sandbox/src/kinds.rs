//! Which resources the API serves, and what is peculiar to each.
//!
//! Owns: the registry of built-in kinds and of those that installed CRDs define. Called by the API, discovery and the write path.
//! It refuses to know objects: only their kinds.

mod builtin;
mod custom;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

pub(crate) use custom::CrdError;

use crate::{admission::Rules, schema::Schema, store::ResourceKey};

/// One version of a kind, as discovery lists it.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) served: bool,
    /// Whether `status` is written by a path of its own.
    pub(crate) has_status: bool,
    /// The structural schema; of a built-in kind only the shape of its lists.
    pub(crate) schema: Arc<Schema>,
    /// The CEL rules of the schema.
    pub(crate) rules: Rules,
}

/// Decodes into the typed object and back: what the type does not know is dropped, what contradicts it is refused.
pub(crate) type Decode = fn(&Value) -> Result<Value, String>;

/// How a kind departs from the generic registry of the API server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// `None` for the kinds of CRDs, which go by their schema.
    pub(crate) decode: Option<Decode>,
    /// PUT without a resourceVersion overwrites.
    pub(crate) unconditional_update: bool,
    /// PUT makes what does not exist.
    pub(crate) create_on_update: bool,
    /// `metadata.generation` is kept.
    pub(crate) has_generation: bool,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`.
    pub(crate) selectable: &'static [&'static str],
}

/// A resource of the API.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) key: ResourceKey,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    pub(crate) versions: Vec<Version>,
    pub(crate) traits: Traits,
}

impl Kind {
    /// `httproutes.gateway.networking.k8s.io`, or `services`.
    pub(crate) fn qualified_plural(&self) -> String {
        qualified(&self.key.plural, &self.key.group)
    }

    /// `HTTPRoute.gateway.networking.k8s.io`, or `Service`.
    pub(crate) fn qualified_kind(&self) -> String {
        qualified(&self.kind, &self.key.group)
    }

    pub(crate) fn is_custom(&self) -> bool {
        self.traits.decode.is_none()
    }

    /// `apiVersion` of this kind's objects in one of its versions.
    pub(crate) fn api_version(&self, version: &str) -> String {
        if self.key.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.key.group) }
    }

    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name && version.served)
    }
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// The registry.
#[derive(Clone, Debug)]
pub(crate) struct Kinds {
    by_key: BTreeMap<ResourceKey, Arc<Kind>>,
}

impl Kinds {
    /// What every cluster serves.
    pub(crate) fn built_in() -> Self {
        let by_key = builtin::kinds().into_iter().map(|kind| (kind.key.clone(), Arc::new(kind))).collect();
        Self { by_key }
    }

    pub(crate) fn find(&self, group: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.get(&ResourceKey { group: group.to_owned(), plural: plural.to_owned() })
    }

    pub(crate) fn get(&self, key: &ResourceKey) -> Option<&Arc<Kind>> {
        self.by_key.get(key)
    }

    /// The resource of an object's `apiVersion` and `kind`, and the version.
    pub(crate) fn of(&self, api_version: &str, kind: &str) -> Option<(&Arc<Kind>, String)> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let found = self.by_key.values().find(|k| k.kind == kind && k.key.group == group)?;
        found.version(version)?;
        Some((found, version.to_owned()))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.by_key.values()
    }

    /// Serves what a CustomResourceDefinition defines, instead of what it defined before.
    pub(crate) fn install(&mut self, crd: &Value) -> Result<(), CrdError> {
        let kind = custom::kind(crd)?;
        self.by_key.insert(kind.key.clone(), Arc::new(kind));
        Ok(())
    }

    pub(crate) fn uninstall(&mut self, key: &ResourceKey) {
        self.by_key.remove(key);
    }
}
