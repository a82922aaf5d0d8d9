//! Taking over what the process before this one has in force. It counts as what is on disk does: for its
//! endpoints an hour without a controller, and any controller's word stands above it.

use std::time::Duration;

use proxy_config::wire::Reply;
use ractor::RpcReplyPort;
use tracing::info;

use super::State;
use super::in_force::{InForce, Source};
use crate::last_good::Remembered;
use crate::resolver::names::Known;

/// How long the one before serves on because a name was not asked for yet, or a bind is not known.
const INHERIT_ANSWERED_WITHIN: Duration = Duration::from_secs(3);

impl State {
    pub(super) fn inherit(&mut self, remembered: Remembered, known_names: Known, reply: RpcReplyPort<Reply>) {
        self.answer_waiting();
        let known = self.in_force.clone();
        let next = InForce::from_disk(remembered);
        let is_newer = next.version > known.version;
        // What is on disk may have been confirmed since, where that could not be noted.
        let is_younger =
            known.source == Source::Disk && next.version == known.version && next.confirmed > known.confirmed;
        if !known.is_some() || is_newer || is_younger {
            let (put, delete) = next.units.diff(&known.units);
            let (version, root) = (next.version, next.units.root());
            info!(term = version.term, generation = version.generation, "in force, from the process before");
            self.in_force = next.into();
            self.schedule_expiry();
            let table = self.compiler.apply(&put, &delete, version, root);
            self.swap(table);
            self.publish(InForce::clone(&self.in_force.clone()));
        }
        // Now that it is known which are wanted.
        self.args.names.inherit(known_names);
        self.take_names();
        self.answer_when_known(reply, INHERIT_ANSWERED_WITHIN);
    }
}
