//! Bodies of a known length that are read to where they stay: through the shared buffer they would be copied.

use std::io;

use crate::http::Received;
use crate::pool::REUSED_BYTES_MIN;

use super::connection::Connection;
use super::core::Core;

impl Connection {
    /// How much of a body in memory is to come, and how much of that may be read to where it stays, if that is worth
    /// while: reading into the shared buffer costs a copy.
    pub(super) fn large_body_left(&self, budget: usize, core: &Core) -> Option<(usize, usize)> {
        let left = self.exchange.counted_body_left()?;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if left < REUSED_BYTES_MIN || self.arriving.is_some() || !self.inbound.is_empty() {
            return None;
        }
        let room = self.spool.room_for(left, &core.spool)?.min(budget);
        (room >= REUSED_BYTES_MIN).then_some((left, room))
    }

    /// Read about `len` of the `left` bytes of the body to where they stay. Returns how many came; 0 is the end of
    /// the input.
    pub(super) fn read_body(
        &mut self,
        left: usize,
        len: usize,
        core: &mut Core,
    ) -> io::Result<usize> {
        let arrived = self.spool.read(len, left, &self.stream, &mut core.spool)?;
        self.exchange.take_counted(arrived.bytes as u64);
        self.readable = arrived.is_full || !arrived.beyond.is_empty() || self.read_closed;
        self.inbound = arrived.beyond;
        if self.exchange.counted_body_left() == Some(0) {
            self.end_body(core);
        }
        Ok(arrived.bytes)
    }

    /// The last bytes of a counted body are in.
    fn end_body(&mut self, core: &mut Core) {
        let job = self.job.take();
        let mut job = job.unwrap_or_else(|| self.fresh_job(core));
        let step = self.exchange.receive(&[], &core.limits, &mut job.head);
        let is_end = step.is_ok_and(|step| step.received == Received::End);
        debug_assert!(is_end, "nothing of the body is left");
        self.dispatch(job, core);
    }
}
