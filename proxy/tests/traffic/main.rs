//! Traffic through a whole proxy, as the command runs it: its tree, its listen thread, its workers.

mod http2;
mod origin;
mod rig;
