//! The name of a connection, and of one request on it.

/// Names one connection for its whole life. Slots are reused, generations are not, so a late reply cannot reach a
/// stranger. Where a connection has several requests at a time (HTTP/2), a name with a stream is that of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Index in the loop's slab.
    pub slot: u32,
    /// Counts the connections that have had a slot.
    pub generation: u32,
    /// The stream's number; 0 is the connection itself.
    pub stream: u32,
}

impl ConnId {
    /// The connection itself.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self {
            slot,
            generation,
            stream: 0,
        }
    }

    /// One request of this connection.
    #[must_use]
    pub const fn with_stream(self, stream: u32) -> Self {
        Self { stream, ..self }
    }

    /// Whether both name the same connection, or requests on it.
    #[inline]
    pub fn is_on(self, connection: Self) -> bool {
        self.slot == connection.slot && self.generation == connection.generation
    }

    /// The connection in one word, for an atomic.
    #[inline]
    pub(super) fn pack(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// What [`ConnId::pack`] has packed.
    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        Self::new((word >> 32) as u32, word as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_word() {
        for (slot, generation) in [(0, 0), (7, u32::MAX), (u32::MAX, 1)] {
            let conn = ConnId::new(slot, generation);
            assert_eq!(ConnId::unpack(conn.pack()), conn);
        }
    }

    #[test]
    fn a_stream_is_on_its_connection_and_is_not_it() {
        let conn = ConnId::new(1, 2);
        let stream = conn.with_stream(3);
        assert!(stream.is_on(conn) && stream != conn);
        assert!(!stream.is_on(ConnId::new(1, 3)));
    }
}
