//! The arbiter room.
