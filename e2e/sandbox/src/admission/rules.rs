//! The CEL rules of a schema (`x-kubernetes-validations`).
//!
//! Owns the compiled rules of one version of a kind. Called when the schema itself has nothing to refuse. It refuses to
//! guess: a rule that the evaluator does not know is reported in the log and lets the object pass; the README lists them.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::Value;

use crate::refusal::Cause;

/// Compiled when the first object is checked: a route's rules take longer to compile than most tests run.
#[derive(Clone)]
pub(crate) struct Rules {
    document: Arc<Value>,
    compiled: Arc<OnceLock<CompiledSchema>>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Rules").finish_non_exhaustive()
    }
}

impl Rules {
    /// The rules of an `openAPIV3Schema`.
    pub(crate) fn of(document: &Value) -> Self {
        Self { document: Arc::new(document.clone()), compiled: Arc::default() }
    }

    /// Of a kind that has none.
    pub(crate) fn none() -> Self {
        Self::of(&Value::Null)
    }

    /// The rules that `object` breaks, replacing `old`.
    pub(crate) fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        if self.document.is_null() {
            return Vec::new();
        }
        let compiled = self.compiled.get_or_init(|| compile_schema(&self.document));
        let Err(errors) = Validator::new().validate_compiled(compiled, object, old) else {
            return Vec::new();
        };
        errors.into_vec().iter().filter_map(cause).collect()
    }
}

fn cause(error: &ValidationError) -> Option<Cause> {
    // A rule that fails to evaluate, for a field that is not there, refuses the object as one that is false.
    if !matches!(error.kind, ErrorKind::ValidationFailure | ErrorKind::EvaluationError) {
        tracing::warn!(rule = error.rule, field = error.field_path, %error, "CEL rule not evaluated");
        return None;
    }
    let reason = match error.reason.as_deref() {
        Some("FieldValueForbidden") => "FieldValueForbidden",
        Some("FieldValueRequired") => "FieldValueRequired",
        Some("FieldValueDuplicate") => "FieldValueDuplicate",
        _ => "FieldValueInvalid",
    };
    Some(Cause::rule(&error.field_path, reason, &error.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Channel;

    fn errors(schema: &CompiledSchema) -> Vec<String> {
        let mut found: Vec<String> =
            schema.compilation_errors().iter().map(|error| error.to_string()).collect();
        let parts = schema.properties.values().chain(schema.items.as_deref());
        let parts = parts.chain(schema.additional_properties.as_deref());
        let parts = parts.chain(&schema.all_of).chain(&schema.any_of).chain(&schema.one_of);
        found.extend(parts.flat_map(errors));
        found
    }

    #[test]
    fn every_rule_of_the_gateway_api_compiles() {
        for crd in [Channel::Standard, Channel::Experimental].into_iter().flat_map(Channel::objects) {
            for version in crd["spec"]["versions"].as_array().unwrap() {
                let compiled = compile_schema(&version["schema"]["openAPIV3Schema"]);
                let found = errors(&compiled);
                assert!(found.is_empty(), "{} {}: {found:#?}", crd["metadata"]["name"], version["name"]);
            }
        }
    }
}
