//! The port for controllers and who acts for them, by mutual TLS: the configuration without its secrets,
//! and the full resync.

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use proxy_config::name::UnitKind;
use proxy_config::unit::EncodedUnit;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::accept::accept;
use super::secured::Port;
use crate::observe::{resync, watch};
use crate::push::identity::Role;
use crate::push::mtls;
use crate::tree::edges::Edges;

/// The port.
const PORT: Port = Port { name: "admin", tls: |identity| mtls::server(identity, &Role::Controller) };

/// Serves the port until it is dropped.
pub(super) async fn serve(listener: TcpListener, edges: Edges) -> io::Result<()> {
    let router = router(edges.clone());
    accept(listener, |stream, peer| PORT.serve(stream, peer, edges.clone(), router.clone())).await
}

fn router(edges: Edges) -> Router {
    Router::new().route("/config", get(config)).route("/reload", post(reload)).with_state(edges)
}

async fn config(State(edges): State<Edges>) -> Response {
    let Some(translation) = edges.translation.borrow().clone() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "nothing has been translated yet\n").into_response();
    };
    let units: Vec<_> = translation.units.iter().map(shown).collect();
    Json(json!({
        "generation": translation.generation,
        "root": translation.units.root(),
        "units": units,
    }))
    .into_response()
}

/// A unit; of a private key, and of what this version does not know, the hash alone.
fn shown(unit: &EncodedUnit) -> Value {
    let open = unit.id.kind().is_some_and(|kind| kind != UnitKind::Key);
    json!({ "id": unit.id, "hash": unit.hash, "body": open.then(|| unit.body.clone()) })
}

/// Lists everything again, and looks again at all that follows from it.
async fn reload(State(edges): State<Edges>) -> (StatusCode, String) {
    let refused: Vec<_> = (edges.watched.iter())
        .filter(|watched| watched.watcher.send(watch::Msg::Relist).is_err())
        .map(|watched| watched.resource.plural())
        .collect();
    resync::ask(&edges.resync);
    if refused.is_empty() {
        (StatusCode::ACCEPTED, "everything is listed again\n".to_owned())
    } else {
        // Those that restart list again by themselves.
        (StatusCode::ACCEPTED, format!("listed again; restarting just now: {}\n", refused.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::certificate::PrivateKey;
    use proxy_config::name::{ObjectName, UnitId};
    use proxy_config::unit::Unit;

    use super::*;

    #[test]
    fn a_private_key_is_never_shown() {
        let id = UnitId::key(&ObjectName::new("ns", "s"));
        let unit = EncodedUnit::new(id, &Unit::Key(PrivateKey { pem: "SECRET".into() }));
        let text = shown(&unit).to_string();
        assert!(text.contains("key/ns/s") && !text.contains("SECRET"), "{text}");
    }
}
