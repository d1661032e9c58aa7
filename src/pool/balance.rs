//! Which work goes to a peer worker: pure rules, as those of `policy.rs`.
//!
//! | question | rule |
//! | --- | --- |
//! | Is a queued job offloaded to a peer worker? | [`offloads`], [`freest_peer`] |
//! | Does a new connection go to a peer worker? | [`balance`] |
//! | Is a peer worker counted on? | [`is_responsive`] |

use std::time::Duration;

use super::estimates::OneRequestShare;

/// A pool of fast jobs must stand still for this long before its requests are offloaded: on a machine that is busy with
/// something else its threads may wait as long for a processor, and not for the application.
const FAST_POOL_PATIENCE: Duration = Duration::from_millis(25);
/// A peer whose event loop has not run for this many milliseconds is not counted on. An idle one runs once a second.
const PEER_SILENCE_MAX_MS: u64 = 2500;

/// Whether queued jobs are offloaded in a stall of this length, after a parked thread was notified.
pub fn offloads(stall: Duration, has_parked_threads: bool, are_fast: bool) -> bool {
    !has_parked_threads && (!are_fast || stall >= FAST_POOL_PATIENCE)
}

/// Whether a peer's event loop runs, from the time of its last heartbeat.
pub fn is_responsive(now_ms: u64, heartbeat_ms: u64) -> bool {
    now_ms.saturating_sub(heartbeat_ms) < PEER_SILENCE_MAX_MS
}

/// What a peer worker publishes about itself, and what others have reserved there.
#[derive(Clone, Copy, Debug)]
pub struct PeerLoad {
    /// Its slot on the scoreboard.
    pub slot: usize,
    /// Open connections.
    pub connections: u32,
    /// Pool threads.
    pub threads: u32,
    /// Requests in flight, and new connections that are about to ask.
    pub load: u32,
    /// Connections on their way to it. They count at once, so that a burst is spread before the peer has run.
    pub reserved: u32,
}

impl PeerLoad {
    fn connections(&self) -> u32 {
        self.connections.saturating_add(self.reserved)
    }

    /// Threads without a request.
    fn free_threads(&self) -> u32 {
        let load = self.load.saturating_add(self.reserved);
        self.threads.saturating_sub(load)
    }
}

/// The slot of the peer that a queued job is offloaded to: the one with the most free threads.
pub fn freest_peer(peers: impl Iterator<Item = PeerLoad>) -> Option<usize> {
    peers
        .filter(|peer| peer.free_threads() > 0)
        .max_by_key(PeerLoad::free_threads)
        .map(|peer| peer.slot)
}

/// One worker may have more connections than another by this part of its own before a new one is passed on.
const SLACK_PART: u32 = 32;
/// When connections are over in a moment they are not worth the transfer: it may have more by half of its own and this many.
const SLACK_ONE_REQUEST: u32 = 4;

/// How this worker is doing.
#[derive(Clone, Copy, Debug)]
pub struct OwnLoad {
    /// Open connections, and those on their way here.
    pub connections: u32,
    /// Requests in flight, and new connections that are about to ask.
    pub load: u32,
    /// Pool threads.
    pub threads: u32,
    /// Whether jobs are fast.
    pub are_fast: bool,
    /// How many connections bring one request only.
    pub one_request: OneRequestShare,
}

/// The slot of the peer that is to have a new connection; `None` keeps it here.
///
/// It goes where it is best off: to a peer with a free thread when the threads here are all busy, else to one that has
/// clearly fewer connections. Requests that last microseconds make every worker look busy and free in turn, so then
/// only connections count.
pub fn balance(own: &OwnLoad, peers: impl Iterator<Item = PeerLoad>) -> Option<usize> {
    let best = peers.min_by_key(|peer| (peer.free_threads() == 0, peer.connections()))?;
    let slack = if own.are_fast && own.one_request.is_most() {
        own.connections / 2 + SLACK_ONE_REQUEST
    } else {
        own.connections / SLACK_PART
    };
    let (is_busy, has_thread) = (own.load >= own.threads, best.free_threads() > 0);
    if is_busy && has_thread && !own.are_fast && best.connections() <= own.connections + slack {
        return Some(best.slot);
    }
    let has_fewer = best.connections() + slack < own.connections;
    ((has_thread || is_busy) && has_fewer).then_some(best.slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn jobs_are_offloaded_when_no_thread_is_left_and_fast_ones_only_after_a_while() {
        for (stall, parked, fast, expected) in [
            (Duration::ZERO, false, false, true),
            (Duration::ZERO, true, false, false),
            (24 * MS, false, true, false),
            (25 * MS, false, true, true),
            (25 * MS, true, true, false),
        ] {
            let decision = offloads(stall, parked, fast);
            assert_eq!(decision, expected, "{stall:?} {parked} {fast}");
        }
    }

    /// A peer with 4 threads.
    fn peer(slot: usize, connections: u32, load: u32, reserved: u32) -> PeerLoad {
        PeerLoad {
            slot,
            connections,
            threads: 4,
            load,
            reserved,
        }
    }

    #[test]
    fn a_job_goes_to_the_peer_with_the_most_free_threads() {
        for (peers, expected) in [
            (vec![], None),
            (vec![peer(1, 0, 4, 0), peer(2, 0, 3, 1)], None),
            (vec![peer(1, 9, 3, 0), peer(2, 0, 2, 1)], Some(2)),
            (vec![peer(1, 9, 0, 0), peer(2, 0, 2, 0)], Some(1)),
            (vec![peer(1, 0, u32::MAX, 1)], None),
        ] {
            let slot = freest_peer(peers.iter().copied());
            assert_eq!(slot, expected, "{peers:?}");
        }
    }

    #[test]
    fn a_peer_is_counted_on_while_its_loop_runs() {
        assert!(is_responsive(10_000, 10_000) && is_responsive(10_000, 7501));
        assert!(!is_responsive(10_000, 7500));
        assert!(
            is_responsive(10_000, 10_001),
            "clocks are read in any order"
        );
    }

    fn one_request_share(was_kept: bool) -> OneRequestShare {
        let mut share = OneRequestShare::default();
        (0..100).for_each(|_| share.note(was_kept));
        share
    }

    #[test]
    fn a_new_connection_goes_to_a_free_thread_or_to_clearly_fewer_connections() {
        // Own connections, own load of 4 threads, whether jobs are fast, the peer.
        for (connections, load, fast, peer, expected) in [
            // The threads here are busy and the peer's are not.
            (10, 4, false, peer(1, 10, 0, 0), Some(1)),
            (10, 3, false, peer(1, 10, 0, 0), None),
            (10, 4, false, peer(1, 11, 0, 0), None),
            (64, 4, false, peer(1, 66, 0, 0), Some(1)),
            (10, 4, false, peer(1, 10, 4, 0), None),
            // What is on its way there counts.
            (10, 4, false, peer(1, 7, 0, 4), None),
            // Fast jobs: only connections count.
            (10, 4, true, peer(1, 10, 0, 0), None),
            (10, 4, true, peer(1, 9, 0, 0), Some(1)),
            // Clearly fewer connections, and no fewer free threads.
            (64, 0, false, peer(1, 62, 0, 0), None),
            (64, 0, false, peer(1, 61, 0, 0), Some(1)),
            (64, 0, false, peer(1, 1, 4, 0), None),
            (64, 4, false, peer(1, 1, 4, 0), Some(1)),
        ] {
            let own = OwnLoad {
                connections,
                load,
                threads: 4,
                are_fast: fast,
                one_request: one_request_share(true),
            };
            let slot = balance(&own, std::iter::once(peer));
            assert_eq!(slot, expected, "{own:?} {peer:?}");
        }
    }

    #[test]
    fn a_connection_that_is_over_in_a_moment_goes_only_far_away() {
        for (was_kept, fast, peer, expected) in [
            (false, true, peer(1, 46, 0, 0), None),
            (false, true, peer(1, 45, 0, 0), Some(1)),
            (false, false, peer(1, 90, 0, 0), Some(1)),
            (true, true, peer(1, 90, 0, 0), Some(1)),
        ] {
            let own = OwnLoad {
                connections: 100,
                load: 0,
                threads: 4,
                are_fast: fast,
                one_request: one_request_share(was_kept),
            };
            assert_eq!(balance(&own, std::iter::once(peer)), expected, "{was_kept}");
        }
    }

    #[test]
    fn of_several_peers_the_one_with_a_free_thread_and_fewest_connections_is_best() {
        let own = OwnLoad {
            connections: 50,
            load: 9,
            threads: 4,
            are_fast: false,
            one_request: OneRequestShare::default(),
        };
        let peers = [peer(1, 5, 4, 0), peer(2, 40, 0, 0), peer(3, 30, 0, 0)];
        assert_eq!(balance(&own, peers.into_iter()), Some(3));
        assert_eq!(balance(&own, std::iter::empty()), None);
    }
}
