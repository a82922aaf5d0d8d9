//! What `drill` and `rotation` play on: a Kubernetes API with a Gateway for a shop, proxies at addresses of this
//! machine, controllers that elect a leader, and requests whose answers tell which turn of the route gave them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::push::authority::Authority;
use actors::push::credentials::Trust;
use actors::push::identity::Role;
use actors::settings::{Fleet, LeaseSettings, Settings};
use actors_core::translate;
use proxy::admin::identity::{Identity, TlsSource};
use proxy::listen::drain::DrainSettings;
use proxy::tree::Proxy;
use sandbox::{Channel, Faults, Options, Sandbox};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A Kubernetes API where the shop is: its Gateway on `port`, its Service with a backend of this process at
/// `loopback`, no route.
pub(crate) async fn sandbox(port: u16, loopback: IpAddr) -> Sandbox {
    let sandbox = Sandbox::new(Options { loopback_endpoints: true, ..Options::default() });
    sandbox.install_gateway_api(Channel::Standard).await.unwrap();
    sandbox.apply_yaml(&ground(port, backend(loopback).await)).await.unwrap();
    sandbox
}

/// A backend that answers every request with 200 and nothing.
async fn backend(at: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    }
                }
            });
        }
    });
    address
}

fn ground(port: u16, backend: SocketAddr) -> String {
    let (family, backend, at) =
        (if backend.is_ipv4() { "IPv4" } else { "IPv6" }, backend.port(), backend.ip());
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: portreeve}}
spec: {{controllerName: portreeve.dev/gateway-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: default}}
spec:
  gatewayClassName: portreeve
  listeners: [{{name: http, port: {port}, protocol: HTTP}}]
---
apiVersion: v1
kind: Service
metadata: {{name: shop, namespace: default}}
spec: {{ports: [{{name: http, port: 80, protocol: TCP}}], clusterIP: 10.96.0.9}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: shop-1, namespace: default, labels: {{kubernetes.io/service-name: shop}}}}
addressType: {family}
ports: [{{name: http, port: {backend}, protocol: TCP}}]
endpoints: [{{addresses: ["{at}"], conditions: {{ready: true}}}}]
"#
    )
}

/// The route to the shop, whose answers carry this turn.
pub(crate) fn route(turn: usize) -> Value {
    let set = json!([{"name": "turn", "value": turn.to_string()}]);
    let filter = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": set}});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "rules": [{"filters": [filter], "backendRefs": [{"name": "shop", "port": 80}]}],
        },
    })
}

/// The name of the proxy at this address.
pub(crate) fn name(node: IpAddr) -> String {
    format!("edge-{node}").replace(':', "-")
}

/// What an authority issues to the proxy called so, as that holds it.
pub(crate) fn issue(authority: &Authority, proxy: &str, life: Duration) -> Arc<Identity> {
    let issued = authority.issue(&Role::Proxy(proxy.to_owned()), SystemTime::now(), life).unwrap();
    let (authorities, chain) = (issued.authorities.into(), issued.chain.into());
    Arc::new(Identity { authorities, chain, key: issued.key })
}

/// A proxy at this address with the identity that the channel holds.
pub(crate) async fn proxy(node: IpAddr, identity: watch::Receiver<Arc<Identity>>) -> Proxy {
    let settings = proxy::settings::Settings {
        identity: name(node),
        node_address: node,
        admin_bind: (node, 0).into(),
        status_bind: (node, 0).into(),
        status_socket: None,
        tls: TlsSource::Held(identity),
        state_dir: None,
        workers: 2,
        limits: proxy::limits::Limits::new(200),
        drain: DrainSettings::default(),
        resolver: proxy::resolver::ResolverSettings::default(),
    };
    proxy::tree::run(settings).await.unwrap()
}

/// The settings of a controller that stands for the Lease in `namespace` and pushes to these proxies.
pub(crate) fn settings(
    name: &str,
    sandbox: &Sandbox,
    trust: Trust,
    namespace: &str,
    fleet: &BTreeMap<String, SocketAddr>,
) -> Settings {
    let client = || sandbox.client_with(name, Faults::none());
    let mut settings = Settings::new(name, client(), translate::Settings::default(), trust);
    settings.fleet = Fleet::Named(fleet.clone());
    settings.lease = Some(LeaseSettings {
        client: client(),
        namespace: namespace.to_owned(),
        name: "portreeve-leader".to_owned(),
        identity: actors::lease_leader::identity(name, "uid"),
    });
    settings
}

/// Sends a request on a connection: the turn of the route that answered with 200, and whether the connection ends now.
/// `Err`: what came instead.
pub(crate) async fn ask(stream: &mut TcpStream, connection: &str) -> Result<(usize, bool), String> {
    let failed = |error: std::io::Error| error.to_string();
    let request = format!("GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: {connection}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::<u8>::new();
    // Those without a 200 have bodies, which may come with it.
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.map_err(failed)? == 0 {
            return Err(format!("an end after {:?}", String::from_utf8_lossy(&head)));
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let turn = head.lines().find_map(|line| line.strip_prefix("turn: ")).and_then(|turn| turn.parse().ok());
    let answered = turn.filter(|_| head.starts_with("http/1.1 200 "));
    answered.map(|turn| (turn, head.contains("connection: close"))).ok_or(head)
}
