//! The python room.
