//! How a configuration reaches the proxies: who they are, how they are trusted, and the clients that
//! keep each of them at the newest one.

pub mod identity;
pub mod mtls;
pub mod session;
