//! What the proxies' answers to one change cost in verdicts: `cargo bench -p actors-core --bench verdicts`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actors_core::observe::observe;
use actors_core::snapshot::Snapshot;
use actors_core::snapshot::meta::Kind;
use actors_core::status::fleet::{Acked, Finaliser, Fleet, ProxyState};
use actors_core::translate::{Settings, Translation, Translator};
use serde_json::{Value, json};

const GATEWAYS: usize = 100;
const LISTENERS: usize = 4;
const ROUTES: usize = 1_000;

fn put(snapshot: &mut Snapshot, kind: Kind, name: &str, mut object: Value) {
    object["metadata"] = json!({ "name": name, "namespace": "shop", "generation": 1 });
    snapshot.put(observe(kind, &object));
}

fn route(index: usize, path: &str) -> Value {
    let rule = json!({ "matches": [{ "path": { "type": "PathPrefix", "value": path } }] });
    json!({ "spec": { "parentRefs": [{ "name": format!("g{}", index % GATEWAYS) }], "rules": [rule] } })
}

/// Before and after the change of one route.
fn change() -> (Translation, Translation) {
    let mut snapshot = Snapshot::default();
    let class = json!({
        "metadata": { "name": "portreeve" },
        "spec": { "controllerName": "portreeve.dev/gateway-controller" },
    });
    snapshot.put(observe(Kind::GatewayClass, &class));
    for gateway in 0..GATEWAYS {
        let listener = |number| {
            let hostname = format!("l{number}.g{gateway}.example.com");
            json!({ "name": format!("l{number}"), "port": 80, "protocol": "HTTP", "hostname": hostname })
        };
        let listeners: Vec<_> = (0..LISTENERS).map(listener).collect();
        let spec = json!({ "gatewayClassName": "portreeve", "listeners": listeners });
        put(&mut snapshot, Kind::Gateway, &format!("g{gateway}"), json!({ "spec": spec }));
    }
    for index in 0..ROUTES {
        put(&mut snapshot, Kind::HttpRoute, &format!("r{index}"), route(index, "/"));
    }
    let mut translator = Translator::new(Settings::default());
    let before = translator.update(&snapshot);
    put(&mut snapshot, Kind::HttpRoute, "r7", route(7, "/changed"));
    (before, translator.update(&snapshot))
}

fn holding(translation: &Translation) -> ProxyState {
    let acked = Acked { units: translation.units.clone(), broken: BTreeMap::new() };
    ProxyState { ready: true, acked: Some(acked), ..ProxyState::default() }
}

fn main() {
    let (before, after) = change();
    println!("proxies  verdicts at each answer to one change, mean");
    for proxies in [10, 100, 1_000] {
        let name = |index: usize| format!("proxy-{index}");
        let mut fleet = Fleet {
            proxies: (0..proxies).map(|index| (name(index), holding(&before))).collect(),
            led_for: Duration::from_secs(3600),
            now: 0,
        };
        let mut finaliser = Finaliser::default();
        finaliser.update(&after, &fleet);
        // Of a thousand answers, every tenth is enough to know.
        let step = (proxies / 100).max(1);
        let mut took = Duration::ZERO;
        for index in 0..proxies {
            fleet.proxies.insert(name(index), holding(&after));
            if index % step == 0 {
                let began = Instant::now();
                finaliser.update(&after, &fleet);
                took += began.elapsed();
            }
        }
        println!("{proxies:7}  {:?}", took / u32::try_from(proxies / step).unwrap_or(1));
    }
}
