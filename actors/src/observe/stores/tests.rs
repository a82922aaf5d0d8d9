//! What the stores keep, refuse and tell of.

use serde_json::json;

use super::*;
use crate::observe::convert::convert;

fn namespace(name: &str, version: &str, label: &str) -> Observed {
    let raw = json!({"metadata": {
        "name": name, "uid": format!("uid-{name}"), "resourceVersion": version, "labels": {"l": label},
    }});
    convert(&Stores::new([]), Kind::Namespace, &raw)
}

fn secret(version: &str) -> Observed {
    named_secret("s", version)
}

fn named_secret(name: &str, version: &str) -> Observed {
    let raw = json!({"type": "kubernetes.io/tls", "metadata": {
        "name": name, "namespace": "ns", "uid": "u", "resourceVersion": version,
    }});
    convert(&Stores::new([]), Kind::Secret, &raw)
}

fn content(stores: &Stores) -> SecretContent {
    stores.snapshot().unwrap().secrets.values().next().unwrap().content.clone()
}

#[test]
fn nothing_is_shown_before_every_kind_has_been_listed() {
    let stores = Stores::new([Kind::Namespace, Kind::Gateway]);
    stores.writer(Kind::Namespace).replace(vec![namespace("a", "1", "x")]);
    assert!(stores.snapshot().is_none());
    stores.writer(Kind::Gateway).absent();
    assert_eq!(stores.snapshot().unwrap().namespaces.len(), 1);
}

#[test]
fn a_list_replaces_what_was_there() {
    let stores = Stores::new([Kind::Namespace]);
    let writer = stores.writer(Kind::Namespace);
    writer.replace(vec![namespace("a", "1", "x"), namespace("b", "2", "x")]);
    writer.replace(vec![namespace("b", "2", "x"), namespace("c", "3", "x")]);
    let names: Vec<_> = stores.snapshot().unwrap().namespaces.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn an_echo_dirties_nothing_but_its_version_is_known() {
    let stores = Stores::new([Kind::Namespace]);
    let writer = stores.writer(Kind::Namespace);
    writer.replace(vec![namespace("a", "1", "x")]);
    let mut changes = stores.changes();
    changes.borrow_and_update();
    writer.put(namespace("a", "2", "x"));
    assert!(!changes.has_changed().unwrap());
    let versions = stores.versions(Kind::Namespace);
    assert_eq!(&*versions.values().next().unwrap().resource_version, "2");
    writer.put(namespace("a", "3", "y"));
    assert!(changes.has_changed().unwrap());
}

#[test]
fn a_writer_that_was_replaced_is_refused() {
    let stores = Stores::new([Kind::Namespace]);
    let old = stores.writer(Kind::Namespace);
    let new = stores.writer(Kind::Namespace);
    new.replace(vec![namespace("a", "1", "x")]);
    old.replace(vec![]);
    assert_eq!(stores.snapshot().unwrap().namespaces.len(), 1);
}

#[test]
fn a_secret_keeps_its_content_until_the_new_one_is_read() {
    let stores = Stores::new([Kind::Secret]);
    let writer = stores.writer(Kind::Secret);
    writer.replace(vec![secret("1")]);
    assert_eq!(content(&stores), SecretContent::NotRead);
    let reference = ObjectRef::new(Kind::Secret, ObjectName::new("ns", "s"));
    let read = |text: &str| SecretContent::Tls { chain: text.into(), key: text.into(), authority: None };
    let version =
        |number: &str| ObjectVersion { uid: "u".into(), resource_version: number.to_owned().into() };
    stores.put_content(&reference, &version("1"), Content::Secret(read("one")));
    assert_eq!(content(&stores), read("one"));
    writer.put(secret("2"));
    assert_eq!(content(&stores), read("one"));
    stores.put_content(&reference, &version("1"), Content::Secret(read("late")));
    assert_eq!(content(&stores), read("one"), "the answer about an older version is dropped");
    stores.put_content(&reference, &version("2"), Content::Secret(read("two")));
    assert_eq!(content(&stores), read("two"));
}

#[test]
fn only_what_has_another_version_is_to_be_read() {
    let stores = Stores::new([Kind::Secret]);
    let writer = stores.writer(Kind::Secret);
    let reference = ObjectRef::new(Kind::Secret, ObjectName::new("ns", "s"));
    writer.replace(vec![secret("1")]);
    assert_eq!(stores.take_unread(), BTreeSet::from([reference.clone()]));
    writer.put(secret("1"));
    writer.put(namespace("a", "1", "x"));
    assert_eq!(stores.take_unread(), BTreeSet::new());
    writer.put(secret("2"));
    assert_eq!(stores.take_unread(), BTreeSet::from([reference]));
}

#[test]
fn a_new_version_of_a_secret_changes_nothing_until_it_is_read() {
    let stores = Stores::new([Kind::Secret]);
    let writer = stores.writer(Kind::Secret);
    writer.replace(vec![secret("1")]);
    let (mut changes, mut unread) = (stores.changes(), stores.unread_changes());
    changes.borrow_and_update();
    unread.borrow_and_update();
    writer.put(secret("2"));
    assert!(unread.has_changed().unwrap() && !changes.has_changed().unwrap());
    unread.borrow_and_update();
    writer.put(secret("2"));
    assert!(!unread.has_changed().unwrap(), "that is the same version");
}

#[test]
fn one_secret_in_the_place_of_another_is_told_of() {
    let stores = Stores::new([Kind::Secret]);
    let writer = stores.writer(Kind::Secret);
    writer.replace(vec![secret("1")]);
    let mut unread = stores.unread_changes();
    unread.borrow_and_update();
    writer.replace(vec![named_secret("other", "2")]);
    assert!(unread.has_changed().unwrap(), "as many as before, but not the same");
}

#[test]
fn a_version_is_unanswered_until_its_reading_has_ended() {
    let stores = Stores::new([Kind::Secret]);
    let writer = stores.writer(Kind::Secret);
    let reference = ObjectRef::new(Kind::Secret, ObjectName::new("ns", "s"));
    let is_answered = || stores.unanswered(std::iter::once(&reference)).is_none();
    assert!(is_answered(), "what is not there is not waited for");
    writer.replace(vec![secret("1")]);
    assert!(!is_answered());
    let version = |number: &str| ObjectVersion { uid: "u".into(), resource_version: number.into() };
    let wrong = || Content::wrong(Kind::Secret, "of another type".to_owned());
    stores.put_content(&reference, &version("1"), wrong());
    assert!(is_answered());
    writer.put(secret("2"));
    assert!(!is_answered());
    stores.put_content(&reference, &version("1"), wrong());
    stores.answered(&reference, &version("1"));
    assert!(!is_answered(), "that was the version before");
    stores.answered(&reference, &version("2"));
    assert!(is_answered(), "it can't be read, and what was read before stays");
    stores.put_content(&reference, &version("2"), Content::unread(Kind::Secret));
    assert!(!is_answered(), "it was not wanted any more");
}

#[test]
fn what_is_held_in_another_version_or_no_more_is_outdated() {
    let stores = Stores::new([Kind::Namespace]);
    let writer = stores.writer(Kind::Namespace);
    writer.replace(vec![namespace("a", "1", "x"), namespace("b", "2", "x"), namespace("c", "3", "x")]);
    let versions = stores.versions(Kind::Namespace).into_iter();
    let seen: Vec<_> =
        versions.map(|(name, version)| (ObjectRef::new(Kind::Namespace, name), version)).collect();
    let outdated = || stores.outdated(seen.iter().map(|(object, version)| (object, version)));
    assert!(outdated().is_empty());
    writer.put(namespace("b", "4", "x"));
    writer.remove(&seen[2].0);
    assert_eq!(outdated(), [&seen[1].0, &seen[2].0]);
}
