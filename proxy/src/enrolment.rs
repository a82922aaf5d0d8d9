//! Keeps the proxy's identity good where it is a Pod: asks a controller for a certificate and writes it where
//! the admin port looks for it.
//!
//! Owns: the files `ca.crt`, `tls.crt` and `tls.key` of the identity's folder.
//! Reads: those files; the token and the trusted authorities that the Pod is given.
//! Writes: those files.
//! Rebuilt from: those files. Without any controller a certificate that is still good goes on being used.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ractor::{Actor, ActorProcessingErr, ActorRef};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use supervisor::{Address, message_names};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

mod ask;
mod files;

use crate::admin::identity::Identity;
use files::Files;

/// How often the files and the trusted authorities are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles up to [`LOOK_EVERY`].
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The least time between two certificates, whatever the files say.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);

/// Where a proxy gets its identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolment {
    /// Controllers as `HOST:PORT`; any of them will do.
    pub controllers: Vec<String>,
    /// The file of the Pod's token.
    pub token: PathBuf,
    /// The file of the certificates that controllers' certificates come from, PEM.
    pub authorities: PathBuf,
    /// The folder of the identity.
    pub folder: PathBuf,
}

/// Why there is no new identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// A file that the Pod is given can't be read.
    #[error("{path} can't be read: is it mounted into the proxy's Pod?")]
    Given {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the identity can't be written.
    #[error("the identity's files in {folder} can't be written")]
    Written {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key or request can be made.
    #[error("a certificate request can't be made")]
    Request(#[from] rcgen::Error),
    /// No controller has given one.
    #[error("no controller gives this proxy a certificate: {0}")]
    Refused(String),
}

/// What it is told.
#[derive(Debug)]
pub enum Msg {
    /// It is time to look.
    Due,
    /// What looking came to; whether a certificate was got.
    Looked(Result<bool, EnrolmentError>),
}

message_names!(Msg { Due, Looked });

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Args {
    /// Who the proxy is.
    pub identity: Arc<str>,
    /// Where its identity comes from.
    pub enrolment: Enrolment,
    /// Its own address.
    pub myself: Address<Msg>,
}

/// What it holds.
#[derive(Debug)]
pub struct State {
    args: Args,
    retry: Duration,
    /// When the last certificate was got.
    got: Option<SystemTime>,
    _waiting: Option<AbortOnDropHandle<()>>,
}

/// The actor.
#[derive(Debug)]
pub struct Enroller;

impl Actor for Enroller {
    type Msg = Msg;
    type State = State;
    type Arguments = Args;

    async fn pre_start(&self, _: ActorRef<Msg>, args: Args) -> Result<State, ActorProcessingErr> {
        let mut state = State { args, retry: FIRST_RETRY, got: None, _waiting: None };
        state.look();
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<Msg>,
        message: Msg,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Msg::Due => state.look(),
            Msg::Looked(result) => state.wait(result),
        }
        Ok(())
    }
}

impl State {
    fn look(&mut self) {
        let (args, got) = (self.args.clone(), self.got);
        self.after(async move { Msg::Looked(look(&args, got).await) });
    }

    fn wait(&mut self, result: Result<bool, EnrolmentError>) {
        let delay = match result {
            Ok(got) => {
                self.got = if got { Some(SystemTime::now()) } else { self.got };
                self.retry = FIRST_RETRY;
                LOOK_EVERY
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "tried again");
                self.retry = (self.retry * 2).min(LOOK_EVERY);
                self.retry
            }
        };
        self.after(async move {
            tokio::time::sleep(delay).await;
            Msg::Due
        });
    }

    fn after(&mut self, future: impl Future<Output = Msg> + Send + 'static) {
        let myself = self.args.myself.clone();
        self._waiting = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            // Refused only where the actor is about to end anyway.
            let _ = myself.send(future.await);
        })));
    }
}

/// Gets a certificate where that is due.
async fn look(args: &Args, got: Option<SystemTime>) -> Result<bool, EnrolmentError> {
    let enrolment = &args.enrolment;
    let authorities = given(&enrolment.authorities)?;
    let files = Files::new(&enrolment.folder);
    let now = SystemTime::now();
    if let Ok(held) = files.read() {
        let fresh = got.is_some_and(|got| now < got + AT_MOST_EVERY);
        if fresh || (*held.authorities == *authorities && lasts(&held.chain, now)) {
            return Ok(false);
        }
    }
    let token = given(&enrolment.token)?;
    let key = KeyPair::generate()?;
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    let enrolled = ask::any(&enrolment.controllers, &authorities, token.trim(), request).await?;
    let identity = Identity {
        authorities: enrolled.authorities.into(),
        chain: enrolled.chain.into(),
        key: key.serialize_pem().into(),
    };
    let written = files.write(&identity);
    written.map_err(|source| EnrolmentError::Written { folder: enrolment.folder.clone(), source })?;
    info!(identity = &*args.identity, "got a certificate from a controller");
    Ok(true)
}

fn given(path: &Path) -> Result<String, EnrolmentError> {
    fs::read_to_string(path).map_err(|source| EnrolmentError::Given { path: path.to_owned(), source })
}

/// Whether more than a third of the certificate's life is left.
fn lasts(chain: &str, now: SystemTime) -> bool {
    let Ok(leaf) = CertificateDer::from_pem_slice(chain.as_bytes()) else { return false };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&leaf) else { return false };
    let validity = parsed.validity();
    let begin = SystemTime::from(validity.not_before.to_datetime());
    let end = SystemTime::from(validity.not_after.to_datetime());
    end.duration_since(begin).is_ok_and(|life| now + life / 3 < end)
}

#[cfg(test)]
mod tests;
