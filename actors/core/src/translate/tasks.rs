//! The tasks: which one an object calls for, what each runs, and what becomes of one that panics.

use proxy_config::name::ObjectName;

use crate::snapshot::meta::{Kind, ObjectRef};

use super::addresses::pool;
use super::derived::{Losers, Result as Derivation};
use super::emission::Emission;
use super::graph::{Key, Task};
use super::reader::Reader;
use super::{
    Problem, authorities, backends, certificates, classes, external, gateway_status, gateways, listener_sets,
    listeners, policies, policy_status, routes, set_status, traffic,
};

/// The task that speaks about an object, whether or not anything has read it.
pub(super) fn first_task(object: &ObjectRef) -> Task {
    let ObjectRef { kind, name } = object;
    let name = name.clone();
    match kind {
        Kind::GatewayClass => Task::Class(name),
        Kind::Gateway => Task::Ask(name),
        Kind::ListenerSet => Task::Claims(object.clone()),
        kind if kind.is_route() => Task::Route(object.clone()),
        Kind::EndpointSlice => Task::Endpoints(name),
        Kind::BackendTlsPolicy => Task::Policy(name),
        Kind::BackendTrafficPolicy => Task::Traffic(name),
        Kind::Backend => Task::External(name),
        Kind::Secret | Kind::ConfigMap => Task::Content(object.clone()),
        _ => Task::Malformed(object.clone()),
    }
}

/// The object without which a task has nothing to say; it is its first task that brings it back.
pub(super) fn subject(task: &Task) -> Option<ObjectRef> {
    let of = |kind, name: &ObjectName| Some(ObjectRef::new(kind, name.clone()));
    match task {
        Task::Class(name) => of(Kind::GatewayClass, name),
        Task::Claims(object)
        | Task::Listeners(object)
        | Task::Route(object)
        | Task::Content(object)
        | Task::Malformed(object) => Some(object.clone()),
        Task::Policy(name) | Task::PolicyStatus(name) => of(Kind::BackendTlsPolicy, name),
        Task::Traffic(name) | Task::TrafficStatus(name) => of(Kind::BackendTrafficPolicy, name),
        Task::External(name) => of(Kind::Backend, name),
        Task::ListenerSetStatus(name) => of(Kind::ListenerSet, name),
        Task::Ask(name) | Task::GatewayStatus(name) => of(Kind::Gateway, name),
        Task::Endpoints(name) => of(Kind::EndpointSlice, name),
        Task::NodeAddresses | Task::Pool | Task::Port(_) | Task::Backend(_) => None,
    }
}

/// The key of all objects that are read together with this one.
pub(super) fn wide_key(reference: &ObjectRef) -> Key {
    match reference.kind {
        Kind::ReferenceGrant => Key::Grants(reference.name.namespace.clone()),
        Kind::CustomResourceDefinition => Key::Crds,
        _ => Key::Object(reference.clone()),
    }
}

/// Runs a task.
pub(super) fn run(reader: &Reader<'_>, task: &Task) -> (Derivation, Emission) {
    let said = |emission| (Derivation::Nothing, emission);
    match task {
        Task::NodeAddresses => {
            let addresses = reader.find_node_addresses();
            (Derivation::NodeAddresses(addresses), Emission::default())
        }
        Task::Class(name) => classes::translate(reader, name),
        Task::Ask(name) => (Derivation::Ask(gateways::ask(reader, name)), Emission::default()),
        Task::Pool => (Derivation::Pool(pool::allocate(reader.asks())), Emission::default()),
        Task::Claims(ObjectRef { kind: Kind::ListenerSet, name }) => {
            (listener_sets::claim(reader, name), Emission::default())
        }
        Task::Claims(gateway) => (gateways::claim(reader, &gateway.name), Emission::default()),
        Task::Port(port) => (listeners::share(reader, port), Emission::default()),
        Task::Listeners(holder) => listeners::settle(reader, holder),
        Task::Route(route) => routes::translate(reader, route),
        Task::ListenerSetStatus(name) => set_status::translate(reader, name),
        Task::GatewayStatus(name) => said(gateway_status::translate(reader, name)),
        Task::Policy(name) => (policies::translate(reader, name), Emission::default()),
        Task::PolicyStatus(name) => said(policy_status::translate(reader, name)),
        Task::Traffic(name) => (traffic::translate(reader, name), Emission::default()),
        Task::TrafficStatus(name) => said(traffic::status(reader, name)),
        Task::External(name) => external::translate(reader, name),
        Task::Content(object) => said(content(reader, object)),
        Task::Backend(port) => said(backends::emit_backend(reader, port)),
        Task::Endpoints(slice) => said(backends::emit_endpoints(reader, slice)),
        Task::Malformed(reference) => said(malformed(reader, reference)),
    }
}

/// The units of a Secret or ConfigMap whose content is wanted.
fn content(reader: &Reader<'_>, object: &ObjectRef) -> Emission {
    let mut emission = Emission::of(object.clone());
    emission.problems.extend(reader.malformed(object).map(Problem::malformed));
    certificates::emit(reader, object, &mut emission);
    authorities::emit(reader, object, &mut emission);
    emission
}

/// What is said about an object that can't be read and has no status of ours.
fn malformed(reader: &Reader<'_>, reference: &ObjectRef) -> Emission {
    let mut emission = Emission::of(reference.clone());
    emission.problems.extend(reader.malformed(reference).map(Problem::malformed));
    emission
}

/// What is made of an object whose translation panicked.
pub(super) fn panicked(reader: &Reader<'_>, task: &Task) -> (Derivation, Emission) {
    const MESSAGE: &str = "an error of Portreeve's own: this object can't be translated, please report it";
    let problem = Problem { field: String::new(), reason: "Panicked", message: MESSAGE.into() };
    match task {
        Task::Claims(ObjectRef { kind: Kind::ListenerSet, name }) => {
            let set = reader.listener_set(name).found();
            let claims =
                set.and_then(|set| listener_sets::failed(reader, &set.meta, &set.spec.parent_ref, MESSAGE));
            (Derivation::Claims(claims.map(Box::new)), Emission::default())
        }
        Task::Claims(gateway) => {
            let gateway = reader.gateway(&gateway.name).found();
            let ours = gateway
                .filter(|gateway| gateways::class_of(reader, &gateway.spec.gateway_class_name).is_some());
            let claims = ours.map(|gateway| gateways::failed(&gateway.meta, MESSAGE));
            (Derivation::Claims(claims.map(Box::new)), Emission::default())
        }
        Task::Route(route) => match reader.route(route) {
            Some(Ok(written)) => {
                let (meta, parents) = (written.meta(), written.parents());
                let mut failed = routes::failed(reader, route.kind, meta, parents, MESSAGE);
                failed.1.problems.push(problem);
                failed
            }
            _ => (Derivation::Route(None), Emission::default()),
        },
        Task::ListenerSetStatus(_) => (Derivation::ListenerSet(None), Emission::default()),
        Task::Ask(_) => (Derivation::Ask(None), Emission::default()),
        Task::Class(_) => (Derivation::Class(None), Emission::default()),
        Task::Port(_) => (Derivation::Port(Losers::new()), Emission::default()),
        Task::Listeners(_) => (Derivation::Listeners(None), Emission::default()),
        Task::Policy(_) => (Derivation::Policy(None), Emission::default()),
        Task::Traffic(_) => (Derivation::Traffic(None), Emission::default()),
        Task::External(name) => external::failed(reader, name, problem),
        Task::Content(object) => {
            let mut emission = Emission::of(object.clone());
            emission.problems.push(problem);
            (Derivation::Nothing, emission)
        }
        _ => (Derivation::Nothing, Emission::default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::observe;
    use crate::snapshot::Snapshot;
    use crate::status::{ConditionStatus, StatusContent};
    use crate::translate::derived::Derived;
    use crate::translate::{Settings, Translator};

    #[test]
    fn an_object_whose_translation_panics_is_taken_out_and_says_so() {
        let settings = Settings::default();
        let mut snapshot = Snapshot::default();
        let class =
            json!({ "metadata": { "name": "us" }, "spec": { "controllerName": settings.controller_name } });
        let gateway = json!({
            "metadata": { "name": "edge", "namespace": "shop" },
            "spec": { "gatewayClassName": "us", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] },
        });
        let route = json!({
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "parentRefs": [{ "name": "edge" }] },
        });
        snapshot.put(observe(Kind::GatewayClass, &class));
        snapshot.put(observe(Kind::Gateway, &gateway));
        snapshot.put(observe(Kind::HttpRoute, &route));
        let mut translator = Translator::new(settings);
        translator.update(&snapshot);
        let reader = Reader::new(&translator.settings, &snapshot, &translator.derived);

        let route = ObjectRef::new(Kind::HttpRoute, ObjectName::new("shop", "cart"));
        let (result, emission) = panicked(&reader, &Task::Route(route));
        assert!(matches!(result, Derivation::Route(None)) && emission.units.is_empty());
        assert_eq!(emission.problems[0].reason, "Panicked");
        let Some(StatusContent::Route { parents, .. }) = emission.status.map(|status| status.content) else {
            panic!("a route's status")
        };
        assert_eq!(parents[0].conditions[0].status, ConditionStatus::False);

        let (result, _) =
            panicked(&reader, &Task::Claims(ObjectRef::new(Kind::Gateway, ObjectName::new("shop", "edge"))));
        let Derivation::Claims(Some(claims)) = result else { panic!("claims: {result:?}") };
        assert!(!claims.is_accepted() && claims.ports().is_empty());

        let nothing = Derived::default();
        let strange = Reader::new(&translator.settings, &snapshot, &nothing);
        let (result, _) =
            panicked(&strange, &Task::Claims(ObjectRef::new(Kind::Gateway, ObjectName::new("shop", "edge"))));
        assert!(matches!(result, Derivation::Claims(None)), "a Gateway that is not ours stays so");
    }
}
