//! Owns: the bound on how long the API server may keep a request unanswered.
//! Called once, where the tree is made. Refuses to know what is asked.

use std::time::Duration;

use kube::Client;
use tower::timeout::Timeout;

/// An answer must begin within this time; what follows of it has bounds of its own.
const ANSWER_BEGINS: Duration = Duration::from_secs(10);

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
