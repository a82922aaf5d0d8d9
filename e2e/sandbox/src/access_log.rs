//! Every request and what came of it, for tests to read.
//!
//! Owns the entries, newest last, bounded. Called once per request. It refuses to keep bodies.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::{
    call::{Call, Verb},
    faults::Fault,
};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// When it was answered, by the server's clock.
    pub at: Timestamp,
    /// Who asked.
    pub client: String,
    /// What was done.
    pub verb: Verb,
    /// The API group, empty for core.
    pub group: String,
    /// The resource's plural name.
    pub resource: String,
    /// The namespace, if one was named.
    pub namespace: Option<String>,
    /// The object, if one was named.
    pub name: Option<String>,
    /// The subresource, if one was named.
    pub subresource: Option<String>,
    /// The HTTP status; `None` where the client saw none.
    pub code: Option<u16>,
    /// Whether a revision was written.
    pub changed: bool,
    /// What went wrong on purpose.
    pub fault: Option<Fault>,
}

impl Access {
    pub(crate) fn of(call: &Call, client: &str, at: Timestamp) -> Self {
        let target = call.target.clone();
        Self {
            at,
            client: client.to_owned(),
            verb: call.verb,
            group: target.group,
            resource: target.plural,
            namespace: target.namespace,
            name: target.name,
            subresource: target.subresource,
            code: None,
            changed: false,
            fault: None,
        }
    }
}

/// The last requests.
#[derive(Debug)]
pub(crate) struct AccessLog {
    entries: VecDeque<Access>,
    capacity: usize,
}

impl AccessLog {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity }
    }

    pub(crate) fn push(&mut self, access: Access) {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(access);
    }

    pub(crate) fn all(&self) -> Vec<Access> {
        self.entries.iter().cloned().collect()
    }

    pub(crate) fn take(&mut self) -> Vec<Access> {
        std::mem::take(&mut self.entries).into()
    }
}
