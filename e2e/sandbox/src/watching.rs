//! WATCH: a stream of lines, from a revision on, with bookmarks, time-outs and 410.
//!
//! Owns each watch's place in the history. Called by the service; each stream reads the log under the lock and waits outside it.
//! It refuses to buffer: a slow reader finds its next changes in the log, or is told that they are gone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    Shared,
    call::{Call, Form},
    faults::Fault,
    object::{self, meta},
    refusal::{Cause, Refusal},
    selector::Selector,
    service::Broken,
    state::{State, Subject},
    store::Change,
};

/// How long a watch lasts when the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
/// The annotation of the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A watch that ends of itself at some time.
#[derive(Debug)]
enum Ending {
    /// Its time is up: the stream closes.
    Close,
    /// The connection breaks.
    Break,
    /// 410 Gone, then the stream closes.
    Expire,
}

pub(crate) struct Watch {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    cut: watch::Receiver<u64>,
    on: Subject,
    form: Form,
    selector: Selector,
    position: u64,
    lines: VecDeque<Bytes>,
    bookmarks: Option<Instant>,
    ends: Instant,
    ending: Ending,
    muted: bool,
    over: bool,
}

impl Watch {
    pub(crate) fn open(
        shared: &Arc<Shared>,
        state: &State,
        on: Subject,
        call: &Call,
        (client, fault): (&str, Option<&Fault>),
    ) -> Result<Self, Refusal> {
        let selector = Selector::read(call, &on.kind)?;
        let asked = call.number("resourceVersion")?.unwrap_or(0);
        let initial = check_initial_events(call)?;
        let now = Instant::now();
        let timeout = call.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
        let mut ends = now + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
        let mut ending = Ending::Close;
        let cut = match fault {
            Some(Fault::CutWatch(after) | Fault::MuteWatch(after)) => Some((*after, Ending::Break)),
            Some(Fault::ExpireWatch(after)) => Some((*after, Ending::Expire)),
            _ => None,
        };
        // A muted watch is one whose server is gone without a word: it does not even close in time.
        let muted = matches!(fault, Some(Fault::MuteWatch(_)));
        if let Some((after, how)) = cut.filter(|(after, _)| muted || now + *after < ends) {
            (ends, ending) = (now + after, how);
        }
        let mut opened = Self {
            changed: shared.changed.subscribe(),
            cut: shared.cuts(client),
            form: call.form,
            selector,
            position: asked,
            lines: VecDeque::new(),
            bookmarks: call.flag("allowWatchBookmarks").then(|| now + shared.options.bookmark_every),
            ends,
            ending,
            muted,
            over: false,
            shared: Arc::clone(shared),
            on,
        };
        opened.begin(state, asked, initial.unwrap_or(asked == 0), initial == Some(true));
        Ok(opened)
    }

    /// The first lines: current objects, where they are wanted, or the refusal of an unknown revision.
    fn begin(&mut self, state: &State, asked: u64, with_objects: bool, mark_end: bool) {
        let current = state.store.revision();
        if asked > current {
            self.fail(&Refusal::too_large(asked, current));
            return;
        }
        if !with_objects {
            if asked == 0 {
                self.position = current;
            }
            return;
        }
        let objects: Vec<Value> = state
            .store
            .current(&self.on.kind.key)
            .filter(|(key, object)| self.wants(&key.namespace, object))
            .map(|(_, object)| Value::clone(object))
            .collect();
        for object in &objects {
            self.line("ADDED", object);
        }
        self.position = current;
        if mark_end {
            self.bookmark(Some(INITIAL_EVENTS_END));
        }
    }

    fn wants(&self, namespace: &str, object: &Value) -> bool {
        let here = self.on.namespace.as_deref();
        here.is_none_or(|here| here == namespace) && self.selector.matches(object)
    }

    /// The next line, `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            if !self.muted {
                if let Some(line) = self.lines.pop_front() {
                    return Some(Ok(line));
                }
                if self.over {
                    return None;
                }
                self.changed.borrow_and_update();
                self.collect();
                if self.over || !self.lines.is_empty() {
                    continue;
                }
            }
            let bookmark = self.bookmarks.filter(|_| !self.muted).unwrap_or(self.ends);
            tokio::select! {
                biased;
                () = sleep_until(self.ends) => {
                    if let Some(broken) = self.end() {
                        return Some(Err(broken));
                    }
                }
                () = sleep_until(bookmark), if bookmark < self.ends => {
                    self.bookmark(None);
                    self.bookmarks = Some(Instant::now() + self.shared.options.bookmark_every);
                }
                _ = self.cut.changed() => {
                    self.over = true;
                    return Some(Err(Broken::Cut));
                }
                // The sender lives in `shared`, which this watch holds: it can't be gone.
                _ = self.changed.changed(), if !self.muted => {}
            }
        }
    }

    fn end(&mut self) -> Option<Broken> {
        self.over = true;
        match self.ending {
            Ending::Close => {
                if self.bookmarks.is_some() {
                    self.bookmark(None);
                }
                None
            }
            Ending::Break => Some(Broken::Cut),
            Ending::Expire => {
                self.fail(&Refusal::too_old(self.position, self.position + 1));
                None
            }
        }
    }

    /// Turns what was written since the last look into lines.
    fn collect(&mut self) {
        let shared = Arc::clone(&self.shared);
        let state = shared.lock();
        let still_served = state.kinds.get(&self.on.kind.key).is_some();
        match state.store.since(self.position) {
            Err(gone) => {
                let refusal = Refusal::too_old(self.position, gone.oldest);
                self.fail(&refusal);
            }
            Ok(changes) => {
                for change in changes {
                    if change.resource == self.on.kind.key {
                        self.tell(change);
                    }
                }
                self.position = state.store.revision();
                self.over |= !still_served;
            }
        }
    }

    fn tell(&mut self, change: &Change) {
        let namespace = &change.key.namespace;
        let before = change.before.as_ref().filter(|it| self.wants(namespace, it));
        let after = change.after.as_ref().filter(|it| self.wants(namespace, it));
        match (before, after) {
            (None, Some(after)) => self.line("ADDED", after),
            (Some(_), Some(after)) => self.line("MODIFIED", after),
            (Some(before), None) => {
                let mut last = Value::clone(before);
                object::set_revision(&mut last, change.revision);
                self.line("DELETED", &last);
            }
            (None, None) => {}
        }
    }

    fn line(&mut self, kind: &str, object: &Value) {
        let shown = match self.form {
            Form::Whole => self.on.present(object),
            Form::Metadata => object::metadata_only(object),
        };
        tracing::trace!(kind, name = meta(object, "name"), "watch event");
        self.push(json!({"type": kind, "object": shown}));
    }

    fn push(&mut self, event: Value) {
        self.lines.push_back(Bytes::from(format!("{event}\n")));
    }

    fn fail(&mut self, refusal: &Refusal) {
        self.push(json!({"type": "ERROR", "object": refusal.status()}));
        self.over = true;
    }

    fn bookmark(&mut self, annotation: Option<&str>) {
        let mut metadata = json!({
            "resourceVersion": self.position.to_string(),

        });
        if let Some(annotation) = annotation {
            metadata["annotations"] = json!({ annotation: "true" });
        }
        let (kind, api_version) = match self.form {
            Form::Metadata => ("PartialObjectMetadata".to_owned(), "meta.k8s.io/v1".to_owned()),
            Form::Whole => (self.on.kind.kind.clone(), self.on.kind.api_version(&self.on.version.name)),
        };
        let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        self.push(json!({"type": "BOOKMARK", "object": object}));
    }
}

/// `sendInitialEvents`, which needs `resourceVersionMatch=NotOlderThan` beside it.
fn check_initial_events(call: &Call) -> Result<Option<bool>, Refusal> {
    const FIELD: &str = "resourceVersionMatch";
    let forbidden = |words: &str| Cause::forbidden(FIELD, words);
    let needed = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    let causes = match (call.param("sendInitialEvents"), call.param(FIELD)) {
        (None, None) => return Ok(None),
        (Some(_), Some("NotOlderThan")) => return Ok(Some(call.flag("sendInitialEvents"))),
        (None, Some(_)) => {
            vec![forbidden(
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )]
        }
        (Some(_), None) => vec![forbidden(needed)],
        (Some(_), Some(other)) => {
            vec![forbidden(needed), Cause::not_supported(FIELD, &other.into(), &["NotOlderThan".into()])]
        }
    };
    Err(Refusal::invalid_options("ListOptions", &causes))
}
