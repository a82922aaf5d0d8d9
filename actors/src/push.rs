//! How a configuration reaches the proxies: who they are, how they are trusted, and the clients that
//! keep each of them at the newest one.

pub mod acks;
pub mod authority;
pub mod credentials;
pub mod enrolment;
pub mod freshness;
pub mod identity;
pub mod link;
pub mod mtls;
pub mod proxy_client;
pub mod pusher;
pub mod session;
