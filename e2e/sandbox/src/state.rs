//! What the API server knows: objects, kinds, its clock and its dice.
//!
//! Owns all mutable state behind the sandbox's one lock. `state/read.rs` answers reads, `state/write.rs` and
//! `state/apply.rs` do writes, `state/delete.rs` deletions. It refuses to know HTTP bodies, faults and time passing: each call happens at one instant.

mod apply;
mod delete;
mod parts;
mod read;
mod write;

use std::sync::Arc;

use http::StatusCode;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::{
    admission::Leniency,
    call::{Call, Verb},
    clock::Clock,
    kinds::{Kind, Kinds, Version},
    object::{self, Key},
    refusal::Refusal,
    store::Store,
};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) kinds: Kinds,
    pub(crate) clock: Clock,
    leniency: Leniency,
    dice: StdRng,
    /// The next ClusterIP, counted from 10.96.0.1.
    next_cluster_ip: u16,
}

/// The resource that a call is about, looked up.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) kind: Arc<Kind>,
    pub(crate) version: Version,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    pub(crate) on_status: bool,
}

impl Subject {
    pub(crate) fn key(&self) -> Key {
        Key::new(self.namespace.as_deref().unwrap_or_default(), &self.name)
    }

    /// An object of the store in the version that was asked for.
    pub(crate) fn present(&self, object: &Value) -> Value {
        let mut shown = object.clone();
        shown["apiVersion"] = self.kind.api_version(&self.version.name).into();
        shown["kind"] = self.kind.kind.clone().into();
        shown
    }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: StatusCode,
    pub(crate) body: Value,
}

impl Done {
    pub(crate) fn ok(body: Value) -> Self {
        Self { code: StatusCode::OK, body }
    }
}

impl State {
    pub(crate) fn new(clock: Clock, leniency: Leniency, history: usize, seed: u64) -> Self {
        let mut state = Self {
            store: Store::new(history),
            kinds: Kinds::built_in(),
            clock,
            leniency,
            dice: StdRng::seed_from_u64(seed),
            next_cluster_ip: 10,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            state.found_namespace(name);
        }
        state
    }

    /// Makes one of the namespaces that every cluster has.
    fn found_namespace(&mut self, name: &str) {
        let kind = self.kinds.find("", "namespaces").cloned();
        let kind = kind.expect("namespaces are built in");
        let mut object = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
        });
        crate::admission::fill_defaults(&kind, &kind.versions[0], &mut object);
        object::set_meta(&mut object, "uid", Some(self.uid().into()));
        object::set_meta(&mut object, "creationTimestamp", Some(self.clock.stamp().into()));
        self.store.put(&kind.key, Key::new("", name), object);
    }

    /// Looks up what a call is about.
    pub(crate) fn subject(&self, call: &Call) -> Result<Subject, Refusal> {
        let target = &call.target;
        let Some(kind) = self.kinds.find(&target.group, &target.plural) else {
            let mut group = self.kinds.all().filter(|kind| kind.key.group == target.group);
            let known = group.any(|kind| kind.version(&target.version).is_some());
            return Err(if known { Refusal::unknown_resource() } else { Refusal::unknown_path() });
        };
        let version = kind.version(&target.version).ok_or_else(Refusal::unknown_path)?;
        let on_status = match target.subresource.as_deref() {
            None => false,
            Some("status") if version.has_status => true,
            Some(_) => return Err(Refusal::unknown_resource()),
        };
        match (&target.namespace, &target.name) {
            (Some(_), _) if !kind.namespaced => return Err(Refusal::unknown_resource()),
            (None, Some(_)) if kind.namespaced => return Err(Refusal::unknown_resource()),
            (None, None) if kind.namespaced && call.verb == Verb::Create => {
                return Err(Refusal::method_not_allowed());
            }
            _ => {}
        }
        Ok(Subject {
            kind: Arc::clone(kind),
            version: version.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone().unwrap_or_default(),
            on_status,
        })
    }

    /// The conflict that a fault pretends.
    pub(crate) fn conflict(&self, call: &Call) -> Refusal {
        match self.subject(call) {
            Ok(on) => Refusal::modified(&on.kind, &on.name),
            Err(refusal) => refusal,
        }
    }

    /// A version 4 UUID from the seeded dice.
    fn uid(&mut self) -> String {
        let mut bytes: [u8; 16] = self.dice.random();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// The five characters behind a `generateName`.
    fn name_suffix(&mut self) -> String {
        const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| char::from(LETTERS[self.dice.random_range(0..LETTERS.len())])).collect()
    }

    fn cluster_ip(&mut self) -> String {
        let [high, low] = self.next_cluster_ip.to_be_bytes();
        self.next_cluster_ip = self.next_cluster_ip.wrapping_add(1).max(10);
        format!("10.96.{high}.{low}")
    }
}
