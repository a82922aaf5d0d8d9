//! Backends by slot: how a rule names a backend without holding it.
//!
//! When endpoints change, a slot gets another backend and no route is rebuilt. Called by the compiler
//! (writes) and by `Table::backend` (reads).

use std::collections::HashMap;
use std::sync::Arc;

use proxy_config::name::UnitId;

use crate::upstream::balance::Backend;

/// The place of a backend in a table: stable for as long as a route names that backend. A place that is
/// used again later bears another tag, so that a route from an older table can't meet a stranger there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slot {
    place: u32,
    tag: u32,
}

const CHUNK: usize = 64;

type Chunk = [Option<(u32, Arc<Backend>)>; CHUNK];

/// All backends by slot: chunks are shared between tables, so that a change copies one of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Backends {
    chunks: Vec<Arc<Chunk>>,
}

impl Backends {
    pub(super) fn get(&self, slot: Slot) -> Option<&Arc<Backend>> {
        let place = slot.place as usize;
        let (tag, backend) = self.chunks.get(place / CHUNK)?[place % CHUNK].as_ref()?;
        (*tag == slot.tag).then_some(backend)
    }

    pub(super) fn set(&mut self, slot: Slot, backend: Option<Arc<Backend>>) {
        let place = slot.place as usize;
        while self.chunks.len() <= place / CHUNK {
            self.chunks.push(Arc::new([const { None }; CHUNK]));
        }
        let chunk = Arc::make_mut(&mut self.chunks[place / CHUNK]);
        chunk[place % CHUNK] = backend.map(|backend| (slot.tag, backend));
    }
}

/// Which backend has which slot, counted by the routes that name it.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: HashMap<UnitId, (Slot, usize)>,
    free: Vec<u32>,
    places: u32,
    tags: u32,
}

impl Slots {
    /// The slot of a backend, if a route names it.
    pub(super) fn get(&self, id: &UnitId) -> Option<Slot> {
        self.taken.get(id).map(|(slot, _)| *slot)
    }

    /// The slot of a backend, for one more route; and whether it is a new one.
    pub(super) fn acquire(&mut self, id: &UnitId) -> (Slot, bool) {
        if let Some((slot, routes)) = self.taken.get_mut(id) {
            *routes += 1;
            return (*slot, false);
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.places += 1;
            self.places - 1
        });
        self.tags = self.tags.wrapping_add(1);
        let slot = Slot { place, tag: self.tags };
        self.taken.insert(id.clone(), (slot, 1));
        (slot, true)
    }

    /// Gives a slot back for one route; the slot, if no route names it any more.
    pub(super) fn release(&mut self, id: &UnitId) -> Option<Slot> {
        let (slot, routes) = self.taken.get_mut(id)?;
        *routes -= 1;
        if *routes > 0 {
            return None;
        }
        let slot = *slot;
        self.taken.remove(id);
        self.free.push(slot.place);
        Some(slot)
    }
}
