//! Notifications to systemd: real states, each when it is true (sd_notify(3)).
//!
//! `READY=1` when the first worker serves, not when there is a socket; `RELOADING=1` from HUP until the last old worker
//! was asked to leave; `STOPPING=1`, or the successor's `MAINPID=`, at the end; `STATUS=` whenever the workers' numbers
//! change; `WATCHDOG=1` from the arbiter's loop, at half the time that systemd waits for it.
//!
//! Nothing here waits or fails the server: a notification that cannot be sent is dropped.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::fork_guard;

/// From the environment.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    /// `NOTIFY_SOCKET`: a path, or `@` and a name in the abstract namespace.
    pub notify_socket: Option<String>,
    /// `WATCHDOG_USEC`, when `WATCHDOG_PID` means this process.
    pub watchdog_usec: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Notifier {
    socket: Option<UnixDatagram>,
    /// Milliseconds between two signs of life.
    watchdog_ms: Option<u64>,
    next_watchdog_at: u64,
    status: String,
    is_ready: bool,
}

impl Notifier {
    pub(super) fn new(supervisor: &Supervisor) -> Self {
        let socket = supervisor.notify_socket.as_deref().and_then(connect);
        let watchdog_ms = supervisor
            .watchdog_usec
            .filter(|usec| *usec > 0 && socket.is_some())
            .map(|usec| (usec / 2000).max(1));
        Self {
            socket,
            watchdog_ms,
            ..Self::default()
        }
    }

    pub(super) fn has_watchdog(&self) -> bool {
        self.watchdog_ms.is_some()
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket {
            if let Err(error) = socket.send(state.as_bytes()) {
                log::debug!("systemd was not notified of {state:?}: {error}");
            }
        }
    }

    /// Sends the sign of life if it is time; returns in how many milliseconds it is time again.
    pub(super) fn keep_watchdog(&mut self, now: u64) -> Option<u64> {
        let period = self.watchdog_ms?;
        if self.next_watchdog_at <= now {
            self.send("WATCHDOG=1");
            self.next_watchdog_at = now + period;
        }
        Some(self.next_watchdog_at - now)
    }

    /// Called once an iteration: costs nothing when nothing has changed.
    pub(super) fn status(&mut self, serving: usize, booting: usize, leaving: usize) {
        if self.socket.is_none() {
            return;
        }
        let status = status(serving, booting, leaving);
        let becomes_ready = serving > 0 && !self.is_ready;
        if becomes_ready {
            self.is_ready = true;
            self.send(&format!("READY=1\nSTATUS={status}"));
        } else if status != self.status {
            self.send(&format!("STATUS={status}"));
        }
        self.status = status;
    }

    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .map_or(0, |now| std::time::Duration::from(now).as_micros());
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
    }

    /// The reload is over, with this outcome.
    pub(super) fn reloaded(&mut self, outcome: &str) {
        self.send(&format!("READY=1\nSTATUS={outcome}"));
        // The next line about the workers is news again.
        self.status.clear();
    }

    /// A service whose master has a successor does not stop: it goes on with that one.
    pub(super) fn stopping(&self, new_master: Option<Pid>) {
        match new_master {
            Some(new_master) => self.send(&format!("MAINPID={new_master}")),
            None => self.send("STOPPING=1"),
        }
    }

    pub(super) fn promoted(&mut self, pid: Pid) {
        self.send(&format!("MAINPID={pid}\nREADY=1"));
        self.status.clear();
    }
}

fn status(serving: usize, booting: usize, leaving: usize) -> String {
    let mut status = format!(
        "{serving} worker{} serving",
        if serving == 1 { "" } else { "s" }
    );
    for (count, doing) in [(booting, "booting"), (leaving, "leaving")] {
        if count > 0 {
            status.push_str(&format!(", {count} {doing}"));
        }
    }
    status
}

fn connect(name: &str) -> Option<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    let connected = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        fork_guard::register(&socket);
        // A supervisor that does not read must not hold the loop.
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(socket)
    });
    connected
        .inspect_err(|error| log::warn!("NOTIFY_SOCKET {name} cannot be used: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_counts_only_what_there_is() {
        assert_eq!(status(0, 2, 0), "0 workers serving, 2 booting");
        assert_eq!(status(1, 0, 1), "1 worker serving, 1 leaving");
        assert_eq!(status(4, 0, 0), "4 workers serving");
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time() {
        let name = format!("ferricorn-watchdog-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = UnixDatagram::bind_addr(&address).unwrap();
        let mut notifier = Notifier::new(&Supervisor {
            notify_socket: Some(format!("@{name}")),
            watchdog_usec: Some(4_000_000),
        });
        assert_eq!(notifier.keep_watchdog(10_000), Some(2000));
        assert_eq!(notifier.keep_watchdog(11_000), Some(1000));
        assert_eq!(notifier.keep_watchdog(12_000), Some(2000));
        supervisor.set_nonblocking(true).unwrap();
        let mut datagram = [0; 64];
        for _ in 0..2 {
            let len = supervisor.recv(&mut datagram).unwrap();
            assert_eq!(&datagram[..len], b"WATCHDOG=1");
        }
        assert!(
            supervisor.recv(&mut datagram).is_err(),
            "only when it is time"
        );
    }
}
