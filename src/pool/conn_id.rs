//! The name of a connection.

/// Names one connection for its whole life. Slots are reused, generations are not, so a late reply cannot reach a
/// stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Index in the loop's slab.
    pub slot: u32,
    /// Counts the connections that have had a slot.
    pub generation: u32,
}

impl ConnId {
    /// In one word, for an atomic.
    #[inline]
    pub(super) fn pack(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.generation)
    }

    /// What [`ConnId::pack`] has packed.
    #[inline]
    pub(super) fn unpack(word: u64) -> Self {
        Self {
            slot: (word >> 32) as u32,
            generation: word as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_word() {
        for (slot, generation) in [(0, 0), (7, u32::MAX), (u32::MAX, 1)] {
            let conn = ConnId { slot, generation };
            assert_eq!(ConnId::unpack(conn.pack()), conn);
        }
    }
}
