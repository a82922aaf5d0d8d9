//! What the API answers instead of an object: `metav1.Status`, worded as the real API server words it.
//!
//! Owns nothing. Called by everything that can refuse. It refuses to know why: each constructor is one reason of
//! apimachinery's `api/errors`.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// One field that an object was refused for (`metav1.StatusCause`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The path of the field: `spec.rules[0].matches[1].path.value`.
    pub field: String,
    /// The machine-readable reason: `FieldValueRequired`, `FieldValueInvalid` ...
    pub reason: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueRequired", format!("Required value{}", colon(detail)))
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {}{}", shown(value), colon(detail));
        Self::new(field, "FieldValueInvalid", message)
    }

    /// A value of another JSON type than its schema's.
    pub(crate) fn wrong_type(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {}{}", go_kind(value), colon(detail));
        Self::new(field, "FieldValueTypeInvalid", message)
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &Value, known: &[Value]) -> Self {
        let known: Vec<String> = known.iter().map(shown).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), known.join(", "));
        Self::new(field, "FieldValueNotSupported", message)
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", shown(value));
        Self::new(field, "FieldValueDuplicate", message)
    }

    pub(crate) fn too_long(field: impl Into<String>, most: u64) -> Self {
        let message = format!("Too long: may not be more than {most} bytes");
        Self::new(field, "FieldValueTooLong", message)
    }

    pub(crate) fn too_many(field: impl Into<String>, actual: usize, most: u64) -> Self {
        let message = format!("Too many: {actual}: must have at most {most} items");
        Self::new(field, "FieldValueTooMany", message)
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(field, "FieldValueForbidden", format!("Forbidden{}", colon(detail)))
    }

    /// A broken CEL rule.
    pub(crate) fn rule(field: &str, reason: &'static str, message: &str) -> Self {
        Self::new(field, reason, format!("Invalid value: {message}"))
    }

    /// Follows what keeps CEL rules from being checked.
    pub(crate) fn rules_unchecked() -> Self {
        const WORDS: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        Self::invalid("<nil>", &Value::Null, WORDS)
    }

    fn new(field: impl Into<String>, reason: &'static str, message: String) -> Self {
        Self { field: field.into(), reason, message }
    }
}

fn colon(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => value.to_string(),
        Value::Null => "null".to_owned(),
        scalar => scalar.to_string(),
    }
}

/// Go's word for the type of a JSON value, as OpenAPI validation prints it.
fn go_kind(value: &Value) -> String {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    format!("\"{kind}\"")
}

/// A refused request: the code of the HTTP answer and the Status in it.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: StatusCode,
    reason: &'static str,
    message: String,
    details: Map<String, Value>,
    /// Seconds, for the Retry-After header.
    pub(crate) retry_after: Option<u64>,
    /// An unknown path is answered in plain text.
    plain: bool,
    /// `metadata.continue` of the Status: how a list that expired may go on.
    continuation: Option<String>,
}

impl Refusal {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Map::new(),
            retry_after: None,
            plain: false,
            continuation: None,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        if !name.is_empty() {
            self.details.insert("name".to_owned(), name.into());
        }
        if !kind.key.group.is_empty() {
            let group = kind.key.group.clone();
            self.details.insert("group".to_owned(), group.into());
        }
        let plural = kind.key.plural.clone();
        self.details.insert("kind".to_owned(), plural.into());
        self
    }

    pub(crate) fn unknown_path() -> Self {
        Self { plain: true, ..Self::new(StatusCode::NOT_FOUND, "NotFound", "404 page not found\n") }
    }

    /// A path below a group that is served, to no resource of it.
    pub(crate) fn unknown_resource() -> Self {
        const MESSAGE: &str = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", MESSAGE)
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified_plural());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified_plural());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, detail: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {detail}", kind.qualified_plural());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// A precondition of a deletion that does not hold: it names the kind, not the resource.
    pub(crate) fn precondition(kind: &Kind, name: &str, detail: &str) -> Self {
        let mut refusal = Self::conflict(kind, name, detail);
        refusal.details.insert("kind".to_owned(), kind.kind.clone().into());
        refusal
    }

    /// A write whose `resourceVersion` is not the current one.
    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        const DETAIL: &str =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, DETAIL)
    }

    /// A server-side apply that would take fields from `others`: (manager, field).
    pub(crate) fn apply_conflict(others: &[(String, String)]) -> Self {
        let count = others.len();
        let list: Vec<String> =
            others.iter().map(|(manager, field)| format!("conflict with \"{manager}\": {field}")).collect();
        let plural = if count == 1 { "conflict" } else { "conflicts" };
        let message = format!("Apply failed with {count} {plural}: {}", list.join("; "));
        let causes: Vec<Value> = others
            .iter()
            .map(|(manager, field)| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": format!("conflict with \"{manager}\""),
                    "field": field,
                })
            })
            .collect();
        let mut refusal = Self::new(StatusCode::CONFLICT, "Conflict", message);
        refusal.details.insert("causes".to_owned(), causes.into());
        refusal
    }

    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let lines: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let list = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", kind.qualified_kind());
        let mut refusal = Self::unprocessable(message).about(kind, name);
        refusal.details.insert("kind".to_owned(), kind.kind.clone().into());
        refusal.with_causes(causes)
    }

    /// A replacement that names no revision, of a kind that needs one.
    pub(crate) fn needs_revision(kind: &Kind, name: &str) -> Self {
        let words = "must be specified for an update";
        let cause = Cause::invalid("metadata.resourceVersion", &0.into(), words);
        Self::invalid(kind, name, &[cause]).about(kind, name)
    }

    /// Options of a request that contradict each other.
    pub(crate) fn invalid_options(options: &str, causes: &[Cause]) -> Self {
        let lines: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let message = format!("{options}.meta.k8s.io \"\" is invalid: {}", lines.join(", "));
        let mut refusal = Self::unprocessable(message);
        refusal.details.insert("group".to_owned(), "meta.k8s.io".into());
        refusal.details.insert("kind".to_owned(), options.into());
        refusal.with_causes(causes)
    }

    fn with_causes(mut self, causes: &[Cause]) -> Self {
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field}))
            .collect();
        self.details.insert("causes".to_owned(), causes.into());
        self
    }

    /// A body that does not decode is another refusal when a patch made it, of a built-in kind.
    pub(crate) fn of_patch(self, kind: &Kind) -> Self {
        if kind.is_custom() {
            return self;
        }
        let cause = Cause::invalid("patch", &Value::Null, &self.message);
        Self::unprocessable(self.message).with_causes(&[cause])
    }

    /// A new object that names a revision; the real one has no reason for it.
    pub(crate) fn versioned_creation() -> Self {
        const WORDS: &str = "resourceVersion should not be set on objects to be created";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", WORDS)
    }

    /// A JSON patch that does not apply, and the like.
    pub(crate) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, detail: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {detail}", kind.qualified_plural());
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(kind, name)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A watch that asks for history which is no longer kept.
    pub(crate) fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// A page of a list whose revision is no longer kept.
    pub(crate) fn expired_page(continuation: String) -> Self {
        const MESSAGE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
        Self { continuation: Some(continuation), ..Self::expired(MESSAGE) }
    }

    /// A read that asks for a revision which has not happened yet.
    pub(crate) fn too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut refusal = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        refusal.details.insert("causes".to_owned(), json!([cause]));
        refusal.details.insert("retryAfterSeconds".to_owned(), 1.into());
        refusal.retry_after = Some(1);
        refusal
    }

    pub(crate) fn method_not_allowed() -> Self {
        const MESSAGE: &str = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", MESSAGE)
    }

    pub(crate) fn unsupported_media_type(given: &str, known: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}: got {given}",
            known.join(", ")
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 429 of API priority and fairness.
    pub(crate) fn too_many_requests(retry_after: u64) -> Self {
        const MESSAGE: &str = "Too many requests, please try again later.";
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", MESSAGE);
        refusal.details.insert("retryAfterSeconds".to_owned(), retry_after.into());
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// A server's error of any 5xx code.
    pub(crate) fn server_error(code: StatusCode, message: impl Into<String>) -> Self {
        let reason = match code {
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::GATEWAY_TIMEOUT => "Timeout",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }

    /// The media type and the bytes of the answer.
    pub(crate) fn body(&self) -> (&'static str, String) {
        if self.plain {
            return ("text/plain; charset=utf-8", self.message.clone());
        }
        ("application/json", self.status().to_string())
    }

    /// The Status itself, also sent inside a watch's ERROR event.
    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(continuation) = &self.continuation {
            status["metadata"]["continue"] = continuation.clone().into();
        }
        if !self.details.is_empty() {
            status["details"] = Value::Object(self.details.clone());
        }
        status
    }
}
