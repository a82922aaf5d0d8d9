//! What an object must satisfy to be stored: its type or schema, and the rules of its kind.
//!
//! Owns nothing. Called by the write path between decoding and storing. It refuses to change anything but defaults.

mod builtin;
mod names;
mod rules;

use serde_json::Value;

pub(crate) use rules::Rules;

use crate::{
    kinds::{Kind, Version},
    refusal::{Cause, Refusal},
};

/// What the sandbox lets through that a real API server does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leniency {
    /// EndpointSlices may hold loopback addresses: the demo's backends listen there.
    pub(crate) loopback_endpoints: bool,
}

/// Decodes a body: drops what its type or schema does not know, and answers the dropped paths.
pub(crate) fn decode(kind: &Kind, version: &Version, object: &mut Value) -> Result<Vec<String>, Refusal> {
    let unreadable = |error: String| {
        Refusal::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {error}",
            kind.kind, version.name, kind.kind
        ))
    };
    match kind.traits.decode {
        Some(decode) => {
            builtin::check_times(&kind.kind, object).map_err(unreadable)?;
            *object = decode(object).map_err(unreadable)?;
            Ok(Vec::new())
        }
        None => {
            names::check_metadata_types(&object["metadata"]).map_err(unreadable)?;
            Ok(version.schema.prune(object))
        }
    }
}

/// Fills in what a client may leave out.
pub(crate) fn fill_defaults(kind: &Kind, version: &Version, object: &mut Value) {
    if kind.is_custom() {
        version.schema.fill_defaults(object);
    } else {
        builtin::fill_defaults(&kind.kind, object);
    }
}

/// Everything an object is refused for, replacing `old`.
pub(crate) fn check(
    kind: &Kind,
    version: &Version,
    leniency: Leniency,
    object: &Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    let mut causes = names::check(kind, object);
    if !kind.is_custom() {
        causes.extend(builtin::check(&kind.qualified_kind(), leniency, object));
        return causes;
    }
    causes.extend(version.schema.check(object, ""));
    if causes.iter().any(blocks_rules) {
        causes.push(Cause::rules_unchecked());
    } else {
        causes.extend(version.rules.check(object, old));
    }
    causes
}

/// Rules are not evaluated on values of wrong types or sizes.
fn blocks_rules(cause: &Cause) -> bool {
    [
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    ]
    .contains(&cause.reason)
}
