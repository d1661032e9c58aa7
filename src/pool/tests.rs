//! Tests of the wake-up token, of the hub's wake-up and of delegations of the loop. They stand beside their files, because `tests/model` compiles those
//! with primitives that work in a model only.
#![allow(clippy::unwrap_used)]

mod delegations;

use std::sync::Arc;

use super::hub_wakeup::HubWakeup;
use super::wakeup::WakeupToken;

#[test]
fn one_thread_is_waking_at_a_time_and_the_last_parked_is_the_first_woken() {
    let token = WakeupToken::new(3);
    token.park(0);
    token.park(1);
    assert!(token.is_any_coming(0) && !token.is_another_awake());
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
    assert!(!token.is_any_coming(0));
    token.notify_all();
    token.wait(0);
    token.wait(1);
    assert_eq!(token.parked(), 0);
}

#[test]
fn wake_ups_of_the_hub_are_coalesced_until_it_looks() {
    let hub = HubWakeup::new().unwrap();
    assert_eq!(hub.signals(), 0);
    hub.wake();
    hub.wake();
    assert_eq!(hub.signals(), 1);
    hub.begin_look();
    assert_eq!(hub.signals(), 0);
    hub.wake();
    assert_eq!(hub.signals(), 1);
}

#[test]
fn a_ticket_of_the_hub_is_called_up_by_its_number() {
    let hub = Arc::new(HubWakeup::new().unwrap());
    let (first, second) = (hub.ticket(), hub.ticket());
    let number = second.number();
    assert_ne!(first.number(), number);
    second.call_up();
    assert_eq!(hub.signals(), 1);
    assert_eq!((hub.next_due(), hub.next_due()), (Some(number), None));
}

#[test]
fn no_wake_up_of_the_hub_is_lost_between_threads() {
    let hub = Arc::new(HubWakeup::new().unwrap());
    let producer = std::thread::spawn({
        let hub = Arc::clone(&hub);
        move || (0..20_000).for_each(|_| hub.ticket().call_up())
    });
    let mut seen = 0;
    while seen < 20_000 {
        if hub.signals() > 0 {
            hub.begin_look();
            seen += std::iter::from_fn(|| hub.next_due()).count();
        }
    }
    producer.join().unwrap();
}
