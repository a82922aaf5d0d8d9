//! Owns: the bounds on how long the API server may keep a request unanswered.
//! Called where the tree is made, and by who waits for one answer. Refuses to know what is asked.

use std::time::Duration;

use kube::Client;
use thiserror::Error;
use tower::timeout::Timeout;

/// An answer must begin within this time; what follows of it has bounds of its own.
const ANSWER_BEGINS: Duration = Duration::from_secs(10);
/// How long one whole answer may take where somebody waits for it.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// The API server refuses, or can't be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API server is silent.
    #[error("no answer within {ANSWER:?}: see whether the API server is reachable")]
    Late,
}

/// The answer to a request, if it comes within [`ANSWER`].
pub(crate) async fn in_time<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Unanswered> {
    Ok(tokio::time::timeout(ANSWER, request).await.map_err(|_| Unanswered::Late)??)
}

/// A client whose requests fail when their answer does not begin in time: a server that is gone without a
/// word is noticed also where a watch is just being opened.
pub(crate) fn bounded(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let send = tower::service_fn(move |request| {
        let client = client.clone();
        async move { client.send(request).await }
    });
    Client::new(Timeout::new(send, ANSWER_BEGINS), namespace)
}
