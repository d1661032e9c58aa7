//! Descriptors that the arbiter's clients leave it: the next worker's channels, and logs that are opened anew, need some.

use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::resource::{Resource, getrlimit};

/// That many are no client's. A worker that boots takes some 20 beside those that it has of the arbiter.
const DESCRIPTORS_LEFT: u64 = 32;

/// Whether there are enough for one more client. `any` is duplicated for a moment: the system gives the lowest number that is free.
#[must_use]
pub fn are_descriptors_left(any: impl AsFd) -> bool {
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return true;
    };
    let next = any.as_fd().try_clone_to_owned();
    next.is_ok_and(|next| leaves_enough(next.as_raw_fd().unsigned_abs().into(), limit))
}

fn leaves_enough(number: u64, limit: u64) -> bool {
    limit.saturating_sub(number + 1) >= DESCRIPTORS_LEFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_not_for_clients() {
        assert!(leaves_enough(31, 64) && !leaves_enough(32, 64));
        assert!(!leaves_enough(0, 16));
        assert!(are_descriptors_left(std::io::stderr()));
    }
}
