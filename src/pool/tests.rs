//! Tests of the wake-up token. They stand beside its file, because `tests/model` compiles that with primitives that work in
//! a model only.

use super::wakeup::WakeupToken;

#[test]
fn one_thread_is_waking_at_a_time_and_the_last_parked_is_the_first_woken() {
    let token = WakeupToken::new(3);
    token.park(0);
    token.park(1);
    assert!(token.is_any_awake() && !token.is_another_awake());
    token.notify_one();
    token.notify_one();
    assert_eq!(token.parked(), 1, "the second notification wakes none");
    token.wait(1);
    token.wakeup_done();
    token.notify_one();
    token.wait(0);
    assert_eq!(token.parked(), 0);
}

#[test]
fn a_cancelled_park_takes_the_token_that_came_with_it() {
    let token = WakeupToken::new(1);
    token.park(0);
    token.cancel_park(0);
    assert_eq!(token.parked(), 0);
    token.park(0);
    token.notify_one();
    token.cancel_park(0);
    token.park(0);
    token.notify_one();
    token.wait(0);
}

#[test]
fn all_are_woken_in_the_end() {
    let token = WakeupToken::new(2);
    token.park(0);
    token.park(1);
    assert!(!token.is_any_awake());
    token.notify_all();
    token.wait(0);
    token.wait(1);
    assert_eq!(token.parked(), 0);
}
