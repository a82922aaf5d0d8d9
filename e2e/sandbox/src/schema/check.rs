//! Validation of an object against its schema, each fault with the field that it is in.
//!
//! Owns nothing. Called after pruning and defaulting. It refuses to stop at the first fault.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{ListType, Schema, Type, fill::join};
use crate::refusal::Cause;

impl Schema {
    /// Everything wrong with `value`; `path` is where it stands.
    pub(crate) fn check(&self, value: &Value, path: &str) -> Vec<Cause> {
        let mut causes = Vec::new();
        self.check_into(value, path, &mut causes);
        causes
    }

    fn check_into(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if value.is_null() && self.nullable {
            return;
        }
        if let Some(expected) = self.wrong_type(value) {
            let detail = format!("{path} in body must be of type {expected}");
            causes.push(Cause::wrong_type(path, value, &detail));
            return;
        }
        if !self.choices.is_empty() && !self.choices.contains(value) {
            causes.push(Cause::not_supported(path, value, &self.choices));
        }
        match value {
            Value::String(text) => self.check_text(text, value, path, causes),
            Value::Number(number) => {
                let number = number.as_f64().unwrap_or_default();
                self.check_number(number, value, path, causes);
            }
            Value::Array(items) => self.check_list(items, value, path, causes),
            Value::Object(_) => self.check_map(value, path, causes),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_combined(value, path, causes);
    }

    /// The type it should have had.
    fn wrong_type(&self, value: &Value) -> Option<&'static str> {
        if self.int_or_string {
            return (!value.is_string() && !is_integer(value)).then_some("integer");
        }
        let expected = self.kind?;
        let fits = match expected {
            Type::Object => value.is_object(),
            Type::Array => value.is_array(),
            Type::String => value.is_string(),
            Type::Integer => is_integer(value),
            Type::Number => value.is_number(),
            Type::Boolean => value.is_boolean(),
        };
        (!fits).then_some(expected.name())
    }

    fn check_text(&self, text: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let length = text.chars().count() as u64;
        if let Some(most) = self.max_length.filter(|most| length > *most) {
            causes.push(Cause::too_long(path, most));
        }
        if let Some(least) = self.min_length.filter(|least| length < *least) {
            let detail = format!("{path} in body should be at least {least} chars long");
            causes.push(Cause::invalid(path, value, &detail));
        }
        if let Some(pattern) = self.pattern.as_ref().filter(|p| !p.is_match(text)) {
            let detail = format!("{path} in body should match '{}'", pattern.text);
            causes.push(Cause::invalid(path, value, &detail));
        }
        if let Some(format) = self.format.as_deref().filter(|f| !has_format(text, f)) {
            let detail = format!("{path} in body must be of type {format}: {value}");
            causes.push(Cause::wrong_type(path, value, &detail));
        }
    }

    fn check_number(&self, number: f64, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let mut refuse = |words: &str, limit: f64| {
            let detail = format!("{path} in body should be {words} {limit}");
            causes.push(Cause::invalid(path, value, &detail));
        };
        if let Some(least) = self.minimum {
            if self.exclusive_minimum && number <= least {
                refuse("greater than", least);
            } else if number < least {
                refuse("greater than or equal to", least);
            }
        }
        if let Some(most) = self.maximum {
            if self.exclusive_maximum && number >= most {
                refuse("less than", most);
            } else if number > most {
                refuse("less than or equal to", most);
            }
        }
        let range = match self.format.as_deref() {
            Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
            _ => None,
        };
        if range.is_some_and(|(least, most)| number < least || number > most) {
            let detail = format!("{path} in body must be of type int32: {value}");
            causes.push(Cause::invalid(path, value, &detail));
        }
    }

    fn check_list(&self, items: &[Value], value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let count = items.len();
        if let Some(most) = self.max_items.filter(|most| count as u64 > *most) {
            causes.push(Cause::too_many(path, count, most));
        }
        if let Some(least) = self.min_items.filter(|least| (count as u64) < *least) {
            let detail = format!("{path} in body should have at least {least} items");
            causes.push(Cause::invalid(path, value, &detail));
        }
        if let Some(schema) = &self.items {
            for (index, item) in items.iter().enumerate() {
                schema.check_into(item, &format!("{path}[{index}]"), causes);
            }
        }
        let mut seen = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(identity) = self.list.identity(item) else {
                break;
            };
            if seen.contains(&identity) {
                causes.push(Cause::duplicate(format!("{path}[{index}]"), &identity));
            } else {
                seen.push(identity);
            }
        }
    }

    fn check_map(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let Some(map) = value.as_object() else { return };
        for field in &self.required {
            if map.get(field).is_none_or(Value::is_null) {
                causes.push(Cause::required(join(path, field), ""));
            }
        }
        let count = map.len();
        if let Some(most) = self.max_properties.filter(|most| count as u64 > *most) {
            causes.push(Cause::too_many(path, count, most));
        }
        if let Some(least) = self.min_properties.filter(|least| (count as u64) < *least) {
            let detail = format!("{path} in body should have at least {least} properties");
            causes.push(Cause::invalid(path, value, &detail));
        }
        for (name, inner) in map {
            if let Some(schema) = self.properties.get(name) {
                let skipped = inner.is_null() && self.required.contains(name);
                if !skipped {
                    schema.check_into(inner, &join(path, name), causes);
                }
            } else if let Some(schema) = &self.additional {
                schema.check_into(inner, &join(path, name), causes);
            }
        }
    }

    fn check_combined(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        for schema in &self.all_of {
            schema.check_into(value, path, causes);
        }
        let fits = |schema: &&Self| schema.check(value, path).is_empty();
        // Of alternatives that all fail, the faults of the best are told.
        let alternatives = self.any_of.iter().map(|schema| schema.check(value, path));
        causes.extend(alternatives.min_by_key(Vec::len).into_iter().flatten());
        if !self.one_of.is_empty() && self.one_of.iter().filter(fits).count() != 1 {
            let detail = format!("{path} in body must validate one and only one schema (oneOf)");
            causes.push(Cause::invalid(path, value, &detail));
        }
        if self.not.as_deref().is_some_and(|schema| fits(&schema)) {
            let detail = format!("{path} in body must not validate the schema (not)");
            causes.push(Cause::invalid(path, value, &detail));
        }
    }
}

impl ListType {
    /// What may occur once in the list; `None` where anything may repeat.
    pub(crate) fn identity(&self, item: &Value) -> Option<Value> {
        match self {
            Self::Atomic => None,
            Self::Set => Some(item.clone()),
            Self::Map(keys) => Some(Value::Object(
                keys.iter()
                    .filter_map(|key| {
                        let value = item.get(&key.name).or(key.default.as_ref())?;
                        Some((key.name.clone(), value.clone()))
                    })
                    .collect(),
            )),
        }
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

/// The formats that occur in the CRDs we install; others are not checked, as the real one does not.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(schema: Value, value: Value, expected: &[(&str, &str)]) {
        let schema = Schema::read(&schema).unwrap();
        let causes = schema.check(&value, "f");
        let found: Vec<(&str, &str)> =
            causes.iter().map(|cause| (cause.field.as_str(), cause.reason)).collect();
        assert_eq!(found, expected, "{causes:?}");
    }

    #[test]
    fn each_keyword_refuses_and_names_the_field() {
        check(json!({"type": "integer"}), json!("1"), &[("f", "FieldValueTypeInvalid")]);
        check(json!({"type": "string"}), Value::Null, &[("f", "FieldValueTypeInvalid")]);
        check(json!({"type": "string", "nullable": true}), Value::Null, &[]);
        check(json!({"type": "string", "enum": ["a"]}), json!("b"), &[("f", "FieldValueNotSupported")]);
        check(json!({"type": "string", "pattern": "^a+$"}), json!("b"), &[("f", "FieldValueInvalid")]);
        check(json!({"type": "string", "maxLength": 1}), json!("bb"), &[("f", "FieldValueTooLong")]);
        check(json!({"type": "string", "minLength": 1}), json!(""), &[("f", "FieldValueInvalid")]);
        check(
            json!({"type": "string", "format": "date-time"}),
            json!("now"),
            &[("f", "FieldValueTypeInvalid")],
        );
        check(json!({"type": "integer", "minimum": 1}), json!(0), &[("f", "FieldValueInvalid")]);
        check(json!({"type": "integer", "maximum": 9}), json!(10), &[("f", "FieldValueInvalid")]);
        check(
            json!({"type": "integer", "format": "int32"}),
            json!(1_u64 << 40),
            &[("f", "FieldValueInvalid")],
        );
        check(json!({"type": "array", "maxItems": 1}), json!([1, 2]), &[("f", "FieldValueTooMany")]);
        check(json!({"type": "array", "minItems": 1}), json!([]), &[("f", "FieldValueInvalid")]);
        check(json!({"type": "object", "required": ["a"]}), json!({}), &[("f.a", "FieldValueRequired")]);
        check(json!({"type": "object", "maxProperties": 0}), json!({"a": 1}), &[("f", "FieldValueTooMany")]);
        check(json!({"x-kubernetes-int-or-string": true}), json!(true), &[("f", "FieldValueTypeInvalid")]);
        check(json!({"x-kubernetes-int-or-string": true}), json!("50%"), &[]);
        check(
            json!({"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
            json!("::g"),
            &[("f", "FieldValueTypeInvalid")],
        );
        check(
            json!({"oneOf": [{"minLength": 1}, {"minLength": 2}]}),
            json!("aa"),
            &[("f", "FieldValueInvalid")],
        );
        check(json!({"not": {"enum": ["a"]}}), json!("a"), &[("f", "FieldValueInvalid")]);
    }

    #[test]
    fn keys_of_a_map_list_are_unique() {
        let schema = json!({
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}},
        });
        let twice = json!([{"name": "a", "port": 1}, {"name": "a", "port": 2}, {"name": "a", "port": 1}]);
        check(schema, twice, &[("f[2]", "FieldValueDuplicate")]);
    }
}
