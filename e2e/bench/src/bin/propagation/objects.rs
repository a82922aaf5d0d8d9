//! What the API server holds: Gateways, their HTTPRoutes, Services and certificates, and how each is changed.
//! Called by the story in `main.rs`. It knows the API server alone.

mod manifests;

use anyhow::{Context, Result};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::visitor::Sign;
use crate::world::World;
use manifests::{Certificate, gateway, route, rules, secret, service, slice};

pub(crate) use manifests::{base, node};

/// The port of all Gateways' HTTP listeners.
pub(crate) const HTTP: u16 = 8080;
/// The port of all Gateways' HTTPS listeners.
pub(crate) const HTTPS: u16 = 8443;
/// The field that a route sets.
pub(crate) const ROUTE_HEADER: &str = "x-bench";
/// The field in which a backend tells its port.
pub(crate) const BACKEND_HEADER: &str = "x-backend";

/// What is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum What {
    /// The field that an HTTPRoute sets.
    Route,
    /// The endpoint of a Service.
    Endpoints,
    /// The certificate of a Gateway.
    Certificate,
}

/// How many there are of each.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// HTTPRoutes.
    pub(crate) routes: usize,
    /// Services, which the routes have in turn.
    pub(crate) services: usize,
    /// HTTPRoutes of a Gateway.
    pub(crate) per_gateway: usize,
}

impl Sizes {
    /// Gateways.
    pub(crate) fn gateways(&self) -> usize {
        self.routes.div_ceil(self.per_gateway)
    }
}

/// The objects of a run.
pub(crate) struct Objects<'a> {
    world: &'a World,
    sizes: Sizes,
    key: KeyPair,
    /// Which of the two backends each Service has.
    endpoints: Vec<usize>,
}

impl<'a> Objects<'a> {
    /// Nothing is made yet. All sizes are at least 1.
    pub(crate) fn new(world: &'a World, sizes: Sizes) -> Result<Self> {
        Ok(Self { world, sizes, key: KeyPair::generate()?, endpoints: vec![0; sizes.services] })
    }

    /// The host that a route answers.
    pub(crate) fn host(&self, route: usize) -> String {
        format!("r{route}.{}", self.domain(route / self.sizes.per_gateway))
    }

    /// What shows that a route is served as it was made.
    pub(crate) fn first_sign(&self, route: usize) -> Sign {
        Sign::Field { host: self.host(route), name: ROUTE_HEADER, value: "0".to_owned() }
    }

    fn domain(&self, gateway: usize) -> String {
        format!("g{gateway}.bench.example")
    }

    fn certificate(&self, gateway: usize) -> Result<Certificate> {
        Certificate::new(&format!("*.{}", self.domain(gateway)), &self.key)
    }

    /// Makes everything but the routes.
    pub(crate) fn prepare(&self) -> Result<()> {
        let mut objects = self.world.manifests()?;
        let [backend, _] = self.world.backends();
        for number in 0..self.sizes.services {
            objects.extend([service(number), slice(number, backend)]);
        }
        for number in 0..self.sizes.gateways() {
            let hostname = format!("*.{}", self.domain(number));
            objects.extend([secret(number, &self.certificate(number)?), gateway(number, &hostname)]);
        }
        self.world.apply(objects)
    }

    /// Makes all routes, one after the other.
    pub(crate) fn create_routes(&self) -> Result<()> {
        let api = self.api(What::Route);
        for number in 0..self.sizes.routes {
            let (gateway, service) = (number / self.sizes.per_gateway, number % self.sizes.services);
            let object = serde_json::from_value(route(number, gateway, service, &self.host(number)))?;
            let made = self.world.block_on(api.create(&PostParams::default(), &object));
            made.with_context(|| format!("making HTTPRoute r{number}"))?;
        }
        Ok(())
    }

    /// Changes one object, which `chosen` chooses; the API server has answered when this returns what shows it, and the
    /// version that it has.
    pub(crate) fn change(&mut self, what: What, chosen: usize, value: &str) -> Result<(Sign, String)> {
        match what {
            What::Route => self.change_route(chosen % self.sizes.routes, value),
            What::Endpoints => self.change_endpoints(chosen % self.sizes.services),
            What::Certificate => self.change_certificate(chosen % self.sizes.gateways()),
        }
    }

    fn change_route(&self, route: usize, value: &str) -> Result<(Sign, String)> {
        let rules = rules(route % self.sizes.services, value);
        let version = self.patch(What::Route, &format!("r{route}"), json!({"spec": {"rules": rules}}))?;
        let sign = Sign::Field { host: self.host(route), name: ROUTE_HEADER, value: value.to_owned() };
        Ok((sign, version))
    }

    fn change_endpoints(&mut self, service: usize) -> Result<(Sign, String)> {
        let other = 1 - self.endpoints.get(service).context("a Service that was made")?;
        let backend = *self.world.backends().get(other).context("there are two backends")?;
        let mut patch = slice(service, backend);
        patch.as_object_mut().context("an object")?.retain(|name, _| name == "ports" || name == "endpoints");
        let version = self.patch(What::Endpoints, &format!("s{service}-1"), patch)?;
        self.endpoints[service] = other;
        // The first route of the Service stands for all of its routes.
        let value = backend.port().to_string();
        Ok((Sign::Field { host: self.host(service), name: BACKEND_HEADER, value }, version))
    }

    fn change_certificate(&self, gateway: usize) -> Result<(Sign, String)> {
        let certificate = self.certificate(gateway)?;
        let patch = json!({"stringData": secret(gateway, &certificate)["stringData"]});
        let version = self.patch(What::Certificate, &format!("g{gateway}"), patch)?;
        let host = self.host(gateway * self.sizes.per_gateway);
        Ok((Sign::Certificate { port: HTTPS, host, der: certificate.der }, version))
    }

    /// The objects of the kind that is changed.
    pub(crate) fn api(&self, what: What) -> Api<DynamicObject> {
        let (group, version, kind) = match what {
            What::Route => ("gateway.networking.k8s.io", "v1", "HTTPRoute"),
            What::Endpoints => ("discovery.k8s.io", "v1", "EndpointSlice"),
            What::Certificate => ("", "v1", "Secret"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.world.client(), manifests::NAMESPACE, &resource)
    }

    /// The version that the object has then.
    fn patch(&self, what: What, name: &str, patch: Value) -> Result<String> {
        let api = self.api(what);
        let patched = self.world.block_on(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)));
        let patched = patched.with_context(|| format!("patching {name}"))?;
        patched.metadata.resource_version.with_context(|| format!("{name} has no version"))
    }
}
