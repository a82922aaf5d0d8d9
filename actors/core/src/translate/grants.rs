//! ReferenceGrants: whether an object may refer to one in another namespace.
//!
//! Source: Gateway API ReferenceGrant: group, kind and namespace of the referrer, group, kind and
//! (where given) name of the target must be equal; grants add up; there are no wildcards.

use proxy_config::name::ObjectName;

use crate::snapshot::meta::GATEWAY_GROUP;

use super::reader::Reader;

/// Who refers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referrer<'a> {
    /// Its kind, of Gateway API.
    pub(super) kind: &'a str,
    /// Its namespace.
    pub(super) namespace: &'a str,
}

/// Whether a core object of a kind may be referred to. Within a namespace always.
pub(super) fn permits(reader: &Reader<'_>, from: Referrer<'_>, kind: &str, target: &ObjectName) -> bool {
    from.namespace == &*target.namespace
        || reader.grants(&target.namespace).any(|grant| {
            let from_matches = grant.from.iter().any(|source| {
                source.group == GATEWAY_GROUP
                    && source.kind == from.kind
                    && source.namespace == from.namespace
            });
            let to_matches = grant.to.iter().any(|to| {
                to.group.is_empty()
                    && to.kind == kind
                    && to.name.as_deref().is_none_or(|name| name == &*target.name)
            });
            from_matches && to_matches
        })
}
