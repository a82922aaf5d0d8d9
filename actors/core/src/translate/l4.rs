//! Routes of streams and datagrams: TLSRoute, TCPRoute, UDPRoute. They have backends, and nothing to match
//! or to edit.

use crate::snapshot::l4_route::L4Route;
use crate::snapshot::meta::{Kind, ObjectRef};

use super::backends;
use super::conditions::Fault;
use super::reader::Reader;
use super::rules::Rules;

/// Translates the rule of such a route; the schema allows one.
pub(super) fn translate(reader: &Reader<'_>, kind: Kind, route: &L4Route) -> Rules {
    let mut all = Rules::default();
    let object = ObjectRef::new(kind, route.meta.name.clone());
    let [rule] = &route.spec.rules[..] else {
        let message = format!("spec.rules holds {} rules: write exactly one", route.spec.rules.len());
        all.unusable = Some(Fault::new("UnsupportedValue", message));
        return all;
    };
    let scope = backends::Scope { reader, route: &object, rule: 0 };
    let mut fault = None;
    all.targets = backends::translate(&scope, &rule.backend_refs, &mut all, &mut fault);
    for target in &mut all.targets {
        // The schema has no filters here; one that is there all the same must not be taken for served.
        target.filters.clear();
    }
    all.unusable = fault;
    all
}
