//! ReferenceGrants: whether an object may refer to one in another namespace.
//!
//! Source: Gateway API ReferenceGrant: group, kind and namespace of the referrer, group, kind and
//! (where given) name of the target must be equal; grants add up; there are no wildcards.

use proxy_config::name::ObjectName;

use crate::snapshot::meta::Kind;

use super::reader::Reader;

/// Who refers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referrer<'a> {
    /// Its kind.
    pub(super) kind: Kind,
    /// Its namespace.
    pub(super) namespace: &'a str,
}

/// Whether an object of a kind may be referred to. Within a namespace always.
pub(super) fn permits(reader: &Reader<'_>, from: Referrer<'_>, kind: Kind, target: &ObjectName) -> bool {
    from.namespace == &*target.namespace
        || reader.grants(&target.namespace).any(|grant| {
            let from_matches = grant.from.iter().any(|source| {
                source.group == from.kind.group()
                    && source.kind == from.kind.as_str()
                    && source.namespace == from.namespace
            });
            let to_matches = grant.to.iter().any(|to| {
                to.group == kind.group()
                    && to.kind == kind.as_str()
                    && to.name.as_deref().is_none_or(|name| name == &*target.name)
            });
            from_matches && to_matches
        })
}
