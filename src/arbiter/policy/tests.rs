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
    };
    list.iter().map(member).collect()
}

#[test]
fn missing_workers_are_started_and_the_oldest_surplus_goes() {
    use Stage::{Aborted, Booting, Retiring, Serving};
    let two = members(&[(1, 1, Serving), (2, 1, Booting)]);
    assert_eq!(plan(4, None, &two).spawn, 2);
    assert_eq!(plan(2, None, &two), Plan::default());
    assert_eq!(plan(1, None, &two).retire, [1]);
    assert_eq!(plan(0, None, &two).retire, [1, 2]);
    let leaving = members(&[(1, 1, Retiring), (2, 1, Serving)]);
    assert_eq!(plan(2, None, &leaving).spawn, 1);
    assert!(plan(1, None, &leaving).retire.is_empty());
    let dying = members(&[(1, 1, Aborted), (2, 1, Serving)]);
    assert_eq!(plan(2, None, &dying), Plan::default());
}

#[test]
fn a_reload_keeps_the_old_until_all_of_the_new_serve() {
    use Stage::{Booting, Retiring, Serving};
    let old = [(1, 1, Serving), (2, 1, Serving)];
    let fresh = plan(2, Some(2), &members(&old));
    assert_eq!(
        (fresh.spawn, fresh.retire.len(), fresh.rolled_out),
        (2, 0, false)
    );

    let half = members(&[old[0], old[1], (3, 2, Serving), (4, 2, Booting)]);
    assert_eq!(plan(2, Some(2), &half), Plan::default());

    let whole = members(&[old[0], old[1], (3, 2, Serving), (4, 2, Serving)]);
    let done = plan(2, Some(2), &whole);
    assert_eq!(
        (done.spawn, done.retire, done.rolled_out),
        (0, vec![1, 2], true)
    );

    // An old worker that died meanwhile is not replaced by one of the new settings, nor counted.
    let fewer = members(&[old[1], (3, 2, Serving), (4, 2, Booting)]);
    assert_eq!(plan(2, Some(2), &fewer), Plan::default());

    // What was given up before is leaving already.
    let second = members(&[old[0], (3, 2, Retiring), (4, 3, Serving)]);
    let done = plan(1, Some(3), &second);
    assert_eq!((done.retire, done.rolled_out), (vec![1], true));
    assert!(plan(0, Some(2), &members(&old)).rolled_out);
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
