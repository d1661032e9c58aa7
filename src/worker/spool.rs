//! A request's body on its way in: memory, then an unlinked temporary file past a size.
//!
//! A body leaves memory when it alone is past `body_buffer_size`, or when the worker as a whole holds more than
//! `body_buffer_total` ([`BodyBudget`]). The temporary file lives in `worker_tmp_dir`, or where the system puts
//! such files.

use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Config;
use crate::pool::{
    BodyBytes, BufferPool, REUSED_BYTES_MIN, RequestBody, TemporaryFile, temporary_file,
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
    /// Where temporary files go (`worker_tmp_dir`).
    directory: Option<PathBuf>,
    /// Bytes in memory now.
    held_bytes: usize,
    /// Memory that other bodies have left.
    buffer_pool: Arc<BufferPool>,
}

/// One body being received.
#[derive(Debug, Default)]
pub(super) enum Spool {
    /// Nothing yet.
    #[default]
    Empty,
    Memory(BodyBytes),
    File {
        file: TemporaryFile,
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
    /// Begin a body of a declared length, if it may stay in memory.
    pub(super) fn reserve(&mut self, declared: u64, budget: &BodyBudget) {
        if declared > budget.body_bytes_max as u64 {
            return;
        }
        debug_assert!(matches!(self, Self::Empty), "a body begins once");
        let declared = usize::try_from(declared).unwrap_or(usize::MAX);
        let mut bytes = BodyBytes::expecting(declared, &budget.buffer_pool);
        if declared <= RESERVE_BYTES_MAX {
            let memory = bytes.memory();
            memory.reserve_exact(declared);
        }
        *self = Self::Memory(bytes);
    }

    /// Of `left` bytes that are to come, how many may be read to where they stay, if at most `max` are read. `None` when
    /// that is not worth while: small ones are cheaper to copy. A length alone reserves little: what the client has sent
    /// allows for more.
    pub(super) fn room_for(&self, left: usize, max: usize, budget: &BodyBudget) -> Option<usize> {
        let Self::Memory(held) = self else {
            return None;
        };
        if left < REUSED_BYTES_MIN || !budget.has_room(held.len(), left) {
            return None;
        }
        let room = left.min(held.len() * RESERVE_FACTOR).min(max);
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
        let Self::Memory(held) = self else {
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
        if matches!(self, Self::Empty) {
            *self = Self::Memory(BodyBytes::expecting(UNKNOWN_BYTES, &budget.buffer_pool));
        }
        if let Self::Memory(held) = self {
            if budget.has_room(held.len(), bytes.len()) {
                held.memory().extend_from_slice(bytes);
                budget.held_bytes += bytes.len();
                return Ok(());
            }
            let file = temporary_file(budget.directory.as_deref())?;
            file.file().write_all(held)?;
            budget.held_bytes -= held.len();
            *self = Self::File {
                file,
                len: held.len() as u64,
            };
        }
        if let Self::File { file, len } = self {
            file.file().write_all(bytes)?;
            *len += bytes.len() as u64;
        }
        Ok(())
    }

    /// The body is whole: it leaves. Its memory stays counted until [`BodyBudget::give_back`].
    ///
    /// # Errors
    /// The temporary file could not be rewound.
    pub(super) fn take(&mut self) -> io::Result<RequestBody> {
        Ok(match std::mem::take(self) {
            Self::Empty => RequestBody::Empty,
            Self::Memory(bytes) if bytes.is_empty() => RequestBody::Empty,
            Self::Memory(bytes) => RequestBody::Memory(bytes),
            Self::File { file, len } => {
                file.file().rewind()?;
                RequestBody::File { file, len }
            }
        })
    }

    /// Nothing has come.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// What has come, unless it is in a file.
    pub(super) fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Self::Empty => Some(&[]),
            Self::Memory(bytes) => Some(bytes),
            Self::File { .. } => None,
        }
    }

    /// How many bytes of the budget this body holds.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl BodyBudget {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            body_bytes_max: config.limits.body_buffer_size,
            total_bytes_max: config.limits.body_buffer_total,
            directory: config.workers.worker_tmp_dir.clone(),
            held_bytes: 0,
            buffer_pool: Arc::default(),
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
    use std::io::Read;

    use super::*;

    fn budget(body: usize, total: usize) -> BodyBudget {
        BodyBudget {
            body_bytes_max: body,
            total_bytes_max: total,
            directory: None,
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
        let RequestBody::File { file, len } = spool.take().unwrap() else {
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
        assert!(matches!(first.take().unwrap(), RequestBody::Memory(_)));
        assert!(matches!(
            second.take().unwrap(),
            RequestBody::File { len: 8, .. }
        ));
        assert_eq!(budget.held_bytes, 8);
        budget.give_back(8);
    }

    #[test]
    fn no_bytes_are_no_body() {
        let mut spool = Spool::default();
        spool.reserve(0, &budget(10, 10));
        assert!(matches!(spool.take().unwrap(), RequestBody::Empty));
    }
}
