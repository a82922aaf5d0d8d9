//! Routes of streams and datagrams: `TCPRoute`, `UDPRoute`, `TLSRoute`.

use serde::{Deserialize, Serialize};

use crate::name::ObjectName;
use crate::route::{Attachment, WeightedBackend};

/// A route that knows nothing of HTTP: a connection, or a UDP session, is given to one backend by weight
/// and stays there.
///
/// A listener gives each connection to one route: of TLS by the most specific server name, then, as
/// everywhere, to the oldest one, then to the one whose `namespace/name` sorts first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct L4Route {
    /// The kind of the object: `TCPRoute`, `UDPRoute` or `TLSRoute`.
    pub kind: String,
    /// The object.
    pub name: ObjectName,
    /// Its creation time in seconds since 1970.
    pub created: i64,
    /// The listeners that took it. The hostnames are server names, of `TLSRoute` alone.
    pub attachments: Vec<Attachment>,
    /// Where connections go, by weight; their filters are empty. With none, or where the share is
    /// invalid, the connection is closed at once (datagrams are dropped).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<WeightedBackend>,
}
