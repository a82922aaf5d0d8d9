//! How the cluster becomes a snapshot and a translation: watches (or files), stores, the joins.

pub mod content_reader;
pub mod convert;
pub mod files;
mod gather;
pub mod node_watcher;
pub mod resource;
pub mod resync;
pub mod route_watcher;
pub mod stores;
pub mod translator;
pub mod watch;
