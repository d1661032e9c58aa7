//! Descriptors that the arbiter's clients leave it: the next worker's channels, and logs that are opened anew, need some.

use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::resource::{Resource, getrlimit};

/// That many are no client's. A worker that boots takes some 20 beside those that it has of the arbiter.
const DESCRIPTORS_LEFT: u64 = 32;

/// That many clients of a listener have a place also where descriptors are short.
const CLIENTS_MIN: usize = 4;

/// Whether a listener with so many clients has a place for one more, `clients_max` at most.
#[must_use]
pub fn has_place(clients: usize, clients_max: usize, listener: impl AsFd) -> bool {
    clients < CLIENTS_MIN || (clients < clients_max && are_left(listener))
}

/// Whether there are enough for one more client. `any` is duplicated for a moment: the system gives the lowest number that is free.
fn are_left(any: impl AsFd) -> bool {
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
        let has = |clients| has_place(clients, 8, std::io::stderr());
        assert!(has(0) && has(7) && !has(8));
    }
}
