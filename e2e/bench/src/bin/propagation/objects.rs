//! What the API server holds: Gateways, their HTTPRoutes and a backend, and how a route is changed.
//! Called by the story in `main.rs`. It knows the API server alone.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::World;

/// The namespace of everything that is measured.
const NAMESPACE: &str = "bench";
/// The port of all Gateways' listeners.
pub(crate) const HTTP: u16 = 8080;
/// The header that a visitor reads the value of.
pub(crate) const HEADER: &str = "x-bench";

/// The objects of a run.
pub(crate) struct Objects<'a> {
    world: &'a World,
    routes: usize,
    per_gateway: usize,
    api: Api<DynamicObject>,
}

impl<'a> Objects<'a> {
    /// Nothing is made yet. `per_gateway` is at least 1.
    pub(crate) fn new(world: &'a World, routes: usize, per_gateway: usize) -> Self {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
        let api = Api::namespaced_with(world.client(), NAMESPACE, &resource);
        Self { world, routes, per_gateway, api }
    }

    /// How many routes there are.
    pub(crate) fn routes(&self) -> usize {
        self.routes
    }

    /// The host that a route answers.
    pub(crate) fn host(&self, route: usize) -> String {
        format!("r{route}.g{}.bench.example", route / self.per_gateway)
    }

    /// Makes everything but the routes.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.world.apply(self.world.manifests()?.into_iter().chain(self.gateways()).collect())
    }

    fn gateways(&self) -> impl Iterator<Item = Value> + use<> {
        (0..self.routes.div_ceil(self.per_gateway)).map(|number| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": format!("g{number}"), "namespace": NAMESPACE},
                "spec": {"gatewayClassName": "portreeve", "listeners": [{
                    "name": "http", "port": HTTP, "protocol": "HTTP",
                    "hostname": format!("*.g{number}.bench.example"),
                }]},
            })
        })
    }

    /// Makes all routes, one after the other.
    pub(crate) fn create_routes(&mut self) -> Result<()> {
        for route in 0..self.routes {
            let object: DynamicObject = serde_json::from_value(json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": name(route), "namespace": NAMESPACE},
                "spec": {
                    "parentRefs": [{"name": format!("g{}", route / self.per_gateway)}],
                    "hostnames": [self.host(route)],
                    "rules": rules("0"),
                },
            }))?;
            let made = self.world.block_on(self.api.create(&PostParams::default(), &object));
            made.with_context(|| format!("making HTTPRoute {}", name(route)))?;
        }
        Ok(())
    }

    /// Patches the header of one route; the API server has answered when this returns.
    pub(crate) fn change(&mut self, route: usize, value: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"rules": rules(value)}}));
        let patched = self.world.block_on(self.api.patch(&name(route), &PatchParams::default(), &patch));
        patched.with_context(|| format!("patching HTTPRoute {}", name(route)))?;
        Ok(())
    }
}

fn name(route: usize) -> String {
    format!("r{route}")
}

fn rules(value: &str) -> Value {
    json!([{
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [{
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": HEADER, "value": value}]},
        }],
        "backendRefs": [{"name": "backend", "port": 80}],
    }])
}

/// What is there before Gateways and routes.
pub(crate) fn base(backend: SocketAddr) -> Vec<Value> {
    let service = "kubernetes.io/service-name";
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "portreeve"},
            "spec": {"controllerName": "portreeve.dev/gateway-controller"},
        }),
        namespace("portreeve-system"),
        namespace(NAMESPACE),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "backend", "namespace": NAMESPACE},
            "spec": {"ports": [{"port": 80, "protocol": "TCP"}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "backend-1", "namespace": NAMESPACE, "labels": {service: "backend"}},
            "addressType": "IPv4",
            "ports": [{"port": backend.port(), "protocol": "TCP"}],
            "endpoints": [{"addresses": [backend.ip().to_string()], "conditions": {"ready": true}}],
        }),
    ]
}

/// A node of the cluster at an address.
pub(crate) fn node(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}
