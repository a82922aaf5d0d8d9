//! Keeps the controller's own certificate good.
//!
//! Owns: nothing that lasts; the authority's key is in a Secret, in memory beside the tree, or elsewhere.
//! Reads: the authority, or a folder of identity files; whether this process leads.
//! Writes: the controller's identity; as leader, the Secret `portreeve-ca` where it is missing.
//! Rebuilt from: the authority, or the files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use thiserror::Error;
use tokio::sync::watch;

use super::identity::{AUTHORITY_LIFE, Authority, Identity, IdentityError, Role, file};
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};
use crate::term::{Expired, Leadership, Term};

/// The Secret that holds the authority; only controllers can read it.
pub const SECRET: &str = "portreeve-ca";
/// How often a Secret or files are looked at again, at the least.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long reading or writing the Secret may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Where the controller's identity comes from.
#[derive(Clone)]
pub enum Trust {
    /// An authority in memory: the demonstration, tests.
    Memory(Arc<Authority>),
    /// Files that a command has written: `ca.crt`, `tls.crt`, `tls.key`.
    Files(PathBuf),
    /// The authority in Secret `portreeve-ca` of a namespace.
    Secret(Client, String),
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(_) => f.write_str("Memory"),
            Self::Files(folder) => f.debug_tuple("Files").field(folder).finish(),
            Self::Secret(_, namespace) => f.debug_tuple("Secret").field(namespace).finish(),
        }
    }
}

/// Why the authority can't be had.
#[derive(Debug, Error)]
pub enum TrustError {
    /// It can't be read or used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The API server refuses.
    #[error("Secret {SECRET} can't be read or made")]
    Api(#[from] kube::Error),
    /// The API server is silent.
    #[error("no answer about Secret {SECRET} within {ANSWER:?}: see whether the API server is reachable")]
    Late,
    /// It lacks a key.
    #[error("Secret {SECRET} holds no {0}: delete it, and the leader makes a new one")]
    Incomplete(&'static str),
    /// It does not exist, and this process may not make it.
    #[error("Secret {SECRET} does not exist yet: the leader makes it")]
    Missing,
    /// Leadership ended before it was made.
    #[error(transparent)]
    Expired(#[from] Expired),
}

/// The authority in the Secret of a namespace; `None` where there is none.
///
/// # Errors
/// Where it can't be read.
pub async fn load(client: &Client, namespace: &str) -> Result<Option<Authority>, TrustError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = in_time(api.get_opt(SECRET)).await? else { return Ok(None) };
    let data = secret.data.unwrap_or_default();
    let text = |name: &'static str| {
        let bytes = data.get(name).ok_or(TrustError::Incomplete(name))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| TrustError::Incomplete(name))
    };
    Ok(Some(Authority::from_pem(&text(file::CHAIN)?, &text(file::KEY)?)?))
}

/// The authority in the Secret of a namespace, made where there is none: for the command that writes
/// identity files. Two that make it at once end with the same one.
///
/// # Errors
/// Where it can be neither read nor made.
pub async fn load_or_create(client: &Client, namespace: &str) -> Result<Authority, TrustError> {
    if let Some(authority) = load(client, namespace).await? {
        return Ok(authority);
    }
    create(client, namespace).await?;
    load(client, namespace).await?.ok_or(TrustError::Missing)
}

async fn create(client: &Client, namespace: &str) -> Result<(), TrustError> {
    let authority = Authority::generate(SystemTime::now(), AUTHORITY_LIFE)?;
    let data = BTreeMap::from([
        (file::CHAIN.to_owned(), ByteString(authority.certificates().as_bytes().to_vec())),
        (file::KEY.to_owned(), ByteString(authority.key_pem().into_bytes())),
    ]);
    let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
    let secret = Secret { metadata, data: Some(data), type_: Some("Opaque".to_owned()), ..Secret::default() };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match in_time(api.create(&PostParams::default(), &secret)).await {
        Ok(_) => {
            tracing::info!(namespace, secret = SECRET, "made the certificate authority");
            Ok(())
        }
        Err(TrustError::Api(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, TrustError> {
    Ok(tokio::time::timeout(ANSWER, request).await.map_err(|_| TrustError::Late)??)
}

/// What it can be told.
#[derive(Debug)]
pub enum Msg {
    /// It is time to look, or leadership has changed.
    Due,
    /// What looking gave.
    Looked(Result<Arc<Identity>, TrustError>),
}

supervisor::message_names!(Msg { Due, Looked });

/// What it needs.
#[derive(Clone, Debug)]
pub struct Args {
    /// Where the identity comes from.
    pub trust: Trust,
    /// How long an own certificate lives; it is renewed after two thirds.
    pub life: Duration,
    /// Whether this process leads.
    pub leadership: watch::Receiver<Option<Leadership>>,
    /// The controller's identity.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    retry: Retry,
    waiting: Vec<Task>,
}

/// The actor.
#[derive(Debug)]
pub struct Credentials;

impl Actor for Credentials {
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
            Msg::Looked(result) => state.take(&myself, result),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self, myself: &ActorRef<Msg>) {
        self.args.leadership.borrow_and_update();
        let args = self.args.clone();
        self.waiting = vec![report(myself, async move { Msg::Looked(look(&args).await.map(Arc::new)) })];
    }

    fn take(&mut self, myself: &ActorRef<Msg>, result: Result<Arc<Identity>, TrustError>) {
        let delay = match result {
            Ok(identity) => {
                self.retry.reset();
                self.publish(identity)
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "the controller's identity can't be had: tried again");
                self.retry.delay()
            }
        };
        self.waiting = vec![report(myself, async move {
            tokio::time::sleep(delay).await;
            Msg::Due
        })];
        if self.args.identity.borrow().is_none() {
            self.waiting.push(on_change(myself, &self.args.leadership, || Msg::Due));
        }
    }

    /// Publishes what is new; returns when to look again.
    fn publish(&self, identity: Arc<Identity>) -> Duration {
        self.args.identity.send_if_modified(|current| {
            let changed = current.as_ref() != Some(&identity);
            *current = Some(identity);
            changed
        });
        match self.args.trust {
            Trust::Memory(_) => self.args.life * 2 / 3,
            Trust::Files(_) | Trust::Secret(..) => LOOK_AGAIN.min(self.args.life / 3),
        }
    }
}

async fn look(args: &Args) -> Result<Identity, TrustError> {
    match &args.trust {
        Trust::Memory(authority) => issue(authority, args),
        Trust::Files(folder) => {
            let folder = folder.clone();
            let read = move || Identity::read(&folder);
            Ok(tokio::task::spawn_blocking(read)
                .await
                .map_err(std::io::Error::other)
                .map_err(file_error)??)
        }
        Trust::Secret(client, namespace) => {
            let authority = match load(client, namespace).await? {
                Some(authority) => authority,
                None => {
                    let term = Term::current(&args.leadership).ok_or(TrustError::Missing)?;
                    term.check(ANSWER)?;
                    create(client, namespace).await?;
                    load(client, namespace).await?.ok_or(TrustError::Missing)?
                }
            };
            issue(&authority, args)
        }
    }
}

fn file_error(source: std::io::Error) -> IdentityError {
    IdentityError::File { path: "of the identity folder".to_owned(), source }
}

/// The present certificate while two thirds of its life are not over and its authority is the same; else
/// a new one.
fn issue(authority: &Authority, args: &Args) -> Result<Identity, TrustError> {
    let now = SystemTime::now();
    if let Some(current) = &*args.identity.borrow()
        && current.authorities == authority.certificates()
        && current.not_after > now + args.life / 3
    {
        return Ok(Identity::clone(current));
    }
    tracing::info!(life = ?args.life, "issued a certificate to this controller");
    Ok(authority.issue(&Role::Controller, now, args.life)?)
}
