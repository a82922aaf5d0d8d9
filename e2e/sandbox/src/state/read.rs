//! GET and LIST, with the meanings of `resourceVersion` and paging.
//!
//! Owns nothing. Called for reads. It refuses to follow changes: see `watch`.

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Done, State, Subject};
use crate::{
    call::{Call, Form},
    object::{self, Key},
    refusal::{Cause, Refusal},
    selector::Selector,
    store::Objects,
};

/// Where a page ends: the continue token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    revision: u64,
    after: Key,
}

impl Page {
    fn encode(&self) -> String {
        let text =
            json!({"v": "sandbox", "rv": self.revision, "ns": self.after.namespace, "name": self.after.name});
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text.to_string())
    }

    fn decode(token: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
        let text: Value = serde_json::from_slice(&bytes).ok()?;
        Some(Self {
            revision: text["rv"].as_u64()?,
            after: Key::new(text["ns"].as_str()?, text["name"].as_str()?),
        })
    }
}

impl State {
    /// GET of one object; `stale` reads it as it was at an older revision, but at none before the one that is asked for.
    pub(crate) fn get(&self, on: &Subject, call: &Call, stale: Option<u64>) -> Result<Done, Refusal> {
        let asked = call.number("resourceVersion")?;
        self.not_too_large(asked)?;
        let stale = stale.map(|revision| revision.max(asked.unwrap_or(0)));
        let found = match stale.and_then(|revision| self.store.at(&on.kind.key, revision).ok()) {
            Some(then) => then.get(&on.key()).cloned(),
            None => self.store.get(&on.kind.key, &on.key()).cloned(),
        };
        let found = found.ok_or_else(|| Refusal::not_found(&on.kind, &on.name))?;
        Ok(Done::ok(shaped(on, call.form, &found)))
    }

    /// LIST; `stale` reads it as it was at an older revision.
    pub(crate) fn list(&self, on: &Subject, call: &Call, stale: Option<u64>) -> Result<Done, Refusal> {
        let selector = Selector::read(call, &on.kind)?;
        let page = self.page(call)?;
        let (revision, objects) = self.snapshot(on, call, page.as_ref(), stale)?;
        let all: Vec<_> = objects
            .iter()
            .filter(|(key, _)| in_namespace(on, key))
            .filter(|(key, _)| page.as_ref().is_none_or(|page| **key > page.after))
            .filter(|(_, object)| selector.matches(object))
            .collect();
        let shown = call.limit()?.unwrap_or(all.len()).min(all.len());
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let Some((last, _)) = all[..shown].last().filter(|_| shown < all.len()) {
            let after = Key::clone(last);
            metadata["continue"] = Page { revision, after }.encode().into();
            if selector.is_empty() {
                metadata["remainingItemCount"] = (all.len() - shown).into();
            }
        }
        let items: Vec<Value> =
            all[..shown].iter().map(|(_, object)| listed(on, call.form, object)).collect();
        let (kind, api_version) = match call.form {
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            Form::Whole => (on.kind.list_kind.clone(), on.kind.api_version(&on.version.name)),
        };
        Ok(Done::ok(json!({
            "kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items,
        })))
    }

    fn page(&self, call: &Call) -> Result<Option<Page>, Refusal> {
        let Some(token) = call.param("continue") else {
            return Ok(None);
        };
        if call.param("resourceVersion").is_some_and(|revision| revision != "0") {
            return Err(Refusal::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let page = Page::decode(token)
            .ok_or_else(|| Refusal::bad_request("continue key is not valid: it was not made here"))?;
        if page.revision < self.store.oldest() {
            let after = page.after;
            let revision = self.store.revision();
            return Err(Refusal::expired_page(Page { revision, after }.encode()));
        }
        Ok(Some(page))
    }

    /// The objects that a list reads, and their revision.
    fn snapshot(
        &self,
        on: &Subject,
        call: &Call,
        page: Option<&Page>,
        stale: Option<u64>,
    ) -> Result<(u64, Objects), Refusal> {
        let asked = call.number("resourceVersion")?;
        let exact = is_exact(call, asked)?;
        self.not_too_large(asked)?;
        let exact = asked.filter(|revision| exact && *revision > 0);
        let revision = page.map(|page| page.revision).or(exact);
        let revision = revision.unwrap_or_else(|| {
            let oldest = self.store.oldest();
            stale.map_or(self.store.revision(), |stale| stale.max(oldest))
        });
        let objects = self.store.at(&on.kind.key, revision);
        let objects =
            objects.map_err(|_| Refusal::expired("The resourceVersion for the provided list is too old."))?;
        Ok((revision, objects))
    }

    fn not_too_large(&self, asked: Option<u64>) -> Result<(), Refusal> {
        let current = self.store.revision();
        match asked {
            Some(asked) if asked > current => Err(Refusal::too_large(asked, current)),
            _ => Ok(()),
        }
    }
}

/// Whether a list is of one revision and no other (`resourceVersionMatch`).
fn is_exact(call: &Call, asked: Option<u64>) -> Result<bool, Refusal> {
    const FIELD: &str = "resourceVersionMatch";
    let refuse = |cause: Cause| Err(Refusal::invalid_options("ListOptions", &[cause]));
    match (call.param(FIELD), asked) {
        (None, _) => Ok(call.limit()?.is_some()),
        (Some("Exact" | "NotOlderThan"), None) => refuse(Cause::forbidden(
            FIELD,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        )),
        (Some("Exact"), Some(0)) => refuse(Cause::forbidden(
            FIELD,
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        (Some(given), _) if given == "Exact" || given == "NotOlderThan" => Ok(given == "Exact"),
        (Some(other), _) => {
            refuse(Cause::not_supported(FIELD, &other.into(), &["Exact".into(), "NotOlderThan".into()]))
        }
    }
}

pub(crate) fn in_namespace(on: &Subject, key: &Key) -> bool {
    on.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
}

/// One object in the form that was asked for.
pub(crate) fn shaped(on: &Subject, form: Form, object: &Value) -> Value {
    match form {
        Form::Whole => on.present(object),
        Form::Metadata => object::metadata_only(object),
    }
}

/// An item of a list: those of built-in kinds go without their type.
fn listed(on: &Subject, form: Form, object: &Value) -> Value {
    let mut item = shaped(on, form, object);
    if form == Form::Whole
        && !on.kind.is_custom()
        && let Some(map) = item.as_object_mut()
    {
        map.remove("kind");
        map.remove("apiVersion");
    }
    item
}
