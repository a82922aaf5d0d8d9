//! Endpoints that no controller confirms: for how long they are used.

use std::time::{Duration, SystemTime};

use tracing::warn;

use super::in_force::Source;
use super::{Msg, State};

impl State {
    pub(super) fn schedule_expiry(&mut self) {
        self.expiry = match self.in_force.endpoints_valid_for(SystemTime::now()) {
            None => None,
            Some(Duration::ZERO) => {
                self.compiler.without_endpoints(true);
                None
            }
            Some(left) => {
                // What is inherited may be younger than what was on disk.
                if self.compiler.is_without_endpoints() {
                    self.compiler.without_endpoints(false);
                }
                Some(self.args.myself.send_after(left, Msg::ExpireEndpoints))
            }
        };
    }

    pub(super) fn expire_endpoints(&mut self) {
        if self.in_force.source == Source::Disk {
            warn!("no controller has confirmed the endpoints from disk: they are not used any more");
            let table = self.compiler.without_endpoints(true);
            self.swap(table);
        }
    }

    /// A controller speaks: what it confirms is not old.
    pub(super) fn trust_endpoints(&mut self) {
        self.expiry = None;
        if self.compiler.is_without_endpoints() {
            let table = self.compiler.without_endpoints(false);
            self.swap(table);
        }
    }
}
