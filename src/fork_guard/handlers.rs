//! The signal handlers that the server has installed; a child has the default in their place.
#![expect(unsafe_code, reason = "signal handlers are installed by nothing else")]

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc::{self, c_int};
use nix::sys::signal::Signal;

/// By signal, the handler as a number; 0 is none of the server's.
static HANDLERS: [AtomicUsize; SIGNALS] = [const { AtomicUsize::new(0) }; SIGNALS];
/// Linux has 64 signals; other systems have fewer.
const SIGNALS: usize = 65;

/// The server has installed `handler` for `signal`; `None` is the default or "ignore".
pub fn note_handler(signal: Signal, handler: Option<extern "C" fn(c_int)>) {
    let number = handler.map_or(0, |handler| handler as usize);
    HANDLERS[signal as usize].store(number, Ordering::Relaxed);
}

/// The handler that is now installed for the signal of this number was installed on behalf of the server.
pub fn note_installed_handler(number: c_int) {
    if let (Some(noted), Some(action)) = (slot(number), action_of(number)) {
        noted.store(action.sa_sigaction, Ordering::Relaxed);
    }
}

/// Where the handler is still the server's, the default takes its place. What the application has installed stays.
pub fn reset_handlers() {
    for (number, noted) in HANDLERS.iter().enumerate() {
        let (number, noted) = (number as c_int, noted.load(Ordering::Relaxed));
        if noted == 0 || action_of(number).is_none_or(|action| action.sa_sigaction != noted) {
            continue;
        }
        // SAFETY: all zeros are a valid sigaction: the default action, no flags, an empty mask.
        let default: libc::sigaction = unsafe { std::mem::zeroed() };
        debug_assert_eq!(default.sa_sigaction, libc::SIG_DFL);
        // SAFETY: `default` is a valid action, and the old one is not wanted.
        unsafe { libc::sigaction(number, &raw const default, std::ptr::null_mut()) };
    }
}

fn slot(number: c_int) -> Option<&'static AtomicUsize> {
    HANDLERS.get(usize::try_from(number).ok()?)
}

fn action_of(number: c_int) -> Option<libc::sigaction> {
    // SAFETY: all zeros are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call only fills `action`.
    let failed = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut action) };
    (failed == 0).then_some(action)
}
