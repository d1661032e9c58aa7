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
