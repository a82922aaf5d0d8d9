//! Backends by slot: how a rule names a backend without holding it.
//!
//! When endpoints change, a slot gets another backend and no route is rebuilt. Called by the compiler
//! (writes) and by `Table::backend` (reads).

use std::sync::Arc;

use crate::upstream::balance::Backend;

/// The place of a backend in a table; stable as long as a unit or a route names that backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(super) u32);

const CHUNK: usize = 64;

/// All backends by slot: chunks are shared between tables, so that a change copies one of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Backends {
    chunks: Vec<Arc<[Option<Arc<Backend>>; CHUNK]>>,
}

impl Backends {
    pub(super) fn get(&self, slot: Slot) -> Option<&Arc<Backend>> {
        let index = slot.0 as usize;
        self.chunks.get(index / CHUNK)?[index % CHUNK].as_ref()
    }

    pub(super) fn set(&mut self, slot: Slot, backend: Option<Arc<Backend>>) {
        let index = slot.0 as usize;
        while self.chunks.len() <= index / CHUNK {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        Arc::make_mut(&mut self.chunks[index / CHUNK])[index % CHUNK] = backend;
    }
}
