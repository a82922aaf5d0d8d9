//! A cluster that has IPv6 alone: the node's address, the controllers' ports, the pushes, the endpoints, the requests
//! and what the Gateway's status says.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::push::authority::{AUTHORITY_LIFE, Authority, LEAF_LIFE};
use actors::push::credentials::Trust;
use anyhow::ensure;
use e2e::wait::until;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use tokio::net::TcpStream;
use tokio::sync::watch;

#[path = "trees/shop.rs"]
mod shop;

const NODE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PORT: u16 = 18_082;
const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_ipv6_alone_is_served() {
    let sandbox = shop::sandbox(PORT, NODE).await;
    sandbox.apply_object(shop::route(7)).await.unwrap();
    let authority = Arc::new(Authority::generate(SystemTime::now(), AUTHORITY_LIFE).unwrap());
    let name = shop::name(NODE);
    let identity = watch::Sender::new(shop::issue(&authority, &name, LEAF_LIFE));
    let proxy = shop::proxy(NODE, identity.subscribe()).await;
    let fleet = BTreeMap::from([(name, proxy.admin_address())]);
    let mut settings = shop::settings("a", &sandbox, Trust::Memory(authority), "default", &fleet);
    settings.status_bind = Some((Ipv6Addr::UNSPECIFIED, 0).into());
    let controller = actors::tree::run(settings).await.unwrap();
    let status = controller.status.unwrap().port();
    TcpStream::connect((NODE, status)).await.unwrap();

    let (turn, _) = until("the route is served", PATIENCE, async || {
        let mut stream = TcpStream::connect((NODE, PORT)).await?;
        shop::ask(&mut stream, "close").await.map_err(anyhow::Error::msg)
    })
    .await
    .unwrap();
    assert_eq!(turn, 7);

    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway");
    let gateways: Api<DynamicObject> =
        Api::namespaced_with(sandbox.client(), "default", &ApiResource::from_gvk(&kind));
    until("the Gateway's address is in its status", PATIENCE, async || {
        let addresses = gateways.get("edge").await?.data["status"]["addresses"].clone();
        ensure!(addresses == serde_json::json!([{"type": "IPAddress", "value": "::1"}]), "{addresses}");
        Ok(())
    })
    .await
    .unwrap();
    controller.running.stop().await.unwrap();
    proxy.stop().await.unwrap();
}
