//! Traffic through a whole proxy, as the command runs it: its tree, its listen thread, its workers.

mod drain;
mod http1;
mod http2;
mod origin;
mod rig;
mod swaps;
mod tls;
