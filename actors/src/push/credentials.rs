//! Keeps the controller's own certificate good.
//!
//! Owns: nothing that lasts; the authority's key is in a Secret, in memory beside the tree, or elsewhere.
//! Reads: the authority, or a folder of identity files; whether this process leads.
//! Writes: the controller's identity; as leader, the Secret `portreeve-ca`: where it is missing, and with each
//! step of a succession.
//! Rebuilt from: the authority, or the files.
//!
//! With the Secret it needs `get`, `create` and `update` of Secrets in its namespace.

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

use super::authority::{Authority, Lives};
use super::identity::{Identity, IdentityError, Role, file};
use crate::client::{ANSWER, Unanswered, in_time};
use crate::retry::{Retry, chain};
use crate::task::{Task, on_change, report};
use crate::term::{Expired, Leadership, Term};

/// The Secret that holds the authority; only controllers can read it.
pub const SECRET: &str = "portreeve-ca";
/// The key of the Secret that holds the private key of a successor that was announced.
pub const NEXT_KEY: &str = "next.key";
/// How often a Secret or files are looked at again, at the least.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

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
    /// The API server refuses, or is silent.
    #[error("Secret {SECRET} can't be read or made")]
    Api(#[from] Unanswered),
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
    Ok(read(client, namespace).await?.map(|(authority, _)| authority))
}

/// The authority, and the Secret that it was read from.
async fn read(client: &Client, namespace: &str) -> Result<Option<(Authority, Secret)>, TrustError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let Some(secret) = in_time(api.get_opt(SECRET)).await?.filter(|secret| !is_empty(secret)) else {
        return Ok(None);
    };
    let text = |name: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(name));
        bytes
            .map(|bytes| String::from_utf8(bytes.0.clone()).map_err(|_| TrustError::Incomplete(name)))
            .transpose()
    };
    let needed = |name| text(name)?.ok_or(TrustError::Incomplete(name));
    let (trusted, key, next) = (needed(file::CHAIN)?, needed(file::KEY)?, text(NEXT_KEY)?);
    let authority = Authority::from_pem(&trusted, &key, next.as_deref())?;
    Ok(Some((authority, secret)))
}

fn data(authority: &Authority) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let next = authority.next_key_pem().map(|next| (NEXT_KEY.to_owned(), bytes(next)));
    let all = [
        (file::CHAIN.to_owned(), bytes(authority.certificates())),
        (file::KEY.to_owned(), bytes(authority.key_pem())),
    ];
    all.into_iter().chain(next).collect()
}

/// Made by the chart, for the first leader to fill: so controllers need no right to make Secrets.
fn is_empty(secret: &Secret) -> bool {
    secret.data.as_ref().is_none_or(BTreeMap::is_empty)
}

async fn create(client: &Client, namespace: &str, life: Duration) -> Result<(), TrustError> {
    let authority = Authority::generate(SystemTime::now(), life)?;
    let data = Some(data(&authority));
    let (api, params): (Api<Secret>, _) = (Api::namespaced(client.clone(), namespace), PostParams::default());
    let made = match in_time(api.get_opt(SECRET)).await? {
        Some(empty) if is_empty(&empty) => {
            in_time(api.replace(SECRET, &params, &Secret { data, ..empty })).await
        }
        _ => {
            let metadata = ObjectMeta { name: Some(SECRET.to_owned()), ..ObjectMeta::default() };
            let type_ = Some("Opaque".to_owned());
            in_time(api.create(&params, &Secret { metadata, data, type_, ..Secret::default() })).await
        }
    };
    match made {
        Ok(_) => {
            tracing::info!(namespace, secret = SECRET, "made the certificate authority");
            Ok(())
        }
        Err(Unanswered::Api(kube::Error::Api(status))) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Puts the next step of a succession in the Secret's place, if that is still what it was.
async fn replace(
    client: &Client,
    namespace: &str,
    next: &Authority,
    secret: Secret,
) -> Result<(), TrustError> {
    let secret = Secret { data: Some(data(next)), ..secret };
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    in_time(api.replace(SECRET, &PostParams::default(), &secret)).await?;
    let (ends, announced) = (jiff::Timestamp::try_from(next.not_after()).ok(), next.next_key_pem().is_some());
    let ends = ends.map(|ends| ends.to_string());
    tracing::info!(namespace, secret = SECRET, ends, announced, "a step in the succession of the authority");
    Ok(())
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
    /// How long certificates live; an own one is renewed after two thirds.
    pub lives: Lives,
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
            Trust::Memory(_) => self.args.lives.leaf * 2 / 3,
            Trust::Files(_) | Trust::Secret(..) => LOOK_AGAIN.min(self.args.lives.leaf / 3),
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
            let authority = held(args, client, namespace).await?;
            issue(&authority, args)
        }
    }
}

/// The authority in the Secret; as leader, made where it is missing and succeeded where that is due.
async fn held(args: &Args, client: &Client, namespace: &str) -> Result<Authority, TrustError> {
    let Some((authority, secret)) = read(client, namespace).await? else {
        let term = Term::current(&args.leadership).ok_or(TrustError::Missing)?;
        term.check(ANSWER)?;
        create(client, namespace, args.lives.authority).await?;
        return load(client, namespace).await?.ok_or(TrustError::Missing);
    };
    let Some(term) = Term::current(&args.leadership) else { return Ok(authority) };
    let step = async {
        let Some(next) = authority.step(SystemTime::now(), args.lives)? else { return Ok(None) };
        term.check(ANSWER)?;
        replace(client, namespace, &next, secret).await?;
        Ok::<_, TrustError>(Some(next))
    };
    match step.await {
        Ok(next) => Ok(next.unwrap_or(authority)),
        Err(error) => {
            // What there is goes on: a step may wait for months.
            tracing::warn!(error = chain(&error), "the authority can't be succeeded: it is tried again");
            Ok(authority)
        }
    }
}

fn file_error(source: std::io::Error) -> IdentityError {
    IdentityError::File { path: "of the identity folder".to_owned(), source }
}

/// The present certificate while two thirds of its life are not over, or it lives as long as its authority,
/// and that is the same; else a new one.
fn issue(authority: &Authority, args: &Args) -> Result<Identity, TrustError> {
    let (now, life) = (SystemTime::now(), args.lives.leaf);
    if let Some(current) = &*args.identity.borrow()
        && current.authorities == authority.certificates()
        && (current.not_after > now + life / 3 || current.not_after == authority.not_after())
    {
        return Ok(Identity::clone(current));
    }
    tracing::info!(?life, "issued a certificate to this controller");
    Ok(authority.issue(&Role::Controller, now, life)?)
}
