//! Listeners as hooks see them: a descriptor and a name, for those who only look.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::Arc;

use super::{Bound, Listener};

impl Listener {
    /// Its descriptor and name.
    pub fn face(&self) -> (RawFd, String) {
        (self.as_fd().as_raw_fd(), self.to_string())
    }
}

/// Descriptor and name of each.
pub fn faces(listeners: &[Arc<Bound>]) -> Vec<(RawFd, String)> {
    let faces = listeners.iter().map(|bound| bound.listener.face());
    faces.collect()
}
