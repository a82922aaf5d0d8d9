//! What every object has: a kind, a name, an identity, a place in time.

use std::fmt;
use std::sync::Arc;

use proxy_config::name::ObjectName;

/// The kinds of object that are observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `apiextensions.k8s.io/v1` CustomResourceDefinition: which Gateway API is installed.
    CustomResourceDefinition,
    /// `gateway.networking.k8s.io/v1` GatewayClass.
    GatewayClass,
    /// `portreeve.dev/v1alpha1` EdgeParameters.
    EdgeParameters,
    /// `gateway.networking.k8s.io/v1` Gateway.
    Gateway,
    /// `gateway.networking.k8s.io/v1` ListenerSet.
    ListenerSet,
    /// `gateway.networking.k8s.io/v1` HTTPRoute.
    HttpRoute,
    /// `gateway.networking.k8s.io/v1` GRPCRoute.
    GrpcRoute,
    /// `gateway.networking.k8s.io/v1` TLSRoute.
    TlsRoute,
    /// `gateway.networking.k8s.io/v1` TCPRoute.
    TcpRoute,
    /// `gateway.networking.k8s.io/v1` UDPRoute.
    UdpRoute,
    /// `gateway.networking.k8s.io/v1` ReferenceGrant.
    ReferenceGrant,
    /// `gateway.networking.k8s.io/v1` BackendTLSPolicy.
    BackendTlsPolicy,
    /// `gateway.networking.x-k8s.io/v1alpha1` XBackendTrafficPolicy.
    BackendTrafficPolicy,
    /// `gateway.networking.x-k8s.io/v1alpha1` XBackend.
    Backend,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Secret.
    Secret,
    /// `v1` ConfigMap.
    ConfigMap,
    /// One of our proxies: a `v1` Pod, or one that the command line names.
    Proxy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::CustomResourceDefinition,
        Self::GatewayClass,
        Self::EdgeParameters,
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::ReferenceGrant,
        Self::BackendTlsPolicy,
        Self::BackendTrafficPolicy,
        Self::Backend,
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::Node,
        Self::Secret,
        Self::ConfigMap,
        Self::Proxy,
    ];

    /// The kinds of route.
    pub const ROUTES: [Self; 5] =
        [Self::HttpRoute, Self::GrpcRoute, Self::TlsRoute, Self::TcpRoute, Self::UdpRoute];

    /// Whether it is a kind of route.
    pub fn is_route(self) -> bool {
        Self::ROUTES.contains(&self)
    }

    /// Whether its objects have a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::CustomResourceDefinition
                | Self::GatewayClass
                | Self::EdgeParameters
                | Self::Namespace
                | Self::Node
        )
    }

    /// Whether the status of its objects is a list that controllers share, with an entry of ours for each
    /// parent or ancestor.
    pub fn has_entries(self) -> bool {
        self.is_route() || matches!(self, Self::BackendTlsPolicy | Self::BackendTrafficPolicy | Self::Backend)
    }

    /// Whether we write the status of its objects.
    pub fn has_status(self) -> bool {
        self.has_entries() || matches!(self, Self::GatewayClass | Self::Gateway | Self::ListenerSet)
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::CustomResourceDefinition => "apiextensions.k8s.io",
            Self::GatewayClass
            | Self::Gateway
            | Self::ListenerSet
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::TlsRoute
            | Self::TcpRoute
            | Self::UdpRoute
            | Self::ReferenceGrant
            | Self::BackendTlsPolicy => GATEWAY_GROUP,
            Self::BackendTrafficPolicy | Self::Backend => EXPERIMENTAL_GROUP,
            Self::EdgeParameters => "portreeve.dev",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::Service | Self::Namespace | Self::Node | Self::Secret | Self::ConfigMap | Self::Proxy => "",
        }
    }

    /// The version that is read.
    pub fn version(self) -> &'static str {
        match self {
            Self::EdgeParameters | Self::BackendTrafficPolicy | Self::Backend => "v1alpha1",
            _ => "v1",
        }
    }

    /// The kind as Kubernetes names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CustomResourceDefinition => "CustomResourceDefinition",
            Self::GatewayClass => "GatewayClass",
            Self::EdgeParameters => "EdgeParameters",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::BackendTrafficPolicy => "XBackendTrafficPolicy",
            Self::Backend => "XBackend",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Proxy => "Pod",
        }
    }

    /// The kind of an object as its `apiVersion` and `kind` say; `None` for one that is not observed.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self::ALL.into_iter().find(|known| known.group() == group && known.as_str() == kind)
    }
}

/// The API group of what Gateway API tries out.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";

/// The API group of Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name; without a namespace where it is cluster-scoped.
    pub name: ObjectName,
}

impl ObjectRef {
    /// The reference to an object.
    pub fn new(kind: Kind, name: ObjectName) -> Self {
        Self { kind, name }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// What of an object's metadata is used.
///
/// Two are equal if they differ in resourceVersion alone: that of an object also changes when we write
/// its status, which must dirty nothing.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Namespace and name.
    pub name: ObjectName,
    /// The uid; another one under the same name is another object.
    pub uid: Arc<str>,
    /// The generation of the spec, for observedGeneration.
    pub generation: i64,
    /// The resourceVersion when it was read.
    pub resource_version: Arc<str>,
    /// The creation time in seconds since 1970; 0 where unknown.
    pub created: i64,
}

impl PartialEq for Meta {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.uid == other.uid
            && self.generation == other.generation
            && self.created == other.created
    }
}

impl Eq for Meta {}
