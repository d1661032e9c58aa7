//! What a stream has produced that its client has no room for, while other requests wait for the stream's thread.
//!
//! The thread keeps items in memory, up to 256 KiB, and writes them to a file behind one another. The event loop takes from the
//! spool whenever the client has taken all that was sent, the file first: a stream that pauses delivers what it has produced.
//! What was sent before stands in the queue of replies, so the thread announces there that an empty spool has become
//! filled (`Reply::Spooled`), and the loop takes nothing before it has read that.
//!
//! The window's lock guards it. Nothing is written to the disk under that lock.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::response_memory::UnsentBytes;
use super::shared_files::{PieceFile, StoredBytes, write_at};
use super::temporary_file::TemporaryFile;

/// A thread keeps at most this many bytes in memory, and writes as many to the disk in one step, for which it gives up the GIL.
pub const TAIL_BYTES_MAX: usize = 256 * 1024;
/// The event loop takes about this many bytes at a time: as many as may be on their way to a client that is fast.
const TAKE_BYTES: u64 = 512 * 1024;
/// One response puts at most this much on the disk, which may be memory.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StreamSpool {
    /// On the disk, in order.
    blocks: VecDeque<Block>,
    /// Behind them, in memory.
    tail: Vec<u8>,
    /// The loop knows that there is something, or will when it has read the queue of replies.
    is_announced: bool,
    file: SpoolFile,
}

/// Where the next block goes.
#[derive(Debug, Default)]
pub(super) struct SpoolFile {
    /// The response's own, unless there was no descriptor for one.
    own: Option<Arc<TemporaryFile>>,
    /// Bytes written, since there was nothing on the disk.
    len: u64,
}

/// A part of the response that leaves the spool.
#[derive(Debug)]
pub enum SpooledPart {
    Bytes(Vec<u8>),
    File {
        file: PieceFile,
        offset: u64,
        len: u64,
    },
}

impl SpooledPart {
    /// How many bytes of memory it has.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File { .. } => 0,
        }
    }
}

/// A part of the response on the disk.
#[derive(Debug)]
pub(super) enum Block {
    Own {
        file: Arc<TemporaryFile>,
        offset: u64,
        len: u64,
    },
    Shared(StoredBytes, u64),
}

impl SpoolFile {
    /// Whether `bytes` more may be written.
    fn has_room(&self, bytes: u64) -> bool {
        self.len.saturating_add(bytes) <= FILE_BYTES_MAX
    }

    /// Write `parts`, which have `len` bytes in all.
    fn write(&mut self, parts: [&[u8]; 2], len: u64, unsent: &UnsentBytes) -> io::Result<Block> {
        if self.own.is_none() && self.len == 0 {
            self.own = unsent.temporary_file().ok().map(Arc::new);
        }
        let offset = self.len;
        let block = match &self.own {
            Some(file) => {
                write_at(file.file(), parts.into_iter(), offset)?;
                let file = file.clone();
                Block::Own { file, offset, len }
            }
            None => Block::Shared(unsent.store_shared(parts.into_iter(), len)?, len),
        };
        self.len += len;
        Ok(block)
    }
}

impl Block {
    /// Join a block that lies behind this one. Returns it if that cannot be.
    fn join(&mut self, next: Self) -> Option<Self> {
        if let Self::Own { file, offset, len } = self
            && let Self::Own {
                file: of,
                offset: at,
                len: more,
            } = &next
            && Arc::ptr_eq(file, of)
            && *offset + *len == *at
        {
            *len += more;
            return None;
        }
        Some(next)
    }

    /// The first part of it that is sent at once, and whether that is all.
    fn take(&mut self) -> (Option<SpooledPart>, bool) {
        match self {
            Self::Shared(..) => (None, true),
            Self::Own { file, offset, len } => {
                let step = TAKE_BYTES.min(*len);
                let part = file_part(PieceFile::Part(file.clone()), *offset, step);
                *offset += step;
                *len -= step;
                (Some(part), *len == 0)
            }
        }
    }

    fn into_part(self) -> SpooledPart {
        match self {
            Self::Own { file, offset, len } => file_part(PieceFile::Part(file), offset, len),
            Self::Shared(stored, len) => {
                let offset = stored.offset();
                file_part(PieceFile::Shared(stored), offset, len)
            }
        }
    }
}

fn file_part(file: PieceFile, offset: u64, len: u64) -> SpooledPart {
    SpooledPart::File { file, offset, len }
}

impl StreamSpool {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.tail.is_empty()
    }

    /// Whether `len` bytes can be kept in memory.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.tail.len() + len <= TAIL_BYTES_MAX
    }

    /// Keep an item in memory. Returns whether the spool is to be announced.
    pub(super) fn keep(&mut self, item: &[u8]) -> bool {
        self.tail.extend_from_slice(item);
        self.announce()
    }

    fn announce(&mut self) -> bool {
        !self.is_empty() && !std::mem::replace(&mut self.is_announced, true)
    }

    /// What is in memory, to be written to the file with `more` bytes behind it. `None` where the file must not become so long.
    pub(super) fn begin_write(&mut self, more: usize) -> Option<SpoolWrite> {
        let bytes = self.tail.len() as u64 + more as u64;
        if self.blocks.is_empty() {
            // The loop has taken all of the file, or keeps it until that is sent.
            self.file = SpoolFile::default();
        }
        self.file.has_room(bytes).then(|| SpoolWrite {
            tail: std::mem::take(&mut self.tail),
            file: std::mem::take(&mut self.file),
        })
    }

    /// It was written, or was not and is in memory again. Returns whether the spool is to be announced.
    pub(super) fn end_write(&mut self, write: SpoolWrite, block: Option<Block>) -> bool {
        let SpoolWrite { mut tail, file } = write;
        self.file = file;
        if let Some(block) = block {
            let apart = match self.blocks.back_mut() {
                Some(last) => last.join(block),
                None => Some(block),
            };
            self.blocks.extend(apart);
            tail.clear();
        }
        // An application may call `write` on several threads.
        tail.append(&mut self.tail);
        self.tail = tail;
        self.announce()
    }

    /// What the client is sent next, and whether there is more behind it. `None`: there is nothing.
    pub(super) fn take(&mut self) -> Option<(SpooledPart, bool)> {
        let part = match self.blocks.front_mut().map(Block::take) {
            Some((part, is_all)) => {
                let block = if is_all {
                    self.blocks.pop_front()
                } else {
                    None
                };
                part.or_else(|| block.map(Block::into_part))?
            }
            None if self.tail.is_empty() => {
                // It is being written, and is news when that is done.
                self.is_announced = false;
                return None;
            }
            None => SpooledPart::Bytes(std::mem::take(&mut self.tail)),
        };
        self.is_announced = !self.is_empty();
        Some((part, self.is_announced))
    }

    /// All that is left, for a thread that sends it itself.
    pub(super) fn take_all(&mut self) -> Vec<SpooledPart> {
        let mut parts: Vec<_> = self.blocks.drain(..).map(Block::into_part).collect();
        if !self.tail.is_empty() {
            parts.push(SpooledPart::Bytes(std::mem::take(&mut self.tail)));
        }
        self.is_announced = false;
        parts
    }

    /// Whether what is in memory is much.
    pub(super) fn has_long_tail(&self) -> bool {
        self.tail.len() > TAIL_BYTES_MAX / 4
    }
}

/// What the thread writes, while the loop goes on to take from the spool.
#[derive(Debug)]
pub(super) struct SpoolWrite {
    tail: Vec<u8>,
    file: SpoolFile,
}

impl SpoolWrite {
    /// Pool thread, without the GIL or a lock.
    ///
    /// # Errors
    /// No file could be made or written.
    pub(super) fn write(&mut self, more: &[u8], unsent: &UnsentBytes) -> io::Result<Block> {
        let bytes = self.bytes() + more.len() as u64;
        self.file.write([&self.tail, more], bytes, unsent)
    }

    /// How many bytes were in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.tail.len() as u64
    }
}
