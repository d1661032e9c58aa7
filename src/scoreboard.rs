//! Shared counters.
