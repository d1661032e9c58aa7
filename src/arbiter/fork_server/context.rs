//! The template's side: the orders that it hears, and the seats of the workers that it forks.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use super::ORDER_BYTES;
use crate::arbiter::WorkerLine;
use crate::arbiter::fork::{WorkerSeat, max_requests};
use crate::config::Config;
use crate::net::{Channels, Listener, receive_sockets};
use crate::scoreboard::{Scoreboard, monotonic_ms};

/// All that a template inherits from the arbiter.
///
/// Its duties: import the application, `report_ready`, and fork a worker for each order. In the worker `into_worker`
/// makes the seat; in the process between them nothing is done but to note the worker's pid in its slot.
#[derive(Debug)]
pub struct TemplateSeat {
    pub config: Arc<Config>,
    pub scoreboard: Arc<Scoreboard>,
    pub(super) control: UnixStream,
    pub(super) listeners: Vec<Listener>,
    pub(super) nudge: OwnedFd,
    pub(super) channels: Option<Arc<Channels>>,
    pub(super) arbiter: Pid,
}

/// Which worker is to be forked.
#[derive(Debug)]
pub struct Order {
    pub age: u64,
    pub slot: usize,
    line: Option<WorkerLine>,
}

impl TemplateSeat {
    /// # Errors
    /// When the arbiter is gone.
    pub fn report_ready(&mut self) -> io::Result<()> {
        self.control.write_all(b"r")
    }

    /// Descriptor and name of each listener, for those who only look.
    #[must_use]
    pub fn faces(&self) -> Vec<(RawFd, String)> {
        self.listeners.iter().map(Listener::face).collect()
    }

    /// Waits for the next order; none when there will be no more.
    pub fn next_order(&mut self) -> Option<Order> {
        let mut order = [0; ORDER_BYTES];
        let (len, ends) = receive_sockets(self.control.as_fd(), &mut order).ok()?;
        let (age, slot) = order.split_at(8);
        if len < ORDER_BYTES {
            return None;
        }
        let ends = <[OwnedFd; 2]>::try_from(ends).ok();
        Some(Order {
            age: u64::from_le_bytes(age.try_into().ok()?),
            slot: usize::try_from(u64::from_le_bytes(slot.try_into().ok()?)).ok()?,
            line: ends.map(|[questions, dump]| WorkerLine {
                questions: UnixStream::from(questions),
                dump,
            }),
        })
    }

    /// The answer to an order: what stands in the slot by now. 0 means that there is no worker.
    ///
    /// # Errors
    /// When the arbiter is gone.
    pub fn answer(&mut self, order: &Order) -> io::Result<()> {
        let pid = self.scoreboard.slot(order.slot).pid();
        self.control.write_all(&pid.to_le_bytes())
    }

    /// In the new worker: waits until it is the arbiter's child.
    ///
    /// # Errors
    /// When the arbiter is gone.
    pub fn into_worker(self, order: Order) -> io::Result<WorkerSeat> {
        let deadline = monotonic_ms() + ADOPTION_MS;
        while getppid() != self.arbiter {
            if monotonic_ms() > deadline {
                return Err(io::Error::other("the arbiter did not adopt it"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        // Not before: the end of the process in between would count as the parent's death.
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        log::info!("Booting worker with pid: {}", getpid());
        let max_requests = max_requests(&self.config);
        let seat = WorkerSeat {
            index: order.slot,
            age: order.age,
            listeners: self.listeners,
            config: self.config,
            scoreboard: self.scoreboard,
            booted: self.nudge,
            line: order.line,
            parent: self.arbiter,
            channels: self.channels,
            max_requests,
        };
        if seat.is_orphan() {
            return Err(io::Error::other("the arbiter is gone"));
        }
        Ok(seat)
    }
}

const ADOPTION_MS: u64 = 5000;
