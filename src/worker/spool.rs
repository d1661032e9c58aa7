//! A request's body on its way in: memory, then an unlinked temporary file past a size.
//!
//! A body leaves memory when it alone is past `body_buffer_size`, or when the worker as a whole holds more than
//! `body_buffer_total` ([`BodyBudget`]). The temporary file lives in `worker_tmp_dir`, or where the system puts
//! such files. Where descriptors are short a body whose length is known goes to a file that several share.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::config::Config;
use crate::pool::{
    BodyBytes, BufferPool, PieceFile, REUSED_BYTES_MIN, RequestBody, SharedFiles, temporary_file,
};

use super::transport::Transport;

/// A declared length reserves at most this much new memory before bytes are there.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Room for the rest of a body is this many times what the client has sent of it.
const RESERVE_FACTOR: usize = 16;

/// A body in chunks begins in memory that was used for one of this length.
const UNKNOWN_BYTES: usize = 64 * 1024;

/// The memory that all bodies of the worker share.
#[derive(Debug)]
pub(super) struct BodyBudget {
    /// One body in memory may be this long (`body_buffer_size`).
    body_bytes_max: usize,
    /// All bodies in memory together (`body_buffer_total`).
    total_bytes_max: usize,
    /// Where bodies go that leave memory (`worker_tmp_dir`).
    files: SharedFiles,
    /// Bytes in memory now.
    held_bytes: usize,
    /// Memory that other bodies have left.
    buffer_pool: Arc<BufferPool>,
}

/// One body being received.
#[derive(Debug, Default)]
pub(super) struct Spool {
    /// The length that the client has declared.
    declared: Option<u64>,
    received: Received,
}

/// What has come of it.
#[derive(Debug, Default)]
enum Received {
    /// Nothing yet.
    #[default]
    Empty,
    Memory(BodyBytes),
    File {
        file: PieceFile,
        /// Where it begins in the file.
        offset: u64,
        len: u64,
    },
}

/// What one read has brought.
#[derive(Debug)]
pub(super) struct DirectRead {
    /// Bytes of the body.
    pub(super) bytes: usize,
    /// What the client has sent behind it.
    pub(super) beyond: Vec<u8>,
    /// There was no room for more.
    pub(super) is_full: bool,
}

impl Spool {
    /// Begin a body of a declared length. It gets memory, if it may stay there.
    pub(super) fn reserve(&mut self, declared: u64, budget: &BodyBudget) {
        debug_assert!(self.is_empty(), "a body begins once");
        self.declared = Some(declared);
        if declared > budget.body_bytes_max as u64 {
            return;
        }
        let declared = usize::try_from(declared).unwrap_or(usize::MAX);
        let mut bytes = BodyBytes::expecting(declared, &budget.buffer_pool);
        if declared <= RESERVE_BYTES_MAX {
            let memory = bytes.memory();
            memory.reserve_exact(declared);
        }
        self.received = Received::Memory(bytes);
    }

    /// Of `left` bytes that are to come, for how many there may be memory, so that they are read to where they stay. `None`
    /// when that is not worth while: few bytes are cheaper to copy. A length alone reserves little: what the client has
    /// sent allows for more.
    pub(super) fn room_for(&self, left: usize, budget: &BodyBudget) -> Option<usize> {
        let Received::Memory(held) = &self.received else {
            return None;
        };
        if !budget.has_room(held.len(), left) {
            return None;
        }
        if left <= held.spare() {
            return Some(left);
        }
        let room = left.min(held.len() * RESERVE_FACTOR);
        (room >= REUSED_BYTES_MIN).then_some(room)
    }

    /// Read to where the bytes stay, with room for `room` of the `left` that are to come. 0 is the end.
    ///
    /// # Errors
    /// The socket's, among them "would block"; the system has no memory for so much.
    pub(super) fn read(
        &mut self,
        room: usize,
        left: usize,
        transport: &mut Transport,
        budget: &mut BodyBudget,
    ) -> io::Result<DirectRead> {
        let Received::Memory(held) = &mut self.received else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let memory = held.memory();
        memory
            .try_reserve_exact(room)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        let got = transport.read_spare(memory)?;
        let beyond = match got.checked_sub(left) {
            // Used memory may have room for more than the body.
            Some(beyond @ 1..) => memory.split_off(memory.len() - beyond),
            _ => Vec::new(),
        };
        let bytes = got - beyond.len();
        budget.held_bytes += bytes;
        Ok(DirectRead {
            bytes,
            beyond,
            is_full: memory.len() == memory.capacity(),
        })
    }

    /// Append what has arrived.
    ///
    /// # Errors
    /// The temporary file could not be made or written.
    pub(super) fn write(&mut self, bytes: &[u8], budget: &mut BodyBudget) -> io::Result<()> {
        if self.is_empty() {
            self.received =
                Received::Memory(BodyBytes::expecting(UNKNOWN_BYTES, &budget.buffer_pool));
        }
        if let Received::Memory(held) = &mut self.received {
            if budget.has_room(held.len(), bytes.len()) {
                held.memory().extend_from_slice(bytes);
                budget.held_bytes += bytes.len();
                return Ok(());
            }
            let (file, offset) = budget.place(self.declared)?;
            file.file().write_all_at(held, offset)?;
            let len = held.len() as u64;
            budget.held_bytes -= held.len();
            self.received = Received::File { file, offset, len };
        }
        if let Received::File { file, offset, len } = &mut self.received {
            let end = *len + bytes.len() as u64;
            if self.declared.is_some_and(|declared| end > declared) {
                // What is behind its end may be another's.
                return Err(io::ErrorKind::InvalidData.into());
            }
            file.file().write_all_at(bytes, *offset + *len)?;
            *len = end;
        }
        Ok(())
    }

    /// The body is whole: it leaves. Its memory stays counted until [`BodyBudget::give_back`].
    pub(super) fn take(&mut self) -> RequestBody {
        match std::mem::take(&mut self.received) {
            Received::Empty => RequestBody::Empty,
            Received::Memory(bytes) if bytes.is_empty() => RequestBody::Empty,
            Received::Memory(bytes) => RequestBody::Memory(bytes),
            Received::File { file, offset, len } => RequestBody::File { file, offset, len },
        }
    }

    /// Nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.received, Received::Empty)
    }

    /// What has come, unless it is in a file.
    pub(super) fn in_memory(&self) -> Option<&[u8]> {
        match &self.received {
            Received::Empty => Some(&[]),
            Received::Memory(bytes) => Some(bytes),
            Received::File { .. } => None,
        }
    }

    /// How many bytes of the budget this body holds.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.received {
            Received::Memory(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl BodyBudget {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            body_bytes_max: config.limits.body_buffer_size,
            total_bytes_max: config.limits.body_buffer_total,
            files: SharedFiles::new(config.workers.worker_tmp_dir.clone()),
            held_bytes: 0,
            buffer_pool: Arc::default(),
        }
    }

    /// Make the file that bodies share, while there is a descriptor for it.
    pub(super) fn prepare(&self) {
        self.files.prepare();
    }

    /// Where a body goes that leaves memory. One without a declared length has no place in a shared file.
    fn place(&self, declared: Option<u64>) -> io::Result<(PieceFile, u64)> {
        match declared {
            Some(len) => self.files.place(len),
            None => Ok((temporary_file(self.files.directory())?.into(), 0)),
        }
    }

    /// Whether a body that holds `held` bytes of memory may hold `more`.
    fn has_room(&self, held: usize, more: usize) -> bool {
        held + more <= self.body_bytes_max && self.held_bytes + more <= self.total_bytes_max
    }

    /// Bytes of bodies in memory.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// A body that held `bytes` of memory is done with.
    pub(super) fn give_back(&mut self, bytes: usize) {
        debug_assert!(self.held_bytes >= bytes, "more was given back than held");
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Write as _};

    use super::*;

    fn budget(body: usize, total: usize) -> BodyBudget {
        BodyBudget {
            body_bytes_max: body,
            total_bytes_max: total,
            files: SharedFiles::default(),
            held_bytes: 0,
            buffer_pool: Arc::default(),
        }
    }

    #[test]
    fn a_small_body_stays_in_memory_and_a_large_one_goes_to_a_file() {
        let mut budget = budget(10, 100);
        let mut spool = Spool::default();
        spool.write(b"01234", &mut budget).unwrap();
        assert_eq!((spool.held_bytes(), budget.held_bytes), (5, 5));
        spool.write(b"56789x", &mut budget).unwrap();
        assert_eq!((spool.held_bytes(), budget.held_bytes), (0, 0));
        let RequestBody::File { file, len, .. } = spool.take() else {
            panic!("not a file")
        };
        let mut text = String::new();
        file.file().read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), len), ("0123456789x", 11));
    }

    #[test]
    fn the_workers_total_sends_the_body_that_is_over_it_to_a_file() {
        let mut budget = budget(10, 12);
        let (mut first, mut second) = (Spool::default(), Spool::default());
        first.write(b"01234567", &mut budget).unwrap();
        second.write(b"01234567", &mut budget).unwrap();
        assert!(matches!(first.take(), RequestBody::Memory(_)));
        assert!(matches!(second.take(), RequestBody::File { len: 8, .. }));
        assert_eq!(budget.held_bytes, 8);
        budget.give_back(8);
    }

    #[test]
    fn the_last_bytes_come_where_the_others_are_without_more_memory() {
        let mut budget = budget(1 << 20, 1 << 20);
        let (mut transport, mut theirs) = Transport::pair();
        let mut spool = Spool::default();
        let (len, first) = (300_000, 16_000);
        spool.reserve(len as u64, &budget);
        spool.write(&vec![b'x'; first], &mut budget).unwrap();
        let mut left = len - first;
        for step in [100_000, 100_000, left - 200_053, 53] {
            theirs.write_all(&vec![b'x'; step]).unwrap();
            let room = spool.room_for(left, &budget).unwrap();
            let read = spool.read(room, left, &mut transport, &mut budget);
            assert_eq!(read.unwrap().bytes, step);
            left -= step;
        }
        let Received::Memory(held) = &spool.received else {
            panic!("not in memory")
        };
        assert_eq!((left, held.len(), held.spare()), (0, len, 0));
    }

    #[test]
    fn no_bytes_are_no_body() {
        let mut spool = Spool::default();
        spool.reserve(0, &budget(10, 10));
        assert!(matches!(spool.take(), RequestBody::Empty));
    }
}
