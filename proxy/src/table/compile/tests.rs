//! The compiler against a reference that knows no indices, and against itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proxy_config::backend::Endpoint;
use proxy_config::listener::{Address, Protocol};
use proxy_config::route::{PathMatch, Target};
use proxy_config::set::UnitSet;

use super::*;
use crate::table::request::{Refusal, RequestView};
use crate::table::slot::Slot;
use crate::upstream::balance::Backend;

mod certificates;
mod reference;
pub(crate) mod world;

use reference::Reference;
use world::{Request, backend, endpoints, listener, route, rule};

const NODE: [u8; 4] = [127, 0, 0, 2];

fn compiler() -> Compiler {
    Compiler::new(NODE.into(), Arc::default(), Metrics::new(1))
}

fn version() -> Version {
    Version { term: 1, generation: 1 }
}

fn compile(units: &UnitSet) -> (Arc<Table>, Compiler) {
    let mut compiler = compiler();
    let table = compiler.apply(units.iter(), [], version(), units.root());
    (table, compiler)
}

fn set(units: impl IntoIterator<Item = (UnitId, Unit)>) -> UnitSet {
    units.into_iter().map(|(id, unit)| EncodedUnit::new(id, &unit)).collect()
}

/// What takes a request: the route, the index of its rule, and what its prefix took.
type Answer = Result<(UnitId, usize, usize), Refusal>;

fn answer(table: &Table, request: &Request) -> Answer {
    let local = SocketAddr::from((NODE, request.port));
    let port = table.port(local).ok_or(Refusal::NotFound)?;
    let routed = port.route(request, None)?;
    Ok((routed.route.id.clone(), routed.rule, routed.matched))
}

/// All that a table holds, as text, without the numbers of its slots.
fn dump(table: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    for (address, port) in &table.ports {
        lines.push(format!("{address} {:?}", port.protocol));
        let names: BTreeMap<_, _> = port.hostnames.iter().collect();
        for (name, place) in names {
            let listener = &port.listeners[place];
            lines.push(format!("{:?} {} {}", name, listener.id, listener.certificates.len()));
            let streams: BTreeMap<_, _> = listener.names.iter().collect();
            lines.extend(streams.into_iter().map(|(key, route)| format!("  {key:?} {route}")));
            let hosts: BTreeMap<_, _> = listener.hosts.iter().collect();
            for (key, paths) in hosts {
                lines.push(format!("  {:?}", String::from_utf8_lossy(key)));
                lines.extend(paths.dump().into_iter().map(|line| format!("    {line}")));
            }
        }
    }
    lines
}

/// The endpoints of every backend that a route names.
fn dump_backends(compiler: &Compiler, table: &Table, units: &UnitSet) -> Vec<String> {
    let mut lines = Vec::new();
    for unit in units.iter() {
        let Ok(Unit::Route(route)) = unit.decode() else { continue };
        for target in route.rules.iter().flat_map(|rule| &rule.backends).map(|backend| &backend.target) {
            let Target::Backend(id) = target else { continue };
            let slot: Option<Slot> = compiler.backends.slot(id);
            let backend = slot.and_then(|slot| table.backend_of_passthrough(slot));
            let is_reachable = slot.is_some_and(|slot| table.backend(slot).is_some());
            lines.push(format!("{id} can be reached: {is_reachable}"));
            lines.push(match backend {
                Some(backend) => {
                    let addresses = |list: &[Arc<crate::upstream::registry::Endpoint>]| {
                        list.iter().map(|endpoint| endpoint.address()).collect::<Vec<_>>()
                    };
                    let (ready, fallback) = (addresses(&backend.ready), addresses(&backend.fallback));
                    let proving = backend.ready.iter().chain(&backend.fallback).map(|e| &e.key().tls);
                    let proving: BTreeSet<_> = proving.map(|peer| format!("{peer:?}")).collect();
                    let secure = backend.is_secure();
                    format!("{id} is {} {ready:?} {fallback:?} {proving:?} {secure}", backend.id)
                }
                None => format!("{id} is none"),
            });
        }
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn routing_is_what_the_specification_says(world in world::world(), requests in world::requests()) {
        let units = set(world.clone());
        let (table, _) = compile(&units);
        let reference = Reference::of(&world, NODE.into());
        for request in &requests {
            prop_assert_eq!(answer(&table, request), reference.answer(request), "{:?}", request);
        }
    }

    #[test]
    fn of_matches_that_all_hold_the_most_specific_and_oldest_takes_it(
        world in world::close_world(),
        requests in world::close_requests(),
    ) {
        let (table, _) = compile(&set(world.clone()));
        let reference = Reference::of(&world, NODE.into());
        for request in &requests {
            prop_assert_eq!(answer(&table, request), reference.answer(request), "{:?}", request);
        }
    }

    #[test]
    fn applying_changes_one_by_one_gives_what_compiling_the_whole_gives(
        steps in prop::collection::vec(world::world(), 1..6),
        requests in world::requests(),
    ) {
        let mut step_by_step = compiler();
        let mut units = UnitSet::default();
        for world in steps {
            let next = set(world);
            let (put, delete) = next.diff(&units);
            let table = step_by_step.apply(&put, &delete, version(), next.root());
            let (fresh, whole) = compile(&next);
            prop_assert_eq!(dump(&table), dump(&fresh));
            prop_assert_eq!(
                dump_backends(&step_by_step, &table, &next),
                dump_backends(&whole, &fresh, &next)
            );
            prop_assert_eq!(
                step_by_step.broken().collect::<Vec<_>>(),
                whole.broken().collect::<Vec<_>>()
            );
            for request in &requests {
                prop_assert_eq!(answer(&table, request), answer(&fresh, request));
            }
            units = next;
        }
    }

    #[test]
    fn a_unit_that_can_not_be_read_changes_no_other_answer(
        world in world::world(),
        victim in any::<prop::sample::Index>(),
        requests in world::requests(),
    ) {
        let victim = victim.get(&world).0.clone();
        let mut without = set(world.clone());
        without.apply([], [victim.clone()]);
        let mut damaged = set(world);
        damaged.apply([unreadable(&victim)], []);
        let (damaged, compiler) = compile(&damaged);
        prop_assert!(compiler.broken().any(|broken| broken.unit == victim));
        let (without, _) = compile(&without);
        for request in &requests {
            prop_assert_eq!(answer(&damaged, request), answer(&without, request));
        }
        prop_assert_eq!(dump(&damaged), dump(&without));
    }
}

fn unreadable(id: &UnitId) -> EncodedUnit {
    let body: Arc<serde_json::value::RawValue> =
        serde_json::value::RawValue::from_string(r#"{"neverHeardOf":{}}"#.to_owned()).unwrap().into();
    let hash = proxy_config::unit::ContentHash::of(id, body.get());
    EncodedUnit { id: id.clone(), hash, body }
}

#[test]
fn a_panic_over_one_unit_is_a_reason() {
    assert_eq!(guarded(|| panic!("at {}", 7)), Err("the proxy panicked over it: at 7".to_owned()));
    assert_eq!(guarded(|| {}), Ok(()));
}

fn get(host: &str, path: &str) -> Request {
    Request { port: 80, host: host.into(), path: path.into(), ..Request::default() }
}

#[test]
fn a_rule_whose_filter_can_not_be_applied_answers_500_and_its_neighbours_serve() {
    use proxy_config::route::{Field, Filter, HeaderEdits};
    let edits = HeaderEdits {
        set: vec![Field { name: "not a name".into(), value: "x".into() }],
        ..HeaderEdits::default()
    };
    let mut bad = rule(PathMatch::Prefix("/bad".into()), Some("cart"));
    bad.filters.push(Filter::RequestHeaders(edits));
    let good = rule(PathMatch::Prefix("/good".into()), Some("cart"));
    let units = set([listener("web", 80, None), route("r", 1, &["web"], &[], vec![bad, good])]);
    let (table, compiler) = compile(&units);
    let port = table.port((NODE, 80).into()).unwrap();
    let rule = |path| port.route(&get("a.example", path), None).unwrap();
    assert!(rule("/bad").rule().invalid.is_some());
    assert!(rule("/good").rule().invalid.is_none());
    let broken: Vec<Broken> = compiler.broken().collect();
    assert!(broken[0].reason.contains("not a name"), "{broken:?}");
}

#[test]
fn a_match_whose_expression_can_not_be_compiled_takes_nothing() {
    let bad = rule(PathMatch::Regex("(".into()), Some("cart"));
    let good = rule(PathMatch::Prefix("/".into()), Some("cart"));
    let units = set([listener("web", 80, None), route("r", 1, &["web"], &[], vec![bad, good])]);
    let (table, compiler) = compile(&units);
    assert_eq!(answer(&table, &get("a.example", "/x")).unwrap().1, 1);
    assert_eq!(compiler.broken().count(), 1);
}

/// A request that counts how often it is looked at.
struct Counted {
    request: Request,
    looks: std::cell::Cell<usize>,
}

impl RequestView for Counted {
    fn method(&self) -> &[u8] {
        self.request.method()
    }
    fn host(&self) -> &[u8] {
        self.request.host()
    }
    fn path(&self) -> &[u8] {
        self.request.path()
    }
    fn query(&self) -> &[u8] {
        self.request.query()
    }
    fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
        self.looks.set(self.looks.get() + 1);
        self.request.header(name)
    }
}

#[test]
fn a_request_costs_the_same_among_one_route_and_among_thousands() {
    let looks = |others: u32| {
        let on = |path: String| {
            let mut rule = rule(PathMatch::Prefix(path), None);
            let value = proxy_config::route::ValuePattern::Exact("1".into());
            rule.matches[0].headers.push(proxy_config::route::ValueMatch { name: "x-a".into(), value });
            vec![rule]
        };
        let mut world =
            vec![listener("web", 80, None), route("mine", 1, &["web"], &["a.x"], on("/a".into()))];
        for n in 0..others {
            let (host, path) = (format!("h{n}.x"), format!("/p{n}"));
            world.push(route(&format!("host{n}"), 0, &["web"], &[&host], on("/a".into())));
            world.push(route(&format!("path{n}"), 0, &["web"], &["a.x"], on(path)));
        }
        let (table, _) = compile(&set(world));
        let request = Request { headers: vec![("x-a", "1")], ..get("a.x", "/a/b/c") };
        let request = Counted { request, looks: Default::default() };
        let routed = table.port((NODE, 80).into()).unwrap().route(&request, None).unwrap();
        assert_eq!(&*routed.route.name.name, "mine");
        request.looks.get()
    };
    assert_eq!((looks(0), looks(2_000)), (1, 1));
}

#[test]
fn endpoints_that_change_rebuild_no_route_and_keep_what_stays() {
    let rules = vec![rule(PathMatch::Prefix("/".into()), Some("cart"))];
    let world = [
        listener("web", 80, None),
        route("r", 1, &["web"], &[], rules),
        backend("cart"),
        endpoints("cart", "1", &[1, 2]),
    ];
    let units = set(world);
    let (before, mut compiler) = compile(&units);
    let (id, slice) = endpoints("cart", "1", &[2, 3]);
    let after = compiler.apply([&EncodedUnit::new(id, &slice)], [], version(), units.root());
    let routed = |table: &Table| {
        let port = table.port((NODE, 80).into()).unwrap();
        port.route(&get("a.example", "/"), None).unwrap().route
    };
    assert!(Arc::ptr_eq(&routed(&before), &routed(&after)));
    let slot = *routed(&after).rules[0].backends[0].target.as_ref().unwrap();
    let (old, new) = (before.backend(slot).unwrap(), after.backend(slot).unwrap());
    assert!(Arc::ptr_eq(&old.ready[1], &new.ready[0]), "the endpoint that stays keeps its state");
    assert!(Arc::ptr_eq(&old.state, &new.state), "the backend keeps its turn");
}

/// One of a hundred slices of a Service, each with a hundred endpoints.
fn of_many(slice: u8) -> (UnitId, Unit) {
    let (id, Unit::Endpoints(mut unit)) = endpoints("cart", &slice.to_string(), &[1]) else {
        panic!("a slice")
    };
    let one = unit.endpoints.remove(0);
    let address = |host| Endpoint { address: [10, 1, slice, host].into(), ..one.clone() };
    unit.endpoints = (0..100).map(address).collect();
    (id, Unit::Endpoints(unit))
}

#[test]
fn of_ten_thousand_endpoints_each_has_its_turn_and_a_slice_that_goes_takes_only_its_own() {
    let rules = vec![rule(PathMatch::Prefix("/".into()), Some("cart"))];
    let world = [listener("web", 80, None), route("r", 1, &["web"], &[], rules), backend("cart")];
    let units = set(world.into_iter().chain((0..100).map(of_many)));
    let (before, mut compiler) = compile(&units);
    let after = compiler.apply([], [&of_many(7).0], version(), units.root());
    let slot = compiler.backends.slot(&backend("cart").0).unwrap();
    let [all, left] = [&before, &after].map(|table| table.backend(slot).unwrap());
    let turn = |backend: &Backend| -> BTreeMap<SocketAddr, Arc<_>> {
        let picked = (0..backend.ready.len()).map(|_| backend.pick(&[]).unwrap());
        picked.map(|endpoint| (endpoint.address(), Arc::clone(endpoint))).collect()
    };
    let (all, left) = (turn(all), turn(left));
    assert_eq!((all.len(), left.len()), (10_000, 9_900), "each is taken once");
    for (address, endpoint) in &all {
        let kept = left.get(address).is_some_and(|left| Arc::ptr_eq(left, endpoint));
        assert_eq!(kept, !address.to_string().starts_with("10.1.7."), "{address}");
    }
}

#[test]
fn a_change_touches_only_what_depends_on_it() {
    let rules = || vec![rule(PathMatch::Prefix("/".into()), None)];
    let names = ["one.example", "two.example"];
    let world = [
        listener("web", 80, None),
        listener("other", 81, None),
        route("one", 1, &["web"], &names[..1], rules()),
        route("two", 1, &["web"], &names[1..], rules()),
        route("three", 1, &["other"], &[], rules()),
    ];
    let units = set(world);
    let (before, mut compiler) = compile(&units);
    let (id, changed) = route("one", 2, &["web"], &names[..1], rules());
    let after = compiler.apply([&EncodedUnit::new(id, &changed)], [], version(), units.root());
    let paths = |table: &Table, name: &str| {
        Arc::clone(table.ports[&(NODE, 80).into()].listeners[0].hosts.get(name.as_bytes()).unwrap())
    };
    assert!(!Arc::ptr_eq(&paths(&before, names[0]), &paths(&after, names[0])));
    assert!(Arc::ptr_eq(&paths(&before, names[1]), &paths(&after, names[1])));
    let other = (NODE, 81).into();
    assert!(Arc::ptr_eq(&before.ports[&other], &after.ports[&other]));
}

#[test]
fn of_two_listeners_that_can_not_share_a_port_one_is_broken() {
    let (id, mut https) = listener("b", 80, Some("x.example"));
    if let Unit::Listener(listener) = &mut https {
        listener.protocol = Protocol::Https;
    }
    let world = [listener("a", 80, None), (id.clone(), https), listener("c", 80, None)];
    let (table, compiler) = compile(&set(world));
    let broken: Vec<UnitId> = compiler.broken().map(|broken| broken.unit).collect();
    assert_eq!(broken, [id, listener("c", 80, None).0]);
    assert_eq!(table.binds().collect::<Vec<_>>(), [(Bind::tcp((NODE, 80).into()), Protocol::Http)]);
}

#[test]
fn a_listener_is_bound_at_all_of_its_addresses_and_broken_where_one_of_them_is_taken() {
    let (first, second): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
    let at = |name, hostname, addresses: &[IpAddr]| {
        let (id, unit) = listener(name, 80, hostname);
        let Unit::Listener(mut unit) = unit else { panic!("a listener") };
        unit.bind.address = Address::Ip(addresses[0]);
        unit.further = addresses[1..].iter().copied().map(Address::Ip).collect();
        (id, Unit::Listener(unit))
    };
    let rules = vec![rule(PathMatch::Prefix("/".into()), None)];
    let world = set([at("b", None, &[first, second]), route("r", 1, &["b"], &["x.example"], rules)]);
    let (table, mut compiler) = compile(&world);
    let binds = |table: &Table| table.binds().map(|(bind, _)| bind.address).collect::<Vec<_>>();
    assert_eq!(binds(&table), [(first, 80).into(), (second, 80).into()]);
    for address in binds(&table) {
        assert!(table.ports[&address].listeners[0].hosts.get(b"x.example").is_some(), "{address}");
    }

    // Another one has the second address: the first one stays served, and what is wrong stays known when that
    // is all that changes.
    let (id, other) = at("a", None, &[second]);
    compiler.apply([&EncodedUnit::new(id.clone(), &other)], [], version(), world.root());
    let broken = |compiler: &Compiler| compiler.broken().map(|broken| broken.unit).collect::<Vec<_>>();
    assert_eq!(broken(&compiler), [at("b", None, &[first]).0]);
    let (third, beside) = at("c", Some("c.example"), &[first]);
    compiler.apply([&EncodedUnit::new(third, &beside)], [], version(), world.root());
    assert_eq!(broken(&compiler), [at("b", None, &[first]).0]);

    let table = compiler.apply([], [&id], version(), world.root());
    assert_eq!(broken(&compiler), []);
    assert_eq!(binds(&table), [(first, 80).into(), (second, 80).into()]);
}

#[test]
fn a_listener_that_lost_its_hostname_stays_out_when_its_routes_change() {
    let all =
        |name, listener| route(name, 1, &[listener], &[], vec![rule(PathMatch::Prefix("/".into()), None)]);
    let first = set([listener("a", 80, None), listener("b", 80, None), all("winner", "a")]);
    let (_, mut compiler) = compile(&first);
    let (id, unit) = all("loser", "b");
    let table = compiler.apply([&EncodedUnit::new(id, &unit)], [], version(), first.root());
    let (winner, ..) = answer(&table, &get("x.example", "/")).unwrap();
    assert_eq!(winner, all("winner", "a").0);
    // Once the other one is gone, it serves.
    let table = compiler.apply([], [&listener("a", 80, None).0], version(), first.root());
    let (loser, ..) = answer(&table, &get("x.example", "/")).unwrap();
    assert_eq!(loser, all("loser", "b").0);
    assert_eq!(compiler.broken().count(), 0);
}

#[test]
fn a_slot_that_is_used_again_is_not_taken_for_the_old_one() {
    let rules = |backend| vec![rule(PathMatch::Prefix("/".into()), Some(backend))];
    let web = listener("web", 80, None);
    let first = set([web.clone(), route("r", 1, &["web"], &[], rules("a")), backend("a"), backend("b")]);
    let (before, mut compiler) = compile(&first);
    let port = before.port((NODE, 80).into()).unwrap();
    let old = port.route(&get("x.example", "/"), None).unwrap();
    let old_slot = *old.rule().backends[0].target.as_ref().unwrap();
    // First the route goes, then another one comes, which gets the place that was freed.
    let (id, _) = route("r", 1, &["web"], &[], rules("a"));
    compiler.apply([], [&id], version(), first.root());
    let (id, unit) = route("s", 1, &["web"], &[], rules("b"));
    let after = compiler.apply([&EncodedUnit::new(id, &unit)], [], version(), first.root());
    assert!(after.backend(old_slot).is_none(), "a stranger's backend");
    assert!(before.backend(old_slot).is_some());
}

#[test]
fn endpoints_that_are_too_old_are_let_go_unless_they_prove_who_they_are() {
    let rules = ["cart", "pay"].map(|name| rule(PathMatch::Prefix(format!("/{name}")), Some(name)));
    let units = set([
        listener("web", 80, None),
        route("r", 1, &["web"], &[], rules.to_vec()),
        world::authority("one", &world::BUNDLES[0]),
        backend("cart"),
        world::secured("pay", Some(world::verified("pay.example", &["one"]))),
        endpoints("cart", "1", &[1, 2]),
        endpoints("pay", "1", &[3]),
    ]);
    let (_, mut compiler) = compile(&units);
    let count = |table: &Table, compiler: &Compiler| {
        ["cart", "pay"].map(|name| {
            let slot = compiler.backends.slot(&backend(name).0).unwrap();
            table.backend(slot).unwrap().ready.len()
        })
    };
    let without = compiler.without_endpoints(true);
    assert_eq!(count(&without, &compiler), [0, 1]);
    let with = compiler.without_endpoints(false);
    assert_eq!(count(&with, &compiler), [2, 1]);
}

#[test]
fn a_bundle_that_changes_makes_other_endpoints_and_one_that_goes_makes_the_backend_unreachable() {
    let rules = vec![rule(PathMatch::Prefix("/".into()), Some("pay"))];
    let all = |bundle: Option<&String>| {
        let bundle = bundle.map(|bundle| world::authority("one", bundle));
        let pay = world::secured("pay", Some(world::verified("pay.example", &["one"])));
        let others = [listener("web", 80, None), route("r", 1, &["web"], &[], rules.clone()), pay];
        set(others.into_iter().chain([endpoints("pay", "1", &[3])]).chain(bundle))
    };
    let (mut compiler, mut units) = (compiler(), UnitSet::default());
    let mut served = |bundle: Option<&String>| {
        let next = all(bundle);
        let (put, delete) = next.diff(&units);
        let table = compiler.apply(&put, &delete, version(), next.root());
        units = next;
        let slot = compiler.backends.slot(&backend("pay").0).unwrap();
        (table.backend(slot).map(|backend| Arc::clone(&backend.ready[0])), compiler.broken().count())
    };
    let [one, other] = [0, 1].map(|which| Some(&world::BUNDLES[which]));
    let (first, _) = served(one);
    let (second, _) = served(other);
    let first = first.unwrap();
    assert_eq!(first.address(), second.as_ref().unwrap().address());
    assert_ne!(first.key(), second.unwrap().key());
    let (gone, broken) = served(None);
    assert_eq!((gone.is_none(), broken), (true, 1));
    let (again, broken) = served(one);
    assert!(Arc::ptr_eq(&again.unwrap(), &first), "what is still in use is found again");
    assert_eq!(broken, 0);
}
