//! Every rule of supervision.

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    boot: Some(Duration::from_secs(60)),
    silence: Some(Duration::from_secs(30)),
    graceful: Duration::from_secs(10),
};

fn heartbeats(event_loop: u64, python: u64) -> Heartbeats {
    Heartbeats { event_loop, python }
}

#[test]
fn boot_is_bounded_by_its_own_timeout() {
    let booting = |now| verdict(Stage::Booting, 1000, heartbeats(0, 0), now, &TIMEOUTS);
    assert_eq!(booting(61_000), Verdict::Fine);
    assert_eq!(booting(61_001), Verdict::Abort(Fault::Boot));
    let patient = Timeouts {
        boot: None,
        ..TIMEOUTS
    };
    let verdict = verdict(Stage::Booting, 0, heartbeats(0, 0), u64::MAX / 2, &patient);
    assert_eq!(verdict, Verdict::Fine);
}

#[test]
fn a_silent_loop_and_silent_python_are_told_apart() {
    let serving = |heartbeats, now| verdict(Stage::Serving, 1000, heartbeats, now, &TIMEOUTS);
    assert_eq!(serving(heartbeats(0, 0), 31_000), Verdict::Fine);
    assert_eq!(
        serving(heartbeats(0, 0), 31_001),
        Verdict::Abort(Fault::EventLoop)
    );
    assert_eq!(serving(heartbeats(40_000, 0), 70_000), Verdict::Fine);
    assert_eq!(
        serving(heartbeats(70_000, 39_999), 70_000),
        Verdict::Abort(Fault::Python)
    );
    assert_eq!(
        serving(heartbeats(39_000, 39_000), 70_000),
        Verdict::Abort(Fault::EventLoop)
    );
    let patient = Timeouts {
        silence: None,
        ..TIMEOUTS
    };
    let verdict = verdict(Stage::Serving, 0, heartbeats(1, 1), 1_000_000_000, &patient);
    assert_eq!(verdict, Verdict::Fine);
}

#[test]
fn heartbeats_of_the_future_are_fine() {
    let verdict = verdict(
        Stage::Serving,
        1000,
        heartbeats(5000, 5000),
        4000,
        &TIMEOUTS,
    );
    assert_eq!(verdict, Verdict::Fine);
}

#[test]
fn retiring_and_aborted_workers_are_killed_in_the_end() {
    let retiring = |now| verdict(Stage::Retiring, 1000, heartbeats(now, now), now, &TIMEOUTS);
    assert_eq!(retiring(12_000), Verdict::Fine);
    assert_eq!(retiring(12_001), Verdict::Kill);
    let aborted = |now| verdict(Stage::Aborted, 1000, heartbeats(0, 0), now, &TIMEOUTS);
    assert_eq!(aborted(1999), Verdict::Fine);
    assert_eq!(aborted(2000), Verdict::Kill);
    assert_eq!(
        verdict(Stage::Killed, 0, heartbeats(0, 0), 1_000_000, &TIMEOUTS),
        Verdict::Fine
    );
}

fn members(list: &[(u64, u32, Stage)]) -> Vec<Member> {
    let member = |(age, generation, stage): &(u64, u32, Stage)| Member {
        age: *age,
        generation: *generation,
        stage: *stage,
        wants_replacement: false,
    };
    list.iter().map(member).collect()
}

fn desired(target: usize, generation: u32) -> Desired {
    Desired {
        target,
        generation,
        unproven: None,
        reload_surge: 1,
        max_retiring: 1,
    }
}

fn unproven(target: usize, generation: u32, before: usize) -> Desired {
    Desired {
        unproven: Some(before),
        ..desired(target, generation)
    }
}

/// How many are started, and which ones go.
fn steps(desired: &Desired, members: &[Member]) -> (usize, Vec<u64>) {
    let changes = reconcile(desired, members);
    (changes.spawn, changes.retire)
}

#[test]
fn missing_workers_are_started_and_the_oldest_extra_one_goes() {
    use Stage::{Aborted, Retiring, Serving};
    let two = members(&[(1, 1, Serving), (2, 1, Serving)]);
    assert_eq!(steps(&desired(4, 1), &two), (2, vec![]));
    assert_eq!(steps(&desired(2, 1), &two), (0, vec![]));
    assert!(reconcile(&desired(2, 1), &two).is_current);
    assert_eq!(steps(&desired(1, 1), &two), (0, vec![1]));
    assert_eq!(steps(&desired(0, 1), &two), (0, vec![1, 2]));
    let leaving = members(&[(1, 1, Retiring), (2, 1, Serving)]);
    assert_eq!(steps(&desired(2, 1), &leaving), (1, vec![]));
    assert_eq!(steps(&desired(1, 1), &leaving), (0, vec![]));
    let dying = members(&[(1, 1, Aborted), (2, 1, Serving)]);
    assert_eq!(steps(&desired(2, 1), &dying), (0, vec![]));
}

#[test]
fn a_worker_that_boots_replaces_none() {
    use Stage::{Booting, Serving};
    let one_boots = members(&[(1, 1, Serving), (2, 1, Serving), (3, 1, Booting)]);
    assert_eq!(steps(&desired(2, 1), &one_boots), (0, vec![]));
    assert_eq!(steps(&desired(1, 1), &one_boots), (0, vec![1]));
    assert_eq!(steps(&desired(0, 1), &one_boots), (0, vec![1, 2, 3]));
}

#[test]
fn a_reload_goes_worker_by_worker() {
    use Stage::{Booting, Retiring, Serving};
    let old = [(1, 1, Serving), (2, 1, Serving)];
    let start = reconcile(&unproven(2, 2, 2), &members(&old));
    assert_eq!((start.spawn, start.retire.len()), (1, 0));
    assert!(!start.is_current);

    let first = members(&[old[0], old[1], (3, 2, Booting)]);
    assert_eq!(steps(&unproven(2, 2, 2), &first), (0, vec![]));

    let proven = members(&[old[0], old[1], (3, 2, Serving)]);
    assert_eq!(steps(&desired(2, 2), &proven), (0, vec![1]));

    // A leaving worker still holds its memory: the next one starts when it is gone.
    let leaving = members(&[(1, 1, Retiring), old[1], (3, 2, Serving)]);
    assert_eq!(steps(&desired(2, 2), &leaving), (0, vec![]));
    let gone = members(&[old[1], (3, 2, Serving)]);
    assert_eq!(steps(&desired(2, 2), &gone), (1, vec![]));
    let wide = Desired {
        reload_surge: 2,
        ..desired(2, 2)
    };
    assert_eq!(steps(&wide, &leaving), (1, vec![]));

    let whole = members(&[old[1], (3, 2, Serving), (4, 2, Serving)]);
    let done = reconcile(&desired(2, 2), &whole);
    assert_eq!((done.spawn, done.retire.as_slice()), (0, &[2][..]));
    assert!(done.is_current);
}

#[test]
fn an_unproven_reload_retires_no_worker() {
    use Stage::{Booting, Serving};
    let four: Vec<_> = (1..=4).map(|age| (age, 1, Serving)).collect();
    // Fewer workers from now on: the first new one comes before an old one goes.
    assert_eq!(steps(&unproven(2, 2, 4), &members(&four)), (1, vec![]));
    let mut with_new = four.clone();
    with_new.push((5, 2, Serving));
    assert_eq!(
        steps(&desired(2, 2), &members(&with_new)),
        (0, vec![1, 2, 3])
    );
    // More workers: what is missing comes at once.
    assert_eq!(steps(&unproven(4, 2, 2), &members(&four[..2])), (3, vec![]));
    // An old worker that dies meanwhile is replaced by one of the new settings.
    let fewer = members(&[four[0], (5, 2, Booting)]);
    assert_eq!(steps(&unproven(2, 2, 2), &fewer), (1, vec![]));
    // One that had not even booted goes first.
    let late = members(&[(1, 1, Serving), (2, 1, Booting), (3, 2, Serving)]);
    assert_eq!(steps(&desired(2, 2), &late), (0, vec![2]));
}

#[test]
fn what_another_reload_had_half_done_makes_room() {
    use Stage::{Booting, Retiring, Serving};
    let half = [(2, 1, Serving), (3, 2, Serving), (4, 2, Booting)];
    let third = unproven(2, 3, 2);
    assert_eq!(steps(&third, &members(&half)), (0, vec![4]));
    let booted = members(&[half[0], half[1], (4, 2, Serving)]);
    assert_eq!(steps(&third, &booted), (0, vec![2]));
    let leaving = members(&[half[0], half[1], (4, 2, Retiring)]);
    assert_eq!(steps(&third, &leaving), (0, vec![]));
    assert_eq!(steps(&third, &members(&half[..2])), (1, vec![]));
}

#[test]
fn a_worn_worker_serves_until_its_successor_does() {
    use Stage::{Booting, Retiring, Serving};
    let mut two = members(&[(1, 1, Serving), (2, 1, Serving)]);
    two[0].wants_replacement = true;
    two[1].wants_replacement = true;
    assert_eq!(steps(&desired(2, 1), &two), (1, vec![]));
    two.extend(members(&[(3, 1, Booting)]));
    assert_eq!(steps(&desired(2, 1), &two), (0, vec![]));
    two[2].stage = Serving;
    assert_eq!(steps(&desired(2, 1), &two), (0, vec![1]));
    // One at a time, until it is gone.
    two[0].stage = Retiring;
    assert_eq!(steps(&desired(2, 1), &two), (0, vec![]));
    let both = Desired {
        max_retiring: 2,
        ..desired(2, 1)
    };
    assert_eq!(steps(&both, &two), (1, vec![]));
    assert_eq!(steps(&desired(2, 1), &two[1..]), (1, vec![]));
    // TTOU takes the one that wants_replacement.
    assert_eq!(steps(&desired(1, 1), &two[1..]), (0, vec![2]));
}

const EXIT: ExitReport = ExitReport {
    status: ExitStatus::Code(0),
    stage: Stage::Serving,
    has_served: true,
    in_rollout: false,
};
const FAILED_BOOT: ExitReport = ExitReport {
    status: ExitStatus::Code(EXIT_BOOT),
    stage: Stage::Booting,
    has_served: false,
    in_rollout: false,
};

#[test]
fn boot_failures_stop_a_server_that_was_never_up() {
    let reason = "Worker failed to boot.";
    let halt = Consequence::Halt { reason, code: 3 };
    assert_eq!(after_exit(&FAILED_BOOT, false), halt);
    let load = ExitReport {
        status: ExitStatus::Code(EXIT_APP_LOAD),
        ..FAILED_BOOT
    };
    let reason = "App failed to load.";
    let halt = Consequence::Halt { reason, code: 4 };
    assert_eq!(after_exit(&load, false), halt);
    assert_eq!(after_exit(&load, true), Consequence::BackOff);
}

#[test]
fn boot_failures_at_a_reload_keep_the_old_generation() {
    let failed = Consequence::FailRollout("Worker failed to boot.");
    let boot = ExitReport {
        in_rollout: true,
        ..FAILED_BOOT
    };
    assert_eq!(after_exit(&boot, true), failed);
    let killed = ExitReport {
        status: ExitStatus::Signal(6),
        stage: Stage::Aborted,
        ..boot
    };
    assert_eq!(after_exit(&killed, true), failed);
    let proven = ExitReport {
        in_rollout: false,
        ..boot
    };
    assert_eq!(after_exit(&proven, true), Consequence::BackOff);
    assert_eq!(
        after_exit(&boot, false),
        failed,
        "also before the first start was over"
    );
    let retiring = ExitReport {
        stage: Stage::Retiring,
        ..boot
    };
    assert_eq!(after_exit(&retiring, true), Consequence::Replace);
}

#[test]
fn a_worker_that_has_served_is_replaced_at_once() {
    for status in [
        ExitStatus::Signal(11),
        ExitStatus::Code(EXIT_BOOT),
        ExitStatus::Code(EXIT_APP_LOAD),
        ExitStatus::Code(1),
        ExitStatus::Code(0),
    ] {
        for stage in [Stage::Serving, Stage::Aborted, Stage::Killed] {
            let crash = ExitReport {
                status,
                stage,
                ..EXIT
            };
            assert_eq!(after_exit(&crash, true), Consequence::Replace);
            assert_eq!(after_exit(&crash, false), Consequence::Replace);
        }
    }
    let unbooted = ExitReport {
        status: ExitStatus::Signal(11),
        ..FAILED_BOOT
    };
    assert_eq!(after_exit(&unbooted, false), Consequence::BackOff);
    assert_eq!(after_exit(&unbooted, true), Consequence::BackOff);
}

#[test]
fn only_the_applications_own_word_makes_an_early_end_a_success() {
    let code = |wanted, status| preload_end(wanted, status).1;
    assert_eq!(code(Some(0), ExitStatus::Code(0)), 0);
    assert_eq!(code(Some(7), ExitStatus::Code(7)), 7);
    assert_eq!(code(None, ExitStatus::Code(0)), EXIT_PRELOAD);
    assert_eq!(code(None, ExitStatus::Code(5)), 5);
    assert_eq!(code(None, ExitStatus::Signal(9)), EXIT_PRELOAD);
}
