//! The logging room.
