//! Shows proxies whom to trust before they have an identity of their own.
//!
//! Owns: nothing that lasts.
//! Reads: the authorities of the controller's identity; the ConfigMap `portreeve-ca`.
//! Writes: that ConfigMap, where it says something else.
//! Rebuilt from: the identity.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use thiserror::Error;
use tokio::sync::watch;

use crate::client::{ANSWER, Unanswered, in_time};
use crate::push::identity::{Identity, file};
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};
use crate::term::{Expired, Leadership, Term};

/// The ConfigMap that proxies mount.
pub const CONFIG_MAP: &str = "portreeve-ca";
/// How often it is looked at though nothing has changed here.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Why it can't be written.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The API server refuses, or is silent.
    #[error("ConfigMap {CONFIG_MAP} can't be read or written")]
    Api(#[from] Unanswered),
    /// Leadership ended before.
    #[error(transparent)]
    Expired(#[from] Expired),
}

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// It is time to look, or the authorities have changed.
    Due,
    /// What looking, and writing if need be, came to.
    Looked(Result<(), BundleError>),
}

supervisor::message_names!(Msg { Due, Looked });

/// What it needs.
#[derive(Clone)]
pub struct Args {
    /// The API server.
    pub client: Client,
    /// Where the ConfigMap is.
    pub namespace: String,
    /// The controller's identity, which holds the authorities.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Option<Leadership>>,
}

/// What it holds.
pub struct State {
    args: Args,
    retry: Retry,
    waiting: Vec<Task>,
}

/// The actor.
pub struct TrustBundle;

impl Actor for TrustBundle {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, myself: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let mut state = State { args, retry: Retry::new(), waiting: Vec::new() };
        state.look(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Due => state.look(&myself),
            Msg::Looked(result) => state.wait(&myself, result),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Msg>) {
        let identity = self.args.identity.borrow_and_update().clone();
        let (args, term) = (self.args.clone(), Term::current(&self.args.leadership));
        self.waiting = vec![match identity.zip(term) {
            Some((identity, term)) => {
                report(myself, async move { Msg::Looked(publish(&args, &term, &identity.authorities).await) })
            }
            None => on_change(myself, &self.args.identity, || Msg::Due),
        }];
    }

    fn wait(&mut self, myself: &ActorRef<Msg>, result: Result<(), BundleError>) {
        let delay = match result {
            Ok(()) => {
                self.retry.reset();
                LOOK_AGAIN
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "proxies can't be shown whom to trust: tried again");
                self.retry.delay()
            }
        };
        let again = report(myself, async move {
            tokio::time::sleep(delay).await;
            Msg::Due
        });
        self.waiting = vec![again, on_change(myself, &self.args.identity, || Msg::Due)];
    }
}

/// Writes the authorities where the ConfigMap says something else.
async fn publish(args: &Args, term: &Term, authorities: &str) -> Result<(), BundleError> {
    let api: Api<ConfigMap> = Api::namespaced(args.client.clone(), &args.namespace);
    let data = || Some(BTreeMap::from([(file::AUTHORITIES.to_owned(), authorities.to_owned())]));
    let found = in_time(api.get_opt(CONFIG_MAP)).await?;
    match found {
        Some(found) if found.data == data() => return Ok(()),
        Some(_) => {
            term.check(ANSWER)?;
            let patch = Patch::Merge(serde_json::json!({ "data": data() }));
            in_time(api.patch(CONFIG_MAP, &PatchParams::default(), &patch)).await?;
        }
        None => {
            term.check(ANSWER)?;
            let metadata = ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: data(), ..ConfigMap::default() };
            in_time(api.create(&PostParams::default(), &map)).await?;
        }
    }
    tracing::info!(namespace = args.namespace, config_map = CONFIG_MAP, "wrote whom proxies are to trust");
    Ok(())
}
