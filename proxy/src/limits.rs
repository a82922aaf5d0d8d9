//! Owns the numbers that a proxy holds clients and endpoints to.
//!
//! Part of the settings, made once per proxy and copied to whoever enforces one. Tests scale them down.
//! Refuses to know how any of them is enforced.

use std::time::Duration;

/// Requests that may be in flight at one endpoint, where nothing else is said.
pub const REQUESTS_PER_ENDPOINT: u32 = 1024;

/// The limits of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of clients that may be open at a time.
    pub connections: u32,
    /// How many of them one client address may have; of IPv6 one /64, which is what one client has.
    pub connections_per_client: u32,
    /// Connections to endpoints that may be open at a time, idle ones included.
    pub upstream_connections: u32,
    /// Requests that may be in flight at one endpoint.
    pub requests_per_endpoint: u32,
    /// Sessions of datagrams that one listener may have; datagrams of more clients are dropped.
    pub datagram_sessions: u32,
    /// A session of datagrams in which nothing moves for this long ends, at the latest after twice as long.
    pub datagram_idle: Duration,
    /// What is open when its listener or its route goes may go on for this long.
    pub close_within: Duration,
    /// How long the content of a request may come slower than `body_rate`.
    pub body_grace: Duration,
    /// Bytes per second at which the content of a request must come.
    pub body_rate: u32,
}

impl Limits {
    /// The limits of a proxy that may have so many connections of clients. An upstream connection for each
    /// of them and a tenth more fit the open files that
    /// [`connection_budget`](crate::listen::socket::connection_budget) leaves; no client address takes more
    /// than a quarter of what all of them share.
    pub const fn new(connections: u32) -> Self {
        let quarter = connections / 4;
        Self {
            connections,
            connections_per_client: if quarter < 16 { 16 } else { quarter },
            upstream_connections: connections.saturating_add(connections / 10),
            requests_per_endpoint: REQUESTS_PER_ENDPOINT,
            datagram_sessions: 4096,
            datagram_idle: Duration::from_secs(60),
            close_within: Duration::from_secs(60),
            body_grace: Duration::from_secs(10),
            body_rate: 500,
        }
    }
}
