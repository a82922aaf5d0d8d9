//! Names: of objects, of units, of hosts.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The namespace and name of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace; empty for a cluster-scoped object.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The name of an object in a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The kinds of unit, in the order in which a proxy applies them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// A private key.
    Key,
    /// A certificate chain.
    Certificate,
    /// A bundle of certification authorities.
    Authority,
    /// The endpoints of a Service.
    Endpoints,
    /// A port of a Service, or of a host outside the cluster.
    Backend,
    /// A listener of a Gateway.
    Listener,
    /// A route.
    Route,
}

impl UnitKind {
    /// Every kind, in the order in which a proxy applies them.
    pub const ALL: [Self; 7] = [
        Self::Key,
        Self::Certificate,
        Self::Authority,
        Self::Endpoints,
        Self::Backend,
        Self::Listener,
        Self::Route,
    ];

    /// The first part of a unit's id.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Certificate => "certificate",
            Self::Authority => "authority",
            Self::Endpoints => "endpoints",
            Self::Backend => "backend",
            Self::Listener => "listener",
            Self::Route => "route",
        }
    }
}

/// The name of a unit, for example `route/HTTPRoute/shop/cart`.
///
/// The parts are Kubernetes names, which hold no slash, so an id reads back without doubt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitId(Arc<str>);

impl UnitId {
    /// A listener of a Gateway.
    pub fn listener(gateway: &ObjectName, listener: &str) -> Self {
        Self(format!("listener/{}/{}/{listener}", gateway.namespace, gateway.name).into())
    }

    /// A listener of a ListenerSet. Its last part keeps it apart from a Gateway of that name.
    pub fn set_listener(set: &ObjectName, listener: &str) -> Self {
        Self(format!("listener/{}/{}/{listener}/ListenerSet", set.namespace, set.name).into())
    }

    /// A bundle of authorities from an object of a kind, for example `ConfigMap`.
    pub fn authority(kind: &str, object: &ObjectName) -> Self {
        Self(format!("authority/{kind}/{}/{}", object.namespace, object.name).into())
    }

    /// A certificate from a Secret.
    pub fn certificate(secret: &ObjectName) -> Self {
        Self(format!("certificate/{}/{}", secret.namespace, secret.name).into())
    }

    /// The private key of that Secret.
    pub fn key(secret: &ObjectName) -> Self {
        Self(format!("key/{}/{}", secret.namespace, secret.name).into())
    }

    /// A route of a kind, for example `HTTPRoute`.
    pub fn route(kind: &str, route: &ObjectName) -> Self {
        Self(format!("route/{kind}/{}/{}", route.namespace, route.name).into())
    }

    /// A port of a Service.
    pub fn backend(service: &ObjectName, port: u16) -> Self {
        Self(format!("backend/{}/{}/{port}", service.namespace, service.name).into())
    }

    /// A UDP port of a Service, which may have a TCP port of the same number.
    pub fn udp_backend(service: &ObjectName, port: u16) -> Self {
        Self(format!("backend/{}/{}/{port}/udp", service.namespace, service.name).into())
    }

    /// What an object of the given kind sends to, outside the cluster: `XBackend`. Its last part keeps it apart
    /// from the port of a Service.
    pub fn external_backend(kind: &str, object: &ObjectName) -> Self {
        Self(format!("backend/{}/{}/{kind}", object.namespace, object.name).into())
    }

    /// An EndpointSlice.
    pub fn endpoints(slice: &ObjectName) -> Self {
        Self(format!("endpoints/{}/{}", slice.namespace, slice.name).into())
    }

    /// What kind of unit the id names; `None` for an id of a kind that this version does not know.
    pub fn kind(&self) -> Option<UnitKind> {
        let (prefix, _) = self.0.split_once('/')?;
        UnitKind::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A hostname to match: `shop.example.com`, or `*.example.com`, which covers one label or more.
///
/// Always lower case, without a final dot.
/// Source: Gateway API `Hostname` (wildcards match any number of labels, never the bare domain).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostPattern(Arc<str>);

impl HostPattern {
    /// The pattern of a text; case and a final dot do not matter.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches('.').to_ascii_lowercase().into())
    }

    /// What follows `*`, for example `.example.com`; `None` for an exact name.
    pub fn suffix(&self) -> Option<&str> {
        self.0.strip_prefix('*')
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a lower-case host without port is covered.
    pub fn matches(&self, host: &str) -> bool {
        match self.suffix() {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == &*self.0,
        }
    }

    /// What both patterns cover: the narrower one, or nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self.suffix(), other.suffix()) {
            (Some(mine), Some(theirs)) if mine.ends_with(theirs) => Some(self.clone()),
            (Some(mine), Some(theirs)) if theirs.ends_with(mine) => Some(other.clone()),
            (Some(_), Some(_)) => None,
            (Some(_), None) => self.matches(other.as_str()).then(|| other.clone()),
            (None, _) => other.matches(self.as_str()).then(|| self.clone()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label_or_more_but_not_the_bare_domain() {
        let pattern = HostPattern::new("*.Example.com.");
        assert!(pattern.matches("a.example.com"));
        assert!(pattern.matches("a.b.example.com"));
        assert!(!pattern.matches("example.com"));
        assert!(!pattern.matches("badexample.com"));
    }

    #[test]
    fn an_intersection_is_the_narrower_pattern() {
        let check = |a: &str, b: &str, want: Option<&str>| {
            let (a, b) = (HostPattern::new(a), HostPattern::new(b));
            let want = want.map(HostPattern::new);
            assert_eq!(a.intersect(&b), want, "{a} with {b}");
            assert_eq!(b.intersect(&a), want, "{b} with {a}");
        };
        check("a.example.com", "*.example.com", Some("a.example.com"));
        check("*.a.example.com", "*.example.com", Some("*.a.example.com"));
        check("example.com", "*.example.com", None);
        check("*.example.com", "*.example.org", None);
        check("a.example.com", "a.example.com", Some("a.example.com"));
        check("a.example.com", "b.example.com", None);
    }

    #[test]
    fn an_id_tells_its_kind() {
        let name = ObjectName::new("shop", "cart");
        assert_eq!(UnitId::route("HTTPRoute", &name).kind(), Some(UnitKind::Route));
        assert_eq!(UnitId::backend(&name, 80).as_str(), "backend/shop/cart/80");
        assert_eq!(UnitId::key(&name).kind(), Some(UnitKind::Key));
        assert_eq!(UnitId::authority("ConfigMap", &name).kind(), Some(UnitKind::Authority));
        assert_ne!(UnitId::listener(&name, "a"), UnitId::set_listener(&name, "a"));
        assert_ne!(UnitId::backend(&name, 53), UnitId::udp_backend(&name, 53));
    }
}
