//! Owns: the question whether what is held is at least as new as what the API server lists. Pure, with one
//! function that lists.
//! Called by the pusher of a new leader: an old cache must not roll traffic back under a new term.

use std::collections::BTreeMap;

use kube::Client;
use kube::api::ListParams;
use proxy_config::name::ObjectName;

use crate::observe::resource::Resource;
use crate::observe::stores::ObjectVersion;

/// How many objects are asked for at once.
const PAGE: u32 = 1000;

/// A consistent list of one kind: the version of the list, and those of the objects.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The resourceVersion of the list.
    pub version: String,
    /// The objects.
    pub objects: BTreeMap<ObjectName, ObjectVersion>,
}

/// Lists a kind's metadata from the API server's newest state; `None` where the kind is not served.
///
/// # Errors
/// Where the API server does not answer, or refuses.
pub async fn list(client: &Client, resource: &Resource) -> Result<Option<Listed>, kube::Error> {
    let api = resource.metadata(client);
    let config = resource.watch_config();
    let mut listed = Listed { version: String::new(), objects: BTreeMap::new() };
    let mut params = ListParams {
        label_selector: config.label_selector,
        field_selector: config.field_selector,
        limit: Some(PAGE),
        ..ListParams::default()
    };
    loop {
        let page = match api.list_metadata(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 && resource.definition().is_some() => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        for object in page.items {
            let name = object.metadata.name.unwrap_or_default();
            if resource.takes(&name) {
                let name = ObjectName::new(object.metadata.namespace.unwrap_or_default(), name);
                let uid = object.metadata.uid.unwrap_or_default().into();
                let resource_version = object.metadata.resource_version.unwrap_or_default().into();
                listed.objects.insert(name, ObjectVersion { uid, resource_version });
            }
        }
        if listed.version.is_empty() {
            listed.version = page.metadata.resource_version.unwrap_or_default();
        }
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(Some(listed));
        }
    }
}

/// An object of which what is held is older than what was listed; `None` where nothing is.
///
/// Versions of one kind are numbers that grow (KEP-5504); those that are no numbers are only compared for
/// being the same.
pub fn behind(held: &BTreeMap<ObjectName, ObjectVersion>, listed: &Listed) -> Option<ObjectName> {
    let older = listed.objects.iter().find(|(name, listed)| {
        held.get(*name).is_none_or(|held| {
            if held.uid == listed.uid {
                is_older(&held.resource_version, &listed.resource_version)
            } else {
                !is_newer(&held.resource_version, &listed.resource_version)
            }
        })
    });
    let deleted = || {
        held.iter().find(|(name, held)| {
            !listed.objects.contains_key(*name) && !is_newer(&held.resource_version, &listed.version)
        })
    };
    older.map(|(name, _)| name).or_else(|| deleted().map(|(name, _)| name)).cloned()
}

fn is_older(held: &str, listed: &str) -> bool {
    match (held.parse::<u64>(), listed.parse::<u64>()) {
        (Ok(held), Ok(listed)) => held < listed,
        _ => held != listed,
    }
}

fn is_newer(held: &str, listed: &str) -> bool {
    matches!((held.parse::<u64>(), listed.parse::<u64>()), (Ok(held), Ok(listed)) if held > listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(objects: &[(&str, &str, &str)]) -> BTreeMap<ObjectName, ObjectVersion> {
        let version = |uid: &str, rv: &str| ObjectVersion {
            uid: uid.to_owned().into(),
            resource_version: rv.to_owned().into(),
        };
        objects.iter().map(|(name, uid, rv)| (ObjectName::new("ns", *name), version(uid, rv))).collect()
    }

    #[track_caller]
    fn check(held: &[(&str, &str, &str)], listed: &[(&str, &str, &str)], want: Option<&str>) {
        let listed = Listed { version: "50".into(), objects: versions(listed) };
        let behind = behind(&versions(held), &listed);
        assert_eq!(behind.map(|name| name.name.to_string()).as_deref(), want);
    }

    #[test]
    fn what_is_held_may_be_newer_but_not_older() {
        check(&[("a", "u", "10")], &[("a", "u", "10")], None);
        check(&[("a", "u", "60")], &[("a", "u", "10")], None);
        check(&[("a", "u", "9")], &[("a", "u", "10")], Some("a"));
    }

    #[test]
    fn what_is_not_held_yet_is_waited_for() {
        check(&[], &[("a", "u", "10")], Some("a"));
    }

    #[test]
    fn what_was_deleted_or_replaced_since_it_was_seen_is_noticed() {
        check(&[("a", "u", "10")], &[], Some("a"));
        check(&[("a", "u", "51")], &[], None);
        check(&[("a", "old", "10")], &[("a", "new", "40")], Some("a"));
        check(&[("a", "newer", "60")], &[("a", "new", "40")], None);
    }
}
