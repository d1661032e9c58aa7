//! `--reload`: which of many files has changed, and when to check.
//!
//! The truth is what `stat` returns, compared with what it returned before; the kernel's notifications (`inotify`)
//! only show when a check is worth it. So an event too many costs a check, and one that never comes (on network and some shared
//! file systems, or when the kernel has no watches left) costs a second or two.
//!
//! No Python here: the caller lists the files (`launcher/code_watch.rs`, in every worker, on a thread of its own).
#![forbid(unsafe_code)]

mod inotify;
mod stamps;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use self::inotify::Notify;
use self::stamps::Stamps;
pub use self::stamps::{Files, Imported};
use crate::config::ReloadEngine;

/// Remembers what files looked like.
#[derive(Debug)]
pub struct Watcher {
    stamps: Stamps,
    notify: Option<Notify>,
}

impl Watcher {
    /// # Errors
    /// When `inotify` was asked for and the kernel has none left.
    pub fn new(engine: ReloadEngine) -> io::Result<Self> {
        let notify = match engine {
            ReloadEngine::Poll => None,
            ReloadEngine::Inotify => Some(Notify::new()?),
            ReloadEngine::Auto => Notify::new().ok(),
        };
        Ok(Self {
            stamps: Stamps::default(),
            notify,
        })
    }

    #[must_use]
    pub fn engine(&self) -> &'static str {
        if self.notify.is_some() {
            "inotify"
        } else {
            "poll"
        }
    }

    /// Looks at every file; returns one that is not as it was.
    pub fn look(&mut self, files: &Files) -> Option<PathBuf> {
        let changed = self.stamps.look(files);
        if let Some(notify) = &mut self.notify {
            // Where the kernel has no watches left, the period of `wait` has to do.
            let modules = files.modules.iter().map(|module| module.path.as_path());
            let matched = files.matched.iter().map(PathBuf::as_path);
            if !notify.watch(modules.chain(matched)) {
                log::warn!(
                    "The kernel has no inotify watches left: looking at the files every second instead."
                );
                self.notify = None;
            }
        }
        changed
    }

    /// Watches `directories` for files that may come.
    pub fn expect(&mut self, directories: &[PathBuf]) {
        if let Some(notify) = &mut self.notify {
            for directory in directories {
                notify.watch_directory(directory);
            }
        }
    }

    /// Sleeps until looking is worth it. False when `stop` is readable or closed.
    pub fn wait(&mut self, stop: BorrowedFd<'_>) -> bool {
        let period = if self.notify.is_some() {
            PERIOD_NOTIFIED
        } else {
            PERIOD_POLLED
        };
        let deadline = std::time::Instant::now() + period;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let mut waited = vec![PollFd::new(stop, PollFlags::POLLIN)];
            waited.extend(
                self.notify
                    .iter()
                    .map(|notify| PollFd::new(notify.descriptor(), PollFlags::POLLIN)),
            );
            let timeout = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let polled = poll(
                &mut waited,
                PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX),
            );
            if waited[0].revents().is_some_and(|events| !events.is_empty()) {
                return false;
            }
            let is_over = left.is_zero() || polled == Ok(0);
            let stamps = &self.stamps;
            let is_ours = |name: &Path| stamps.may_concern(name);
            if is_over || self.notify.as_ref().is_some_and(|one| one.read(is_ours)) {
                return true;
            }
        }
    }
}

/// Sleeps for `duration`. False when `stop` is readable or closed.
#[must_use]
pub fn pause(duration: Duration, stop: BorrowedFd<'_>) -> bool {
    let mut waited = [PollFd::new(stop, PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(duration).unwrap_or(PollTimeout::MAX);
    // A signal may end it early, which harms nothing.
    let _ = poll(&mut waited, timeout);
    waited[0].revents().is_none_or(|events| events.is_empty())
}

/// With notifications a check now and then finds what they do not show: modules that were imported since, and
/// changes on file systems that have none.
const PERIOD_NOTIFIED: Duration = Duration::from_secs(2);
/// gunicorn's.
const PERIOD_POLLED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
