//! A request's body on its way in: memory, then an unlinked temporary file past a size.
//!
//! A body leaves memory when it alone is past `body_buffer_size`, or when the worker as a whole holds more than
//! `body_buffer_total` ([`SpoolBudget`]). The temporary file lives in `worker_tmp_dir`, or where the system puts
//! such files.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::buffer::spare_capacity;

use crate::fork_guard::{Registered, registered};
use crate::pool::{BodyBytes, BufferPool, RequestBody};

/// A declared length reserves at most this much new memory before bytes are there.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// So many times what a client has sent of a body is reserved for the rest of it.
const RESERVE_FACTOR: usize = 16;

/// A body in chunks begins in memory that was used for one of this length.
const UNKNOWN_BYTES: usize = 64 * 1024;

/// What all bodies of the worker share.
#[derive(Debug)]
pub(super) struct SpoolBudget {
    /// One body in memory may be this long (`body_buffer_size`).
    pub(super) body_bytes_max: usize,
    /// All bodies in memory together (`body_buffer_total`).
    pub(super) total_bytes_max: usize,
    /// Where temporary files go (`worker_tmp_dir`).
    pub(super) directory: Option<PathBuf>,
    /// Bytes in memory now.
    pub(super) held_bytes: usize,
    /// Memory that other bodies have left.
    pub(super) buffer_pool: Arc<BufferPool>,
}

/// One body being received.
#[derive(Debug, Default)]
pub(super) enum Spool {
    /// Nothing yet.
    #[default]
    Empty,
    Memory(BodyBytes),
    File {
        /// A child that the application forks meanwhile must not have it. Dropped before the file.
        registered: Registered,
        file: File,
        len: u64,
    },
}

/// What one read has brought.
#[derive(Debug)]
pub(super) struct Arrived {
    /// So many bytes of the body.
    pub(super) bytes: usize,
    /// What the client has sent behind it.
    pub(super) beyond: Vec<u8>,
    /// There was no room for more.
    pub(super) is_full: bool,
}

impl Spool {
    /// Begin a body of a declared length.
    pub(super) fn reserve(&mut self, declared: u64, budget: &SpoolBudget) {
        debug_assert!(matches!(self, Self::Empty), "a body begins once");
        let declared = usize::try_from(declared).unwrap_or(usize::MAX);
        let mut bytes = BodyBytes::expecting(declared, &budget.buffer_pool);
        if declared <= RESERVE_BYTES_MAX {
            let memory = bytes.memory();
            memory.reserve_exact(declared);
        }
        *self = Self::Memory(bytes);
    }

    /// Of `left` bytes that are to come and will be held in memory, how many there may be room made for now. A length
    /// alone reserves little: what the client has sent allows for more.
    pub(super) fn room_for(&self, left: usize, budget: &SpoolBudget) -> Option<usize> {
        let Self::Memory(held) = self else {
            return None;
        };
        let fits = held.len() + left <= budget.body_bytes_max
            && budget.held_bytes + left <= budget.total_bytes_max;
        fits.then_some(left.min(held.len() * RESERVE_FACTOR))
    }

    /// Read to where the bytes stay, with room for `len` of the `left` that are to come. 0 is the end.
    ///
    /// # Errors
    /// The socket's, among them "would block"; the system has no memory for so much.
    pub(super) fn read(
        &mut self,
        len: usize,
        left: usize,
        socket: impl AsFd,
        budget: &mut SpoolBudget,
    ) -> io::Result<Arrived> {
        let Self::Memory(held) = self else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let memory = held.memory();
        memory
            .try_reserve_exact(len)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        let got = rustix::io::read(socket, spare_capacity(memory))?;
        let beyond = match got.checked_sub(left) {
            // Used memory may have room for more than the body.
            Some(beyond @ 1..) => memory.split_off(memory.len() - beyond),
            _ => Vec::new(),
        };
        let bytes = got - beyond.len();
        budget.held_bytes += bytes;
        Ok(Arrived {
            bytes,
            beyond,
            is_full: memory.len() == memory.capacity(),
        })
    }

    /// Append what has arrived.
    ///
    /// # Errors
    /// The temporary file could not be made or written.
    pub(super) fn write(&mut self, bytes: &[u8], budget: &mut SpoolBudget) -> io::Result<()> {
        if matches!(self, Self::Empty) {
            *self = Self::Memory(BodyBytes::expecting(UNKNOWN_BYTES, &budget.buffer_pool));
        }
        if let Self::Memory(held) = self {
            let fits = held.len() + bytes.len() <= budget.body_bytes_max
                && budget.held_bytes + bytes.len() <= budget.total_bytes_max;
            if fits {
                held.memory().extend_from_slice(bytes);
                budget.held_bytes += bytes.len();
                return Ok(());
            }
            let mut file = temporary_file(budget)?;
            file.write_all(held)?;
            budget.held_bytes -= held.len();
            *self = Self::File {
                registered: registered(&file),
                file,
                len: held.len() as u64,
            };
        }
        if let Self::File { file, len, .. } = self {
            file.write_all(bytes)?;
            *len += bytes.len() as u64;
        }
        Ok(())
    }

    /// The body is whole: hand it over. Its memory stays counted until [`SpoolBudget::give_back`].
    ///
    /// # Errors
    /// The temporary file could not be rewound.
    pub(super) fn take(&mut self) -> io::Result<RequestBody> {
        Ok(match std::mem::take(self) {
            Self::Empty => RequestBody::Empty,
            Self::Memory(bytes) if bytes.is_empty() => RequestBody::Empty,
            Self::Memory(bytes) => RequestBody::Memory(bytes),
            Self::File {
                registered,
                mut file,
                len,
            } => {
                // From here on the application reads it, in its children too.
                drop(registered);
                file.rewind()?;
                RequestBody::File { file, len }
            }
        })
    }

    /// How many bytes of the budget this body holds.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl SpoolBudget {
    /// A body that held `bytes` of memory is done with.
    pub(super) fn give_back(&mut self, bytes: usize) {
        debug_assert!(self.held_bytes >= bytes, "more was given back than held");
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }
}

fn temporary_file(budget: &SpoolBudget) -> io::Result<File> {
    if let Some(directory) = &budget.directory
        && let Ok(file) = tempfile::tempfile_in(directory)
    {
        return Ok(file);
    }
    tempfile::tempfile()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use super::*;

    fn budget(body: usize, total: usize) -> SpoolBudget {
        SpoolBudget {
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
        let RequestBody::File { mut file, len } = spool.take().unwrap() else {
            panic!("not a file")
        };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
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
