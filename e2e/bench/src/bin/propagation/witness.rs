//! Hears of each change as any client of the API server does: the time until then is nobody's but the API server's.
//! Called by the story in `main.rs`. It knows the API server alone, and of objects their versions.

use std::pin::pin;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt as _;
use kube::Api;
use kube::api::{DynamicObject, WatchEvent, WatchParams};

use crate::world::World;

/// What the API server may take to tell of a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// A watch of all objects of one kind.
pub(crate) struct Witness {
    heard: Receiver<(String, Instant)>,
}

impl Witness {
    /// Watches from now on, for as long as the API server lets it and this value lives.
    pub(crate) fn begin(world: &World, api: Api<DynamicObject>) -> Self {
        let (sender, heard) = mpsc::channel();
        world.block_on(async { drop(tokio::spawn(watch(api, sender))) });
        Self { heard }
    }

    /// When it heard of this version of some object, and of no later one before.
    pub(crate) fn heard(&self, version: &str) -> Result<Instant> {
        loop {
            let (told, at) = self.heard.recv_timeout(PATIENCE).context("waiting for the watch to tell")?;
            if told == version {
                return Ok(at);
            }
        }
    }
}

async fn watch(api: Api<DynamicObject>, sender: Sender<(String, Instant)>) {
    let Ok(events) = api.watch(&WatchParams::default(), "0").await else { return };
    let mut events = pin!(events);
    while let Some(Ok(event)) = events.next().await {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { continue };
        let version = object.metadata.resource_version.unwrap_or_default();
        if sender.send((version, Instant::now())).is_err() {
            return;
        }
    }
}
