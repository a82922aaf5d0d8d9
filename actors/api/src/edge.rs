//! EdgeParameters (`portreeve.dev/v1alpha1`): what a GatewayClass says beyond Gateway API.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type inside a function, where pub reaches nobody"
)]

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The API group of our kinds.
pub const GROUP: &str = "portreeve.dev";

/// The controller name of our GatewayClasses.
pub const CONTROLLER_NAME: &str = "portreeve.dev/gateway-controller";

/// Parameters of a GatewayClass.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(group = "portreeve.dev", version = "v1alpha1", kind = "EdgeParameters", plural = "edgeparameters")]
#[serde(rename_all = "camelCase")]
pub struct EdgeParametersSpec {
    /// Where the addresses of this class's Gateways come from.
    #[serde(default)]
    pub address_provider: AddressProvider,
}

/// Where addresses come from: exactly one of the fields is set; none means `node`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.node), has(self.pool), has(self.slots)].filter(x, x).size() <= 1")
    .message("set one of node, pool and slots"))]
pub struct AddressProvider {
    /// The nodes' own addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeProvider>,
    /// One address of a range for each Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolProvider>,
    /// Elastic addresses shared by the Gateways of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<SlotsProvider>,
}

/// Settings of the provider `node`; there are none.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProvider {}

/// Settings of the provider `pool`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolProvider {
    /// The ranges, for example `192.0.2.0/26`; each is routed to the nodes, and none of its addresses belongs to a
    /// node, a pod or a Service. The first one that has a free address is used.
    #[x_kube(validation = Rule::new("self.size() > 0").message("name at least one range"))]
    pub cidrs: Vec<String>,
}

/// Settings of the provider `slots`; there are none yet.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsProvider {}
