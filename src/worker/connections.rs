//! The worker's connections: a slab with generations, so that a [`ConnId`] names one connection for its whole life.

use mio::Token;
use slab::Slab;

use crate::pool::ConnId;

use super::connection::Connection;

/// Tokens below this belong to listeners and the loop's own descriptors.
pub(super) const FIRST_CONNECTION_TOKEN: usize = 1024;

/// All open connections of the worker.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slab: Slab<Connection>,
    /// The generation that the next connection gets. Wraps after four thousand million connections, by which time
    /// nothing of the old ones is left.
    next_generation: u32,
}

impl Connections {
    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Insert the connection that `make` builds for its id.
    pub(super) fn insert(&mut self, make: impl FnOnce(ConnId) -> Connection) -> ConnId {
        let entry = self.slab.vacant_entry();
        let slot = u32::try_from(entry.key()).expect("a slot fits 32 bits: descriptors do");
        let id = ConnId {
            slot,
            generation: self.next_generation,
        };
        self.next_generation = self.next_generation.wrapping_add(1);
        entry.insert(make(id));
        id
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.slab
            .get_mut(id.slot as usize)
            .filter(|connection| connection.id() == id)
    }

    /// The connection that an event's token means. The event may be of one that is gone: a descriptor of its socket
    /// that somebody else holds (an upgrade's, a forked child's) keeps it in the poll set.
    pub(super) fn at_token(&mut self, token: Token) -> Option<&mut Connection> {
        let slot = (token.0 & SLOT_MASK).checked_sub(FIRST_CONNECTION_TOKEN)?;
        self.slab
            .get_mut(slot)
            .filter(|connection| token_of(connection.id()) == token)
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.get_mut(id)?;
        Some(self.slab.remove(id.slot as usize))
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.slab
            .iter()
            .map(|(_, connection)| connection.id())
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slab.iter().map(|(_, connection)| connection)
    }
}

/// Half of a token names the slot, the other half the generation.
const SLOT_BITS: u32 = usize::BITS / 2;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// The token under which a connection's socket is registered.
pub(super) fn token_of(id: ConnId) -> Token {
    let generation = (id.generation as usize) << SLOT_BITS;
    Token(generation | (FIRST_CONNECTION_TOKEN + id.slot as usize))
}
