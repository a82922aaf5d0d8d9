//! Owns: the edge where raw objects become compact ones.
//! Called by the watchers and by the reader of files. One object that can't be read, or that makes its
//! reader panic, is reported and kept apart; it never stops the others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actors_core::observe::{Malformed, observe};
use actors_core::snapshot::meta::{Kind, ObjectRef};
use proxy_config::name::ObjectName;
use serde_json::Value;

use super::stores::{ObjectVersion, Observed, Stores};

/// Which object a raw one is.
pub fn reference(kind: Kind, raw: &Value) -> ObjectRef {
    let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    ObjectRef::new(kind, ObjectName::new(text("/metadata/namespace"), text("/metadata/name")))
}

/// What is used of a raw object. A version that was malformed before is not read again.
pub fn convert(stores: &Stores, kind: Kind, raw: &Value) -> Observed {
    let reference = reference(kind, raw);
    let text = |path: &str| raw.pointer(path).and_then(Value::as_str).unwrap_or_default().into();
    let version =
        ObjectVersion { uid: text("/metadata/uid"), resource_version: text("/metadata/resourceVersion") };
    let generation = raw.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    let status = raw.get("status").filter(|_| kind.has_status()).map(|status| status.to_string().into());
    let object = match stores.is_quarantined(&reference, &version) {
        Some(malformed) => Err(Malformed::clone(&malformed)),
        None => guarded(kind, raw, |raw| observe(kind, raw)),
    };
    if let Err(malformed) = &object {
        let message = malformed.message();
        tracing::warn!(object = %reference, %message, "an object can't be read: it is left out");
    }
    Observed { reference, version, generation, status, object }
}

/// Reads an object; a panic is a fault of the object.
fn guarded<T>(
    kind: Kind,
    raw: &Value,
    read: impl FnOnce(&Value) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    catch_unwind(AssertUnwindSafe(|| read(raw))).unwrap_or_else(|panic| {
        let what = (panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        let reason = format!("reading it failed inside the controller ({what}): please report this");
        Err(Malformed::new(kind, raw, "", reason))
    })
}

/// The status of an object as text, parsed; null where there is none.
pub fn parse_status(status: Option<&Arc<str>>) -> Value {
    status.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_panic_while_reading_is_a_fault_of_the_object() {
        let raw = json!({"metadata": {"name": "r", "namespace": "ns", "uid": "u"}});
        let read: Result<(), _> = guarded(Kind::HttpRoute, &raw, |_| panic!("boom"));
        let malformed = read.unwrap_err();
        assert_eq!(malformed.reference.to_string(), "HTTPRoute ns/r");
        assert!(malformed.reason.contains("boom"), "{}", malformed.reason);
    }

    #[test]
    fn a_malformed_object_is_named_with_its_field() {
        let raw = json!({"metadata": {"name": "g", "namespace": "ns"}, "spec": {"gatewayClassName": 7}});
        let observed = convert(&Stores::new([]), Kind::Gateway, &raw);
        let malformed = observed.object.unwrap_err();
        assert_eq!(&*malformed.field, "spec.gatewayClassName");
    }
}
