//! The part of the control plane that `portreeve standalone` runs: files feed the same stores, join and
//! translation as a cluster does; nobody leads, nothing is written back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use actors_core::snapshot::meta::Kind;
use actors_core::translate::Settings as Translate;
use supervisor::Strategy::RestForOne;
use supervisor::{Address, Child, Gate, Intensity, StartError, branch, worker};
use tokio::sync::watch;

use super::MINUTE;
use crate::metrics::Metrics;
use crate::observe::files::manifest::Fault;
use crate::observe::files::{self, Admit, Files};
use crate::observe::node_watcher;
use crate::observe::route_watcher::{self, RouteWatcher};
use crate::observe::stores::Stores;
use crate::observe::translator::{self, Newest, Translator};

/// What is served from files.
#[derive(Clone)]
pub struct Standalone {
    /// Files and folders of manifests.
    pub paths: Vec<PathBuf>,
    /// What an API server would say of an object.
    pub admit: Admit,
    /// What the translation needs to know besides the objects.
    pub translate: Translate,
    /// The one proxy, which is this process: its name and address.
    pub proxy: (String, SocketAddr),
}

/// Reads files, and says what follows.
#[derive(Debug)]
pub struct Reader {
    /// The tree.
    pub running: supervisor::Running,
    /// The newest translation: units for the proxy, and statuses.
    pub translation: watch::Receiver<Newest>,
    /// What is wrong with the files.
    pub faults: watch::Receiver<Arc<Vec<Fault>>>,
}

/// Starts reading files.
///
/// # Errors
/// Where the tree does not come up.
pub async fn run(settings: Standalone) -> Result<Reader, StartError> {
    let (translation, faults) = (watch::Sender::default(), watch::Sender::default());
    let (translated, found) = (translation.subscribe(), faults.subscribe());
    let running = supervisor::run(tree(settings, translation, faults)).await?;
    Ok(Reader { running, translation: translated, faults: found })
}

fn tree(
    settings: Standalone,
    translation: watch::Sender<Newest>,
    faults: watch::Sender<Arc<Vec<Fault>>>,
) -> Child {
    let stores = Stores::new(Kind::ALL);
    let (name, address) = settings.proxy;
    stores.writer(Kind::Proxy).replace(node_watcher::named(&BTreeMap::from([(name, address)])));
    let (snapshot, metrics) = (watch::Sender::default(), Metrics::new());
    let files = files::Args { paths: settings.paths, admit: settings.admit, stores: stores.clone(), faults };
    let translator = translator::Args {
        settings: settings.translate,
        snapshot: snapshot.subscribe(),
        translation,
        wanted: watch::Sender::default(),
        metrics: metrics.clone(),
    };
    let joined = route_watcher::Args {
        stores,
        generation: Arc::default(),
        snapshot,
        resync: watch::Sender::default().subscribe(),
        gate: watch::Sender::new(Gate::Open(0)).subscribe(),
        metrics,
    };
    branch(
        "observe",
        RestForOne,
        Intensity::new(10, MINUTE),
        vec![
            worker("files", &Address::new(), move || (Files, files.clone())),
            worker("route-watcher", &Address::new(), move || (RouteWatcher, joined.clone())),
            worker("translator", &Address::new(), move || (Translator, translator.clone())),
        ],
    )
}
