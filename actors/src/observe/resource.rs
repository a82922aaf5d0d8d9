//! Owns: how each kind is asked for: its path in the API, what of it is read, whether it may be missing.
//! Called by the watchers and by the check of freshness. Refuses to know what is done with the objects.

use actors_core::snapshot::meta::{EXPERIMENTAL_GROUP, GATEWAY_GROUP, Kind};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::core::{DynamicResourceScope, PartialObjectMeta};
use kube::runtime::watcher;
use kube::{Api, Client};

/// For how long a watch runs before it is renewed, in seconds. With the five seconds that the client
/// allows beyond it, a connection that died in silence is noticed within 25 s.
const WATCH_SECONDS: u32 = 20;
/// The API groups of kinds that are not built in.
const GROUPS: [&str; 3] = [GATEWAY_GROUP, EXPERIMENTAL_GROUP, "portreeve.dev"];
/// How many objects are asked for at once.
const PAGE: u32 = 500;

/// Which Pods are our proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyPods {
    /// Their namespace.
    pub namespace: String,
    /// Their labels, as a selector.
    pub selector: String,
}

/// How a kind is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The kind.
    pub kind: Kind,
    pods: Option<ProxyPods>,
}

impl Resource {
    /// Of any kind but [`Kind::Proxy`], in all namespaces.
    pub fn of(kind: Kind) -> Self {
        Self { kind, pods: None }
    }

    /// Of the Pods that are our proxies.
    pub fn proxies(pods: ProxyPods) -> Self {
        Self { kind: Kind::Proxy, pods: Some(pods) }
    }

    /// The name of the watcher in the tree, and of the kind in the API's paths.
    pub fn plural(&self) -> &'static str {
        match self.kind {
            Kind::CustomResourceDefinition => "customresourcedefinitions",
            Kind::GatewayClass => "gatewayclasses",
            Kind::EdgeParameters => "edgeparameters",
            Kind::Gateway => "gateways",
            Kind::ListenerSet => "listenersets",
            Kind::HttpRoute => "httproutes",
            Kind::GrpcRoute => "grpcroutes",
            Kind::TlsRoute => "tlsroutes",
            Kind::TcpRoute => "tcproutes",
            Kind::UdpRoute => "udproutes",
            Kind::ReferenceGrant => "referencegrants",
            Kind::BackendTlsPolicy => "backendtlspolicies",
            Kind::BackendTrafficPolicy => "xbackendtrafficpolicies",
            Kind::Backend => "xbackends",
            Kind::Service => "services",
            Kind::EndpointSlice => "endpointslices",
            Kind::Namespace => "namespaces",
            Kind::Node => "nodes",
            Kind::Secret => "secrets",
            Kind::ConfigMap => "configmaps",
            Kind::Proxy => "pods",
        }
    }

    /// The CustomResourceDefinition without which the kind is absent; `None` for built-in kinds.
    pub fn definition(&self) -> Option<String> {
        let custom = GROUPS.contains(&self.kind.group());
        custom.then(|| format!("{}.{}", self.plural(), self.kind.group()))
    }

    /// Whether nothing but the metadata is read: the content of a Secret or ConfigMap only once it is named, a
    /// definition's schema never.
    pub fn metadata_only(&self) -> bool {
        matches!(self.kind, Kind::Secret | Kind::ConfigMap | Kind::Namespace | Kind::CustomResourceDefinition)
    }

    /// Whether an object of this name is kept: of definitions only those of the groups that are read.
    pub fn takes(&self, name: &str) -> bool {
        self.kind != Kind::CustomResourceDefinition
            || GROUPS.iter().any(|group| name.ends_with(&format!(".{group}")))
    }

    /// How a watch of it is asked for.
    pub fn watch_config(&self) -> watcher::Config {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        config.label_selector = self.pods.as_ref().map(|pods| pods.selector.clone());
        if self.kind == Kind::Secret {
            config = config.fields("type=kubernetes.io/tls");
        }
        config
    }

    /// Whole objects.
    pub fn objects(&self, client: &Client) -> Api<DynamicObject> {
        self.api(client)
    }

    /// The metadata of objects.
    pub fn metadata(&self, client: &Client) -> Api<PartialObjectMeta<DynamicObject>> {
        self.api(client)
    }

    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: kube::Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        let resource = self.api_resource();
        match &self.pods {
            Some(pods) => Api::namespaced_with(client.clone(), &pods.namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        }
    }

    /// The kind as the client library names it.
    pub fn api_resource(&self) -> ApiResource {
        let gvk = GroupVersionKind::gvk(self.kind.group(), self.kind.version(), self.kind.as_str());
        ApiResource::from_gvk_with_plural(&gvk, self.plural())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_custom_kinds_may_be_missing() {
        let missing: Vec<_> =
            Kind::ALL.into_iter().filter_map(|kind| Resource::of(kind).definition()).collect();
        assert_eq!(
            missing,
            [
                "gatewayclasses.gateway.networking.k8s.io",
                "edgeparameters.portreeve.dev",
                "gateways.gateway.networking.k8s.io",
                "listenersets.gateway.networking.k8s.io",
                "httproutes.gateway.networking.k8s.io",
                "grpcroutes.gateway.networking.k8s.io",
                "tlsroutes.gateway.networking.k8s.io",
                "tcproutes.gateway.networking.k8s.io",
                "udproutes.gateway.networking.k8s.io",
                "referencegrants.gateway.networking.k8s.io",
                "backendtlspolicies.gateway.networking.k8s.io",
                "xbackendtrafficpolicies.gateway.networking.x-k8s.io",
                "xbackends.gateway.networking.x-k8s.io",
            ]
        );
    }
}
