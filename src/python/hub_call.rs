//! What the event loop has the hub's thread do at a signal, and waits for: the hooks of a leaving worker run in a greenlet,
//! as the application's code does.
//!
//! A hub that is blocked does not begin. Then the loop takes the call back, so that exactly one of the two threads runs it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One signal on its way through the hub.
#[derive(Debug)]
pub(super) struct HubCall {
    signal: i32,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Over,
    TakenBack,
}

impl HubCall {
    /// For a signal whose hook is to be called in a greenlet.
    pub(super) fn new(signal: i32) -> Self {
        Self {
            signal,
            state: Mutex::new(State::Waiting),
            changed: Condvar::new(),
        }
    }

    /// The hub's thread: runs the call unless it was taken back.
    pub(super) fn run(&self, hook: impl FnOnce(i32)) {
        if self.replace(State::Waiting, State::Running) {
            hook(self.signal);
            self.replace(State::Running, State::Over);
        }
    }

    /// The event loop's thread: whether the hub's has run it. False: it has not begun within `patience`, and never will.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let is_waiting = |state: &mut State| *state == State::Waiting;
        let state = self
            .changed
            .wait_timeout_while(self.lock(), patience, is_waiting);
        let (mut state, _) = state.unwrap_or_else(PoisonError::into_inner);
        if *state == State::Waiting {
            *state = State::TakenBack;
            return false;
        }
        let is_running = |state: &mut State| *state == State::Running;
        drop(self.changed.wait_while(state, is_running));
        true
    }

    fn replace(&self, old: State, new: State) -> bool {
        let mut state = self.lock();
        let is_old = *state == old;
        if is_old {
            *state = new;
            self.changed.notify_all();
        }
        is_old
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_hub_runs_a_call_while_the_loop_waits() {
        let call = Arc::new(HubCall::new(3));
        let hub = std::thread::spawn({
            let call = Arc::clone(&call);
            move || {
                let mut ran = 0;
                call.run(|signal| ran = signal);
                ran
            }
        });
        assert!(call.wait(Duration::from_secs(10)));
        assert_eq!(hub.join().unwrap(), 3);
    }

    #[test]
    fn a_call_that_a_blocked_hub_does_not_begin_is_taken_back() {
        let call = HubCall::new(6);
        assert!(!call.wait(Duration::from_millis(1)));
        call.run(|_| unreachable!("it was taken back"));
    }
}
