//! The policy as tables: what goes in, what is decided.

use super::super::estimates::waiting_share;
use super::*;

const MS: Duration = Duration::from_millis(1);

#[test]
fn jobs_are_fast_when_they_are_brief_and_seldom_wait() {
    for (mean, limit, waiting, expected) in [
        (0, FAST_MICROS, 0, true),
        (499, FAST_MICROS, ALL_JOBS / 8, true),
        (499, FAST_MICROS, ALL_JOBS / 8 + 1, false),
        (500, FAST_MICROS, 0, false),
        (19, FAST_MICROS_IN_PARALLEL, 0, true),
        (20, FAST_MICROS_IN_PARALLEL, 0, false),
        (UNKNOWN_MICROS, FAST_MICROS, 0, false),
    ] {
        let fast = are_fast(mean, limit, || waiting);
        assert_eq!(fast, expected, "{mean} {limit} {waiting}");
    }
}

#[test]
fn one_job_in_four_that_waits_is_too_many() {
    let is_small = |share| are_fast(0, FAST_MICROS, || share);
    let mut share = waiting_share(0, true);
    assert!(is_small(share), "a single one does not count");
    for number in 0..1000 {
        share = waiting_share(share, number % 4 == 0);
    }
    assert!(!is_small(share));
}

#[test]
fn fast_jobs_wake_a_thread_when_no_other_is_awake_and_slow_ones_always() {
    for (reason, fast, slow) in [
        (Reason::JobsQueued, Wake::OneIfNoneComes, Wake::One),
        (Reason::JobsLeft, Wake::No, Wake::One),
        (Reason::PutBack, Wake::One, Wake::One),
        (Reason::Stall, Wake::One, Wake::One),
        (Reason::DeferredDrops, Wake::One, Wake::One),
        (Reason::Signal, Wake::One, Wake::One),
    ] {
        assert_eq!(
            (wake(reason, true), wake(reason, false)),
            (fast, slow),
            "{reason:?}"
        );
    }
}

#[test]
fn a_second_thread_is_idle_while_fast_jobs_move() {
    for (fast, since_stall, another, closed, expected) in [
        (true, 257, true, false, true),
        (true, 256, true, false, false),
        (true, 257, false, false, false),
        (true, 257, true, true, false),
        (false, 257, true, false, false),
    ] {
        let crowd = Crowd {
            jobs_since_stall: since_stall,
            is_another_coming: another,
            is_closed: closed,
        };
        assert_eq!(is_idle_extra(fast, || crowd), expected, "{fast} {crowd:?}");
    }
    is_idle_extra(false, || unreachable!("slow jobs need no look"));
}

#[test]
fn a_reply_wakes_the_loop_unless_another_comes_and_it_wakes_in_time() {
    for (mode, more, unannounced, expected) in [
        (SleepMode::UntilWoken, false, 0, true),
        (SleepMode::UntilWoken, true, 0, true),
        (SleepMode::Timed, false, 0, true),
        (SleepMode::Timed, true, 11, false),
        (SleepMode::Timed, true, 12, true),
        (SleepMode::Batching, false, 0, true),
        (SleepMode::Batching, true, 1000, false),
    ] {
        let wakes = wakes_loop(mode, more, || unannounced);
        assert_eq!(wakes, expected, "{mode:?} {more} {unannounced}");
    }
    // Only a timed sleep counts what it lets pass.
    wakes_loop(SleepMode::Timed, false, || unreachable!());
    wakes_loop(SleepMode::Batching, true, || unreachable!());
}

#[test]
fn the_loop_sleeps_briefly_while_that_brings_something() {
    use LoopSleep::{Brief, No, UntilWoken};
    // What it has to do, jobs that wait, an idle brief sleep, a quick stream, parked threads.
    for (work, jobs, idle, stream, parked, expected) in [
        (true, true, false, true, true, No),
        (false, false, false, false, true, UntilWoken),
        (false, true, false, false, false, Brief),
        (false, true, true, false, false, UntilWoken),
        (false, true, true, false, true, Brief),
        (false, false, false, true, false, Brief),
        (false, false, true, true, true, UntilWoken),
    ] {
        let view = LoopView {
            has_work: work,
            jobs_wait: jobs,
            brief_sleep_was_idle: idle,
            stream_is_quick: stream,
        };
        assert_eq!(
            loop_sleep(view, || parked),
            expected,
            "{view:?} parked: {parked}"
        );
    }
}

#[test]
fn the_loop_looks_at_nothing_while_much_fast_work_or_a_lone_job_waits() {
    use BriefSleep::{Batching, Timed};
    let micros = Duration::from_micros;
    // Jobs, their mean service time.
    for (count, mean_micros, expected) in [
        (0, 100, Timed(micros(500))),
        (1, 1, Batching(2 * MS)),
        (1, 499, Batching(2 * MS)),
        (4, 100, Timed(micros(500))),
        (5, 100, Batching(micros(250))),
        (20, 100, Batching(micros(1000))),
        (100, 100, Batching(4 * MS)),
        (1000, 29, Timed(micros(500))),
        (1000, 30, Batching(4 * MS)),
        (usize::MAX, u32::MAX, Batching(4 * MS)),
    ] {
        let jobs = FastJobs { count, mean_micros };
        assert_eq!(brief_sleep(Some(jobs)), expected, "{jobs:?}");
    }
    assert_eq!(brief_sleep(None), Timed(micros(500)), "slow jobs");
}

#[test]
fn the_poll_set_sleeps_until_the_first_thing_is_due() {
    let now = Instant::now();
    let max = 1000 * MS;
    // A whole millisecond counts as begun.
    let rounded = |time| time + Duration::from_micros(999);
    for (awaits_peer, due, expected) in [
        (false, [None, None], max),
        (true, [None, None], 2 * MS),
        (false, [Some(now + 30 * MS), Some(now + 20 * MS)], 20 * MS),
        (true, [None, Some(now + 20 * MS)], 2 * MS),
        (true, [None, Some(now)], Duration::ZERO),
        (false, [Some(now + 2 * max), None], max),
    ] {
        let time = poll_timeout(now, max, awaits_peer, due);
        assert_eq!(time, rounded(expected), "{awaits_peer} {due:?}");
    }
    // What is overdue does not underflow.
    let later = now + MS;
    let time = poll_timeout(later, max, false, [Some(now)]);
    assert_eq!(time, rounded(Duration::ZERO));
}

#[test]
fn a_stall_is_jobs_that_wait_through_a_sleep_while_none_is_taken() {
    let start = Instant::now();
    let mut stalls = StallDetector::new(start);
    let slept = |stalls: &mut StallDetector| stalls.note_sleep(TIMED_SLEEP);
    slept(&mut stalls);
    assert_eq!(stalls.look(false, 0, start), None, "no job waits");
    assert_eq!(stalls.look(true, 0, start), None, "it has not slept");
    slept(&mut stalls);
    assert_eq!(stalls.look(true, 0, start + 3 * MS), Some(3 * MS));
    assert_eq!(stalls.look(true, 0, start + 3 * MS), None, "once a sleep");
    slept(&mut stalls);
    assert_eq!(stalls.look(true, 0, start + 9 * MS), Some(9 * MS));
    slept(&mut stalls);
    let moved = start + 10 * MS;
    assert_eq!(stalls.look(true, 1, moved), None, "one was taken");
    slept(&mut stalls);
    assert_eq!(stalls.look(true, 1, moved + MS), Some(MS));
}

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
