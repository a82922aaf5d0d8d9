//! Who gets which address, whatever is held, named or gone.

use std::collections::BTreeSet;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn ask(ranges: &[&str]) -> Ask {
    let ranges = ranges.iter().map(|range| Range::parse(range).unwrap()).collect();
    Ask { ranges, created: 0, named: Vec::new(), unnamed: 1, held: Vec::new() }
}

fn naming(ranges: &[&str], named: &[&str]) -> Ask {
    Ask { named: named.iter().map(|text| ip(text)).collect(), unnamed: 0, ..ask(ranges) }
}

fn allocated(asks: &[(&str, Ask)]) -> BTreeMap<ObjectName, Allocation> {
    allocate(&asks.iter().map(|(gateway, ask)| (name(gateway), Arc::new(ask.clone()))).collect())
}

fn reason(allocation: &Allocation) -> &'static str {
    allocation.as_ref().unwrap_err().reason
}

#[test]
fn each_gateway_gets_its_own_address_until_all_are_taken() {
    let asks: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, ask(&["192.0.2.0/29"]))).into();
    let made = allocated(&asks);
    let given: BTreeSet<_> = made.values().flatten().flatten().collect();
    assert_eq!(given.len(), 6, "{made:?}");
    assert_eq!(reason(&made[&name("g")]), "AddressNotAssigned", "the youngest, by name, gets none");
}

#[test]
fn the_next_range_is_used_when_one_is_full() {
    let ranges = ["192.0.2.1/32", "2001:db8::/64"];
    let made = allocated(&[("a", ask(&ranges)), ("b", ask(&ranges))]);
    assert_eq!(made[&name("a")], Ok(vec![ip("192.0.2.1")]));
    assert!(made[&name("b")].as_ref().unwrap()[0].is_ipv6());
}

#[test]
fn who_holds_an_address_keeps_it_from_older_gateways_and_from_those_that_name_it() {
    let range = ["192.0.2.0/30"];
    let holder = Ask { created: 9, held: vec![ip("192.0.2.2")], ..ask(&range) };
    let made =
        allocated(&[("any", ask(&range)), ("holder", holder), ("names-it", naming(&range, &["192.0.2.2"]))]);
    assert_eq!(made[&name("holder")], Ok(vec![ip("192.0.2.2")]));
    assert_eq!(made[&name("any")], Ok(vec![ip("192.0.2.1")]));
    assert_eq!(reason(&made[&name("names-it")]), "AddressNotUsable");
}

#[test]
fn an_address_is_kept_though_the_name_leads_to_another() {
    let holder = Ask { held: vec![ip("10.0.200.1")], ..ask(&["10.0.0.0/16"]) };
    assert_eq!(allocated(&[("a", holder)])[&name("a")], Ok(vec![ip("10.0.200.1")]));
}

#[test]
fn who_wants_several_gets_as_many_and_who_wants_fewer_gives_up_the_rest() {
    let range = ["192.0.2.0/30"];
    let made = allocated(&[("a", Ask { unnamed: 2, ..ask(&range) })]);
    let both = made[&name("a")].clone().unwrap();
    assert_eq!(both.iter().collect::<BTreeSet<_>>().len(), 2, "{both:?}");

    let made = allocated(&[("a", Ask { held: both.clone(), ..ask(&range) }), ("b", ask(&range))]);
    assert_eq!(made[&name("a")], Ok(vec![both[0]]));
    assert_eq!(made[&name("b")], Ok(vec![both[1]]));
}

#[test]
fn of_two_that_hold_one_address_the_older_keeps_it() {
    let held = |created| Ask { created, held: vec![ip("192.0.2.1")], ..ask(&["192.0.2.0/30"]) };
    let made = allocated(&[("a", held(2)), ("b", held(1))]);
    assert_eq!(made[&name("b")], Ok(vec![ip("192.0.2.1")]));
    assert_eq!(made[&name("a")], Ok(vec![ip("192.0.2.2")]));
}

#[test]
fn what_is_named_is_given_before_the_rest_and_with_as_many_more_as_wanted() {
    let range = ["192.0.2.0/30"];
    let both = Ask { created: 5, unnamed: 1, ..naming(&range, &["192.0.2.1"]) };
    let made = allocated(&[("old", Ask { unnamed: 1, ..ask(&range) }), ("both", both)]);
    assert_eq!(reason(&made[&name("both")]), "AddressNotAssigned", "the older takes the last one");
    assert_eq!(made[&name("old")], Ok(vec![ip("192.0.2.2")]));

    let several = Ask { unnamed: 1, ..naming(&range, &["192.0.2.2"]) };
    assert_eq!(allocated(&[("a", several)])[&name("a")], Ok(vec![ip("192.0.2.2"), ip("192.0.2.1")]));
}

#[test]
fn a_gateway_that_names_a_foreign_address_gets_nothing_and_holds_up_nobody() {
    let range = ["192.0.2.0/30"];
    let held = vec![ip("192.0.2.1")];
    let foreign = Ask { held, ..naming(&range, &["192.0.2.1", "198.51.100.1"]) };
    let made = allocated(&[("a", foreign), ("b", Ask { created: 1, ..naming(&range, &["192.0.2.1"]) })]);
    assert_eq!(reason(&made[&name("a")]), "AddressNotUsable");
    assert_eq!(made[&name("b")], Ok(vec![ip("192.0.2.1")]));
}

#[test]
fn an_address_outside_of_changed_ranges_is_given_up() {
    let moved = Ask { held: vec![ip("192.0.2.1")], ..ask(&["198.51.100.0/30"]) };
    let given = allocated(&[("a", moved)])[&name("a")].clone().unwrap();
    assert!(Range::parse("198.51.100.0/30").unwrap().contains(given[0]), "{given:?}");
}

#[test]
fn a_gateway_that_is_made_anew_gets_the_address_that_it_had() {
    let range = ["10.0.0.0/16"];
    let before = allocated(&[("a", ask(&range)), ("b", ask(&range))]);
    let after = allocated(&[("a", Ask { created: 7, ..ask(&range) })]);
    assert_eq!(before[&name("a")], after[&name("a")]);
    // The place is part of what users rely on: a new version of Portreeve must not move it.
    assert_eq!(before[&name("a")], Ok(vec![ip("10.0.141.7")]));
}

#[test]
fn what_statuses_echo_changes_nothing() {
    let range = ["192.0.2.0/29"];
    let mut asks = vec![
        ("a", ask(&range)),
        ("b", naming(&range, &["192.0.2.3", "192.0.2.4"])),
        ("c", Ask { unnamed: 2, ..ask(&range) }),
        ("d", naming(&range, &["192.0.2.4"])),
        ("e", Ask { unnamed: 9, ..ask(&range) }),
    ];
    let made = allocated(&asks);
    for (gateway, ask) in &mut asks {
        ask.held = made[&name(gateway)].clone().unwrap_or_default();
    }
    assert_eq!(allocated(&asks), made);
}
