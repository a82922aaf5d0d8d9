//! Owns a request of HTTP/1 on its way to a backend: what was asked, by which route it goes, and where.
//!
//! Made by the connection, carried out by [`forward`](super::forward).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::view::View;
use crate::http::filters::HeaderEdits;
use crate::http::plan::Target;
use crate::http::standing;
use crate::listen::context::{Client, Context};
use crate::table::route::{Routed, Timeouts};
use crate::upstream::registry::Endpoint;

/// A request on its way to a backend.
pub(super) struct Job<'a> {
    /// The request.
    pub view: View<'a>,
    /// The route that takes it.
    pub routed: &'a Routed,
    /// Where it goes.
    pub target: &'a Target,
}

impl Job<'_> {
    /// For how long the exchange may go on.
    pub(super) fn time_left(&self, context: &Context, client: &Client) -> Option<Duration> {
        let host = self.view.request.authority.host;
        let exchange = (self.routed, self.target.share);
        context.time_left(|table| standing::of_exchange(table, client, exchange, host))
    }

    /// How long it may take.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.routed.rule().timeouts
    }

    /// How the response is edited.
    pub(super) fn edits(&self, endpoint: &Arc<Endpoint>, client: &Client) -> Cow<'_, HeaderEdits> {
        self.target.edits(self.routed, endpoint, client.secure)
    }
}
