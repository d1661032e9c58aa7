//! What the worker of a slot is doing, as a number of its memory.

/// What the worker of a slot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotState {
    #[default]
    Free,
    Booting,
    Serving,
    Draining,
}

impl SlotState {
    /// A number that stands for no state is that of a free slot.
    pub(super) fn of(number: u32) -> Self {
        match number {
            1 => Self::Booting,
            2 => Self::Serving,
            3 => Self::Draining,
            _ => Self::Free,
        }
    }
}
