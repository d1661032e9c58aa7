//! Every rule of the policy.

use super::*;

const PATIENCE: Patience = Patience {
    boot: Some(Duration::from_secs(60)),
    silence: Some(Duration::from_secs(30)),
    graceful: Duration::from_secs(10),
};

fn beats(event_loop: u64, python: u64) -> Beats {
    Beats { event_loop, python }
}

#[test]
fn boot_is_bounded_by_its_own_timeout() {
    let booting = |now| judge(Stage::Booting, 1000, beats(0, 0), now, &PATIENCE);
    assert_eq!(booting(61_000), Verdict::Fine);
    assert_eq!(booting(61_001), Verdict::Abort(Fault::Boot));
    let patient = Patience {
        boot: None,
        ..PATIENCE
    };
    let verdict = judge(Stage::Booting, 0, beats(0, 0), u64::MAX / 2, &patient);
    assert_eq!(verdict, Verdict::Fine);
}

#[test]
fn silence_is_told_apart() {
    let serving = |beats, now| judge(Stage::Serving, 1000, beats, now, &PATIENCE);
    assert_eq!(serving(beats(0, 0), 31_000), Verdict::Fine);
    assert_eq!(
        serving(beats(0, 0), 31_001),
        Verdict::Abort(Fault::EventLoop)
    );
    assert_eq!(serving(beats(40_000, 0), 70_000), Verdict::Fine);
    assert_eq!(
        serving(beats(70_000, 39_999), 70_000),
        Verdict::Abort(Fault::Python)
    );
    assert_eq!(
        serving(beats(39_000, 39_000), 70_000),
        Verdict::Abort(Fault::EventLoop)
    );
    let patient = Patience {
        silence: None,
        ..PATIENCE
    };
    let verdict = judge(Stage::Serving, 0, beats(1, 1), 1_000_000_000, &patient);
    assert_eq!(verdict, Verdict::Fine);
}

#[test]
fn beats_of_the_future_are_fine() {
    let verdict = judge(Stage::Serving, 1000, beats(5000, 5000), 4000, &PATIENCE);
    assert_eq!(verdict, Verdict::Fine);
}

#[test]
fn retiring_and_aborted_workers_are_killed_in_the_end() {
    let retiring = |now| judge(Stage::Retiring, 1000, beats(now, now), now, &PATIENCE);
    assert_eq!(retiring(12_000), Verdict::Fine);
    assert_eq!(retiring(12_001), Verdict::Kill);
    let aborted = |now| judge(Stage::Aborted, 1000, beats(0, 0), now, &PATIENCE);
    assert_eq!(aborted(1999), Verdict::Fine);
    assert_eq!(aborted(2000), Verdict::Kill);
    assert_eq!(
        judge(Stage::Killed, 0, beats(0, 0), 1_000_000, &PATIENCE),
        Verdict::Fine
    );
}

fn members(list: &[(u64, u32, Stage)]) -> Vec<Member> {
    let member = |(age, generation, stage): &(u64, u32, Stage)| Member {
        age: *age,
        generation: *generation,
        stage: *stage,
        asks: false,
    };
    list.iter().map(member).collect()
}

fn wish(target: usize, generation: u32) -> Wish {
    Wish {
        target,
        generation,
        unproven: None,
        reload_surge: 1,
        max_retiring: 1,
    }
}

fn unproven(target: usize, generation: u32, before: usize) -> Wish {
    Wish {
        unproven: Some(before),
        ..wish(target, generation)
    }
}

/// How many are started, and who goes.
fn steps(wish: &Wish, members: &[Member]) -> (usize, Vec<u64>) {
    let plan = plan(wish, members);
    (plan.spawn, plan.retire)
}

#[test]
fn missing_workers_are_started_and_the_oldest_surplus_goes() {
    use Stage::{Aborted, Retiring, Serving};
    let two = members(&[(1, 1, Serving), (2, 1, Serving)]);
    assert_eq!(steps(&wish(4, 1), &two), (2, vec![]));
    assert_eq!(steps(&wish(2, 1), &two), (0, vec![]));
    assert!(plan(&wish(2, 1), &two).is_current);
    assert_eq!(steps(&wish(1, 1), &two), (0, vec![1]));
    assert_eq!(steps(&wish(0, 1), &two), (0, vec![1, 2]));
    let leaving = members(&[(1, 1, Retiring), (2, 1, Serving)]);
    assert_eq!(steps(&wish(2, 1), &leaving), (1, vec![]));
    assert_eq!(steps(&wish(1, 1), &leaving), (0, vec![]));
    let dying = members(&[(1, 1, Aborted), (2, 1, Serving)]);
    assert_eq!(steps(&wish(2, 1), &dying), (0, vec![]));
}

#[test]
fn nobody_goes_for_the_sake_of_one_that_still_boots() {
    use Stage::{Booting, Serving};
    let one_boots = members(&[(1, 1, Serving), (2, 1, Serving), (3, 1, Booting)]);
    assert_eq!(steps(&wish(2, 1), &one_boots), (0, vec![]));
    assert_eq!(steps(&wish(1, 1), &one_boots), (0, vec![1]));
    assert_eq!(steps(&wish(0, 1), &one_boots), (0, vec![1, 2, 3]));
}

#[test]
fn a_reload_goes_worker_by_worker() {
    use Stage::{Booting, Retiring, Serving};
    let old = [(1, 1, Serving), (2, 1, Serving)];
    let start = plan(&unproven(2, 2, 2), &members(&old));
    assert_eq!((start.spawn, start.retire.len()), (1, 0));
    assert!(!start.is_current);

    let first = members(&[old[0], old[1], (3, 2, Booting)]);
    assert_eq!(steps(&unproven(2, 2, 2), &first), (0, vec![]));

    let proven = members(&[old[0], old[1], (3, 2, Serving)]);
    assert_eq!(steps(&wish(2, 2), &proven), (0, vec![1]));

    // Who leaves still holds its memory: the next one starts when it is gone.
    let leaving = members(&[(1, 1, Retiring), old[1], (3, 2, Serving)]);
    assert_eq!(steps(&wish(2, 2), &leaving), (0, vec![]));
    let gone = members(&[old[1], (3, 2, Serving)]);
    assert_eq!(steps(&wish(2, 2), &gone), (1, vec![]));
    let wide = Wish {
        reload_surge: 2,
        ..wish(2, 2)
    };
    assert_eq!(steps(&wide, &leaving), (1, vec![]));

    let whole = members(&[old[1], (3, 2, Serving), (4, 2, Serving)]);
    let done = plan(&wish(2, 2), &whole);
    assert_eq!((done.spawn, done.retire.as_slice()), (0, &[2][..]));
    assert!(done.is_current);
}

#[test]
fn a_reload_that_has_not_shown_that_it_boots_takes_nobody_away() {
    use Stage::{Booting, Serving};
    let four: Vec<_> = (1..=4).map(|age| (age, 1, Serving)).collect();
    // Fewer workers from now on: the first new one comes before anyone goes.
    assert_eq!(steps(&unproven(2, 2, 4), &members(&four)), (1, vec![]));
    let mut with_new = four.clone();
    with_new.push((5, 2, Serving));
    assert_eq!(steps(&wish(2, 2), &members(&with_new)), (0, vec![1, 2, 3]));
    // More workers: what is missing comes at once.
    assert_eq!(steps(&unproven(4, 2, 2), &members(&four[..2])), (3, vec![]));
    // An old worker that dies meanwhile is replaced by one of the new settings.
    let fewer = members(&[four[0], (5, 2, Booting)]);
    assert_eq!(steps(&unproven(2, 2, 2), &fewer), (1, vec![]));
    // One that had not even booted goes first, and nobody misses it.
    let late = members(&[(1, 1, Serving), (2, 1, Booting), (3, 2, Serving)]);
    assert_eq!(steps(&wish(2, 2), &late), (0, vec![2]));
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
fn who_asks_goes_on_until_its_successor_serves() {
    use Stage::{Booting, Retiring, Serving};
    let mut two = members(&[(1, 1, Serving), (2, 1, Serving)]);
    two[0].asks = true;
    two[1].asks = true;
    assert_eq!(steps(&wish(2, 1), &two), (1, vec![]));
    two.extend(members(&[(3, 1, Booting)]));
    assert_eq!(steps(&wish(2, 1), &two), (0, vec![]));
    two[2].stage = Serving;
    assert_eq!(steps(&wish(2, 1), &two), (0, vec![1]));
    // One at a time, until it is gone.
    two[0].stage = Retiring;
    assert_eq!(steps(&wish(2, 1), &two), (0, vec![]));
    let both = Wish {
        max_retiring: 2,
        ..wish(2, 1)
    };
    assert_eq!(steps(&both, &two), (1, vec![]));
    assert_eq!(steps(&wish(2, 1), &two[1..]), (1, vec![]));
    // TTOU takes the one that asks.
    assert_eq!(steps(&wish(1, 1), &two[1..]), (0, vec![2]));
}

const DEAD: Obituary = Obituary {
    death: Death::Exit(0),
    stage: Stage::Serving,
    drained: false,
    in_rollout: false,
    lifetime: Duration::from_secs(60),
};

#[test]
fn boot_failures_stop_a_server_that_was_never_up() {
    let boot = Obituary {
        death: Death::Exit(3),
        stage: Stage::Booting,
        lifetime: Duration::from_millis(100),
        ..DEAD
    };
    let reason = "Worker failed to boot.";
    assert_eq!(
        after_death(&boot, false),
        Consequence::Halt { reason, code: 3 }
    );
    let load = Obituary {
        death: Death::Exit(4),
        ..boot
    };
    let reason = "App failed to load.";
    assert_eq!(
        after_death(&load, false),
        Consequence::Halt { reason, code: 4 }
    );
    assert_eq!(after_death(&load, true), Consequence::BackOff);
}

#[test]
fn boot_failures_at_a_reload_keep_the_old_generation() {
    let boot = Obituary {
        death: Death::Exit(3),
        stage: Stage::Booting,
        in_rollout: true,
        ..DEAD
    };
    assert_eq!(
        after_death(&boot, true),
        Consequence::FailRollout("Worker failed to boot.")
    );
    let killed = Obituary {
        death: Death::Signal(6),
        stage: Stage::Aborted,
        ..boot
    };
    assert_eq!(
        after_death(&killed, true),
        Consequence::FailRollout("Worker failed to boot.")
    );
    let proven = Obituary {
        in_rollout: false,
        ..boot
    };
    assert_eq!(after_death(&proven, true), Consequence::BackOff);
    assert_eq!(
        after_death(&boot, false),
        Consequence::FailRollout("Worker failed to boot."),
        "also before the first start was over"
    );
    let told_to = Obituary {
        stage: Stage::Retiring,
        ..boot
    };
    assert_eq!(after_death(&told_to, true), Consequence::Replace);
}

#[test]
fn only_early_and_unannounced_deaths_slow_down_replacement() {
    let soon = Duration::from_millis(10);
    let crash = Obituary {
        death: Death::Signal(9),
        ..DEAD
    };
    assert_eq!(after_death(&crash, true), Consequence::Replace);
    assert_eq!(
        after_death(
            &Obituary {
                lifetime: soon,
                ..crash
            },
            true
        ),
        Consequence::BackOff
    );
    let recycled = Obituary {
        lifetime: soon,
        drained: true,
        ..DEAD
    };
    assert_eq!(after_death(&recycled, true), Consequence::Replace);
    let unbooted = Obituary {
        death: Death::Exit(1),
        stage: Stage::Booting,
        ..DEAD
    };
    assert_eq!(after_death(&unbooted, false), Consequence::BackOff);
    let retired = Obituary {
        lifetime: soon,
        stage: Stage::Retiring,
        death: Death::Signal(15),
        ..DEAD
    };
    assert_eq!(after_death(&retired, true), Consequence::Replace);
}

#[test]
fn backoff_doubles_up_to_a_bound_and_forgets() {
    let mut backoff = Backoff::default();
    assert_eq!(backoff.remaining(5), 0);
    let mut now = 1_000_000;
    let mut delays = Vec::new();
    for _ in 0..10 {
        delays.push(backoff.died_young(now).as_millis());
        assert_eq!(backoff.remaining(now), backoff.delay);
        now += backoff.delay;
        assert_eq!(backoff.remaining(now), 0);
    }
    assert_eq!(delays[..4], [100, 200, 400, 800]);
    assert_eq!(delays[9], 15_000);
    assert_eq!(backoff.died_young(now + 60_000), Duration::from_millis(100));
    backoff.forget();
    assert_eq!(backoff.remaining(now), 0);
}
