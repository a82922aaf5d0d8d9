//! Answers to pushes, and what they wait for: the outcome of binds, and first answers for names outside the
//! cluster.

use std::time::Duration;

use proxy_config::wire::Reply;
use ractor::RpcReplyPort;

use super::{Msg, State};

/// How long the answer to a push waits for what that asks for.
pub(super) const PUSH_ANSWERED_WITHIN: Duration = Duration::from_millis(500);

impl State {
    pub(super) fn answer(&self, port: RpcReplyPort<Reply>, reply: Reply) {
        self.args.metrics.pushes.answered(&reply);
        // Whoever asked may have given up.
        let _ = port.send(reply);
    }

    pub(super) fn answer_when_known(&mut self, reply: RpcReplyPort<Reply>, within: Duration) {
        let overdue = self.args.myself.send_after(within, Msg::AnswerOverdue);
        self.waiting = Some((reply, overdue));
        self.binds_reported();
    }

    pub(super) fn answer_waiting(&mut self) {
        if let Some((reply, _)) = self.waiting.take() {
            self.answer(reply, Reply::Ack(self.ack()));
        }
    }

    pub(super) fn binds_reported(&mut self) {
        self.args.report.borrow_and_update();
        self.publish_broken();
        self.answer_if_known();
    }

    fn answer_if_known(&mut self) {
        let are_reported = {
            let report = self.args.report.borrow();
            self.binds.iter().all(|bind| report.contains_key(bind))
        };
        if are_reported && self.args.names.are_known() {
            self.answer_waiting();
        }
    }

    pub(super) fn resolved(&mut self) {
        self.take_names();
        self.answer_if_known();
    }

    /// Gives backends the addresses that are known by now.
    pub(super) fn take_names(&mut self) {
        let known = self.args.names.known().borrow().clone();
        if let Some(table) = self.compiler.resolve(&known) {
            self.swap(table);
        }
    }
}
