//! Owns: how a Pod proves that it is one of our proxies, and what it is given then.
//! Called by the admin actor, which takes the requests. Refuses to know how they arrive.
//!
//! A proxy sends a certificate request with its service account's token, which is bound to its Pod and of
//! use for nothing else. Only the public key of the request counts: what the certificate says follows
//! from the token. docs/adr/0009 says why.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use proxy_config::wire::Enrolled;
use thiserror::Error;

use super::authority::LEAF_LIFE;
use super::credentials::{self, TrustError};
use super::identity::{IdentityError, Role};
use crate::client::{Unanswered, in_time};
use crate::observe::resource::ProxyPods;

/// The audience that tokens must be made for.
pub const AUDIENCE: &str = "portreeve.dev/proxy";
/// Where a token says which Pod it is bound to. Source: KEP-1205.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a proxy is given nothing.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    /// The API server does not vouch for the token.
    #[error("the token is not valid for audience {AUDIENCE}: {0}")]
    Token(String),
    /// The token is somebody else's.
    #[error("the token is not bound to a proxy's Pod: {0}")]
    NotAProxy(&'static str),
    /// The request can't be signed.
    #[error("the certificate request can't be signed")]
    Request(#[source] IdentityError),
    /// The API server refuses, or is silent.
    #[error("the API server can't say whose the token is")]
    Api(#[from] Unanswered),
    /// The authority is not to be had.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Gives proxies their identity.
#[derive(Clone)]
pub struct Enrolment {
    client: Client,
    pods: Arc<ProxyPods>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment").field("pods", &self.pods).finish_non_exhaustive()
    }
}

impl Enrolment {
    /// For the proxies that these Pods are; the authority is in the Secret of their namespace.
    pub fn new(client: Client, pods: ProxyPods) -> Self {
        Self { client, pods: Arc::new(pods) }
    }

    /// Signs the request of the proxy whose token this is.
    ///
    /// # Errors
    /// Where the token is not that of one of our proxies, or the request or the authority can't be used.
    pub async fn enrol(&self, token: String, request: &str) -> Result<Enrolled, EnrolmentError> {
        let user = self.review(token).await?;
        let (name, uid) = pod_of(&user, &self.pods.namespace)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.pods.namespace);
        let pod = in_time(pods.get_opt(name)).await?;
        let pod = pod.ok_or(EnrolmentError::NotAProxy("its Pod does not exist"))?;
        check(&pod, uid, &self.pods.selector)?;
        let authority = credentials::load(&self.client, &self.pods.namespace).await?;
        let authority = authority.ok_or(TrustError::Missing)?;
        let role = Role::Proxy(uid.to_owned());
        let chain = authority.sign(request, &role, SystemTime::now(), LEAF_LIFE);
        let chain = chain.map_err(EnrolmentError::Request)?;
        tracing::info!(pod = name, uid, "signed a certificate for a proxy");
        Ok(Enrolled { chain, authorities: authority.certificates().to_owned() })
    }

    /// Whose token it is.
    async fn review(&self, token: String) -> Result<UserInfo, EnrolmentError> {
        let audiences = Some(vec![AUDIENCE.to_owned()]);
        let spec = TokenReviewSpec { token: Some(token), audiences };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = in_time(reviews.create(&PostParams::default(), &review)).await?.status;
        let status = status.unwrap_or_default();
        let ours = status.audiences.is_some_and(|audiences| audiences.iter().any(|one| one == AUDIENCE));
        match status.user {
            Some(user) if status.authenticated == Some(true) && ours => Ok(user),
            _ => Err(EnrolmentError::Token(status.error.unwrap_or_else(|| "it is for another one".into()))),
        }
    }
}

/// The name and uid of the Pod that a token is bound to.
fn pod_of<'a>(user: &'a UserInfo, namespace: &str) -> Result<(&'a str, &'a str), EnrolmentError> {
    let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
    if account.and_then(|account| account.split_once(':')).is_none_or(|(found, _)| found != namespace) {
        return Err(EnrolmentError::NotAProxy("it is of no service account of the proxies' namespace"));
    }
    let one = |key: &str| user.extra.as_ref()?.get(key)?.first().map(String::as_str);
    one(POD_NAME).zip(one(POD_UID)).ok_or(EnrolmentError::NotAProxy("it names no Pod"))
}

/// Whether it is the Pod that was meant, and one of our DaemonSet's.
fn check(pod: &Pod, uid: &str, selector: &str) -> Result<(), EnrolmentError> {
    let refuse = |reason| Err(EnrolmentError::NotAProxy(reason));
    if pod.metadata.uid.as_deref() != Some(uid) {
        return refuse("another Pod has its name by now");
    }
    let labels = pod.labels();
    let has = |pair: &str| {
        pair.split_once('=').is_some_and(|(key, value)| labels.get(key).is_some_and(|found| found == value))
    };
    if !selector.split(',').all(has) {
        return refuse("its Pod lacks the labels of a proxy");
    }
    let owned = (pod.owner_references().iter()).any(|owner| {
        owner.controller == Some(true) && owner.kind == "DaemonSet" && owner.api_version == "apps/v1"
    });
    if owned { Ok(()) } else { refuse("its Pod is of no DaemonSet") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SELECTOR: &str = "app=portreeve,part=proxy";

    fn user(name: &str, extra: serde_json::Value) -> UserInfo {
        serde_json::from_value(json!({ "username": name, "extra": extra })).unwrap()
    }

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> Pod {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "portreeve-proxy", "uid": "d", "controller": true,
        });
        let labels = json!({ "app": "portreeve", "part": "proxy", "more": "x" });
        let mut pod = json!({ "metadata": { "uid": "u", "labels": labels, "ownerReferences": [owner] } });
        change(&mut pod["metadata"]);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_token_must_be_bound_to_a_pod_of_the_proxies_namespace() {
        let bound = json!({ POD_NAME: ["p"], POD_UID: ["u"] });
        let ours = user("system:serviceaccount:edge:proxy", bound.clone());
        assert_eq!(pod_of(&ours, "edge").unwrap(), ("p", "u"));
        for stranger in
            ["system:serviceaccount:edge2:proxy", "system:serviceaccount:edge", "edge", "system:node:a"]
        {
            assert!(pod_of(&user(stranger, bound.clone()), "edge").is_err(), "{stranger}");
        }
        let unbound = user("system:serviceaccount:edge:proxy", json!({ POD_NAME: ["p"] }));
        assert!(pod_of(&unbound, "edge").is_err());
    }

    #[test]
    fn a_pod_must_be_the_one_that_was_meant_and_of_our_daemon_set() {
        let refused = |pod: Pod| check(&pod, "u", SELECTOR).is_err();
        assert!(!refused(pod(|_| {})));
        assert!(refused(pod(|meta| meta["uid"] = json!("v"))));
        assert!(refused(pod(|meta| meta["labels"]["part"] = json!("controller"))));
        assert!(refused(pod(|meta| meta["ownerReferences"] = json!([]))));
        assert!(refused(pod(|meta| meta["ownerReferences"][0]["kind"] = json!("ReplicaSet"))));
        assert!(refused(pod(|meta| meta["ownerReferences"][0]["controller"] = json!(false))));
    }
}
