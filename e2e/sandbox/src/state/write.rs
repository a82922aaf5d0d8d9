//! POST, PUT and PATCH: from a body to a stored object.
//!
//! Owns the order of the write path: identity, decoding, system fields, defaults, validation, one revision.
//! Called for writes. It refuses to delete: see `delete`.

use http::StatusCode;
use serde_json::Value;

use super::{
    Done, State, Subject,
    apply::manager,
    parts::{
        SYSTEM, carry_over, check_finalizers, remove_status, spec_differs, with_spec_of, with_status_of,
    },
};
use crate::{
    admission,
    call::Call,
    managed::Managers,
    object::{self, Key, finalizers, is_terminating, meta, metadata_mut, set_meta},
    patch,
    refusal::{Cause, Refusal},
};

/// Who owns the fields of the written object.
#[derive(Debug)]
pub(super) enum Tracking {
    /// Whoever changed them.
    Update,
    /// As an apply has found.
    Done(Managers),
}

impl State {
    /// POST.
    pub(crate) fn create(&mut self, on: &Subject, call: &Call, body: &[u8]) -> Result<Done, Refusal> {
        let object = parse(call, body)?;
        let mut on = on.clone();
        self.create_object(&mut on, call, object, Tracking::Update)
    }

    pub(super) fn create_object(
        &mut self,
        on: &mut Subject,
        call: &Call,
        mut object: Value,
        tracking: Tracking,
    ) -> Result<Done, Refusal> {
        check_identity(on, &mut object)?;
        if object::revision(&object) != 0 {
            return Err(Refusal::versioned_creation());
        }
        self.check_namespace(on)?;
        let unknown = admission::decode(&on.kind, &on.version, &mut object)?;
        refuse_unknown(call, &unknown)?;
        if on.version.has_status {
            remove_status(&mut object);
        }
        if meta(&object, "name").is_empty() && !meta(&object, "generateName").is_empty() {
            let name = format!("{}{}", meta(&object, "generateName"), self.name_suffix());
            set_meta(&mut object, "name", Some(name.into()));
        }
        on.name = meta(&object, "name").to_owned();
        self.stamp_new(on, &mut object);
        admission::fill_defaults(&on.kind, &on.version, &mut object);
        self.track(on, call, &Value::Null, &mut object, tracking);
        self.check(on, &object, None)?;
        if self.store.get(&on.kind.key, &on.key()).is_some() {
            return Err(Refusal::already_exists(&on.kind, &on.name));
        }
        let stored = self.keep(on, call, object)?;
        Ok(Done { code: StatusCode::CREATED, body: on.present(&stored) })
    }

    /// The fields that the server gives a new object.
    fn stamp_new(&mut self, on: &Subject, object: &mut Value) {
        let (uid, now) = (self.uid(), self.clock.stamp());
        let metadata = metadata_mut(object);
        for field in SYSTEM.into_iter().chain(["managedFields", "selfLink", "resourceVersion"]) {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), uid.into());
        metadata.insert("creationTimestamp".to_owned(), now.into());
        if on.kind.traits.has_generation {
            metadata.insert("generation".to_owned(), 1.into());
        }
        if on.kind.kind == "Service" && object["spec"]["type"] != "ExternalName" {
            let given = object["spec"]["clusterIP"].as_str().map(str::to_owned);
            let ip = given.filter(|ip| !ip.is_empty());
            let ip = ip.unwrap_or_else(|| self.cluster_ip());
            object["spec"]["clusterIPs"] = serde_json::json!([ip]);
            object["spec"]["ipFamilies"] = serde_json::json!(["IPv4"]);
            object["spec"]["ipFamilyPolicy"] = "SingleStack".into();
            object["spec"]["clusterIP"] = ip.into();
        }
    }

    /// PUT.
    pub(crate) fn update(&mut self, on: &Subject, call: &Call, body: &[u8]) -> Result<Done, Refusal> {
        let mut object = parse(call, body)?;
        check_identity(on, &mut object)?;
        let Some(old) = self.store.get(&on.kind.key, &on.key()).cloned() else {
            if on.kind.traits.create_on_update && !on.on_status {
                // A revision does not keep it from being made: so does the real one.
                set_meta(&mut object, "resourceVersion", None);
                return self.create_object(&mut on.clone(), call, object, Tracking::Update);
            }
            return Err(Refusal::not_found(&on.kind, &on.name));
        };
        let unknown = admission::decode(&on.kind, &on.version, &mut object)?;
        refuse_unknown(call, &unknown)?;
        self.check_current(on, &old, &object)?;
        self.replace(on, call, &old, object, Tracking::Update)
    }

    /// The optimistic lock of PUT, and of a PATCH whose result names a revision.
    fn check_current(&self, on: &Subject, old: &Value, object: &Value) -> Result<(), Refusal> {
        let (given, uid) = (object::revision(object), meta(object, "uid"));
        if !uid.is_empty() && uid != meta(old, "uid") {
            let detail = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta(old, "uid")
            );
            return Err(Refusal::conflict(&on.kind, &on.name, &detail));
        }
        if given == 0 && !on.kind.traits.unconditional_update {
            return Err(Refusal::needs_revision(&on.kind, &on.name));
        }
        if given != 0 && given != object::revision(old) {
            return Err(Refusal::modified(&on.kind, &on.name));
        }
        Ok(())
    }

    /// PATCH.
    pub(crate) fn patch(&mut self, on: &Subject, call: &Call, body: &[u8]) -> Result<Done, Refusal> {
        let known: &[&str] = if on.kind.is_custom() {
            &[patch::JSON, patch::MERGE, patch::APPLY]
        } else {
            &[patch::JSON, patch::MERGE, patch::STRATEGIC, patch::APPLY]
        };
        let given = call.content_type.split(';').next().unwrap_or_default().trim();
        if given == patch::APPLY {
            return self.apply(on, call, body);
        }
        let Some(old) = self.store.get(&on.kind.key, &on.key()).cloned() else {
            return Err(Refusal::not_found(&on.kind, &on.name));
        };
        let mut object = on.present(&old);
        match given {
            patch::JSON => patch::json(&mut object, body)?,
            patch::MERGE => patch::merge(&mut object, body)?,
            patch::STRATEGIC if !on.kind.is_custom() => {
                patch::strategic(&mut object, body, &on.version.schema)?;
            }
            _ => return Err(Refusal::unsupported_media_type(given, known)),
        }
        check_identity(on, &mut object)?;
        let unknown = admission::decode(&on.kind, &on.version, &mut object);
        let unknown = unknown.map_err(|refusal| refusal.of_patch(&on.kind))?;
        refuse_unknown(call, &unknown)?;
        let uid = meta(&object, "uid");
        if !uid.is_empty() && uid != meta(&old, "uid") {
            let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
            return Err(Refusal::invalid(&on.kind, &on.name, &[cause]));
        }
        if object::revision(&object) == 0 {
            object::set_revision(&mut object, object::revision(&old));
        }
        self.check_current(on, &old, &object)?;
        self.replace(on, call, &old, object, Tracking::Update)
    }

    /// Puts `new` in the place of `old`, with what the path may change and nothing else.
    pub(super) fn replace(
        &mut self,
        on: &Subject,
        call: &Call,
        old: &Value,
        mut new: Value,
        tracking: Tracking,
    ) -> Result<Done, Refusal> {
        if on.on_status {
            new = with_status_of(old, &new);
        } else if on.version.has_status {
            new = with_spec_of(old, new);
        }
        carry_over(on, old, &mut new);
        admission::fill_defaults(&on.kind, &on.version, &mut new);
        if on.kind.traits.has_generation && !on.on_status && spec_differs(on, old, &new) {
            let generation = old["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
            set_meta(&mut new, "generation", Some(generation.into()));
        }
        self.track(on, call, old, &mut new, tracking);
        self.check(on, &new, Some(old))?;
        check_finalizers(on, old, &new)?;
        if object::same_but_for_revision(old, &new) {
            return Ok(Done::ok(on.present(old)));
        }
        if is_terminating(&new) && finalizers(&new).is_empty() && !call.is_dry_run() {
            self.erase(&on.kind, &on.key());
            return Ok(Done::ok(on.present(&new)));
        }
        let stored = self.keep(on, call, new)?;
        Ok(Done::ok(on.present(&stored)))
    }

    /// Notes who owns which field. A CRD's thousands of fields have one owner and are left out.
    fn track(&self, on: &Subject, call: &Call, old: &Value, new: &mut Value, tracking: Tracking) {
        if on.kind.kind == "CustomResourceDefinition" {
            return;
        }
        let managers = match tracking {
            Tracking::Done(managers) => managers,
            Tracking::Update => {
                let mut managers = Managers::of(old);
                let (api_version, time) = (on.kind.api_version(&on.version.name), self.clock.stamp());
                managers.record_update(
                    manager(on, call, false),
                    (&api_version, &time),
                    (old, new),
                    &on.version.schema,
                );
                managers
            }
        };
        set_meta(new, "managedFields", Some(managers.encode()));
    }

    /// Stores an object that was admitted.
    fn keep(&mut self, on: &Subject, call: &Call, mut object: Value) -> Result<Value, Refusal> {
        if on.kind.kind == "CustomResourceDefinition" {
            let refused = |error| Refusal::bad_request(chain(&error));
            crate::crds::accept(&mut object, &self.clock);
            if !call.is_dry_run() {
                self.kinds.install(&object).map_err(refused)?;
            }
        }
        if call.is_dry_run() {
            return Ok(object);
        }
        let key = Key::new(on.namespace.as_deref().unwrap_or_default(), &on.name);
        let stored = self.store.put(&on.kind.key, key, object);
        Ok(Value::clone(&stored))
    }

    fn check(&self, on: &Subject, object: &Value, old: Option<&Value>) -> Result<(), Refusal> {
        let causes = admission::check(&on.kind, &on.version, self.leniency, object, old);
        if causes.is_empty() {
            return Ok(());
        }
        Err(Refusal::invalid(&on.kind, &on.name, &causes))
    }

    /// Objects are made only in namespaces that exist and stay.
    fn check_namespace(&self, on: &Subject) -> Result<(), Refusal> {
        let Some(namespace) = &on.namespace else {
            return Ok(());
        };
        let kind = self.kinds.find("", "namespaces");
        let kind = kind.expect("namespaces are built in");
        match self.store.get(&kind.key, &Key::new("", namespace)) {
            None => Err(Refusal::not_found(kind, namespace)),
            Some(found) if is_terminating(found) => {
                let words = format!(
                    "unable to create new content in namespace {namespace} because it is being terminated"
                );
                Err(Refusal::forbidden(&on.kind, &on.name, &words))
            }
            Some(_) => Ok(()),
        }
    }
}

fn parse(call: &Call, body: &[u8]) -> Result<Value, Refusal> {
    if !matches!(call.content_type.split(';').next(), Some("" | "application/json") | None) {
        return Err(Refusal::unsupported_media_type(&call.content_type, &["application/json"]));
    }
    let object: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the object provided is unrecognized: {error}")))?;
    if !object.is_object() {
        return Err(Refusal::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    Ok(object)
}

/// The body must be of the kind, name and namespace of the path; what it leaves out is filled in.
pub(super) fn check_identity(on: &Subject, object: &mut Value) -> Result<(), Refusal> {
    let api_version = on.kind.api_version(&on.version.name);
    for (field, expected) in [("apiVersion", &api_version), ("kind", &on.kind.kind)] {
        let given = object[field].as_str().unwrap_or_default();
        if given.is_empty() {
            object[field] = expected.clone().into();
        } else if given != expected {
            return Err(Refusal::bad_request(format!(
                "the {field} in the data ({given}) does not match the expected {field} ({expected})"
            )));
        }
    }
    let name = meta(object, "name");
    if !on.name.is_empty() && !name.is_empty() && name != on.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            on.name
        )));
    }
    if !on.name.is_empty() {
        set_meta(object, "name", Some(on.name.clone().into()));
    }
    let namespace = meta(object, "namespace");
    match &on.namespace {
        Some(expected) if !namespace.is_empty() && namespace != expected => Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
        Some(expected) => {
            set_meta(object, "namespace", Some(expected.clone().into()));
            Ok(())
        }
        None => {
            set_meta(object, "namespace", None);
            Ok(())
        }
    }
}

/// `fieldValidation=Strict` refuses what is otherwise dropped.
pub(super) fn refuse_unknown(call: &Call, unknown: &[String]) -> Result<(), Refusal> {
    if unknown.is_empty() || call.param("fieldValidation") != Some("Strict") {
        return Ok(());
    }
    let list: Vec<String> = unknown.iter().map(|field| format!("unknown field \"{field}\"")).collect();
    Err(Refusal::bad_request(format!("strict decoding error: {}", list.join(", "))))
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
