//! Traffic through a whole proxy, as the command runs it: its tree, its listen thread, its workers.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking, and nobody imports it")]

mod authorisation;
mod backend_tls;
mod clients;
mod drain;
mod external;
mod grpc;
mod h2c;
mod handoff;
mod handover;
mod http1;
mod http2;
mod l4;
mod limits;
mod losses;
mod nameserver;
mod origin;
mod policies;
mod rig;
mod server;
mod shown;
mod swaps;
mod tls;
