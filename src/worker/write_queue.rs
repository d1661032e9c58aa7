//! What a connection still has to write: bytes, buffers borrowed from the application, file ranges.
//!
//! The protocol pushes what it has framed, and [`WriteQueue::flush`] writes until the socket would block. Several segments
//! go out in one `writev`. Borrowed buffers are never dropped here: they go to [`DeferredDrops`].

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use crate::pool::{BorrowedBuffer, Piece, PieceFile};

use super::deferred_drop::DeferredDrops;
use super::transport::Transport;

/// Small segments are joined up to this many bytes: many little pieces are one write.
const JOINED_BYTES_MAX: usize = 16 * 1024;
/// How many segments go into one `writev`.
const SLICES_MAX: usize = 32;
/// One `sendfile` sends at most this many bytes.
const FILE_STEP_BYTES: u64 = 256 * 1024;
/// One connection writes at most about this many bytes in one iteration: a client that reads as fast as the worker writes
/// must not hold the loop.
const SHARE_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
enum Segment {
    Bytes {
        bytes: Vec<u8>,
        at: usize,
    },
    Borrowed {
        buffer: Box<dyn BorrowedBuffer>,
        at: usize,
        end: usize,
    },
    File {
        file: PieceFile,
        offset: u64,
        len: u64,
        owner: Option<Box<dyn BorrowedBuffer>>,
    },
}

impl Segment {
    /// What the application is to have back.
    fn into_borrowed(self) -> Option<Box<dyn BorrowedBuffer>> {
        match self {
            Self::Bytes { .. } => None,
            Self::Borrowed { buffer, .. } => Some(buffer),
            Self::File { owner, .. } => owner,
        }
    }

    /// The unsent bytes, unless they are in a file.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes { bytes, at } => Some(&bytes[*at..]),
            Self::Borrowed { buffer, at, end } => Some(&buffer.bytes()[*at..*end]),
            Self::File { .. } => None,
        }
    }
}

/// A segment, and how many bytes of window it gives back when it is written.
#[derive(Debug)]
struct Entry {
    segment: Segment,
    credit: usize,
}

/// Why a flush has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// Everything is written.
    Done,
    /// The socket takes no more now.
    Blocked,
    /// The iteration's share is used up, and the socket may take more.
    ShareUsed,
    /// A file ended before its range did: the response cannot be completed.
    FileShort,
}

/// What a flush has done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flushed {
    /// Bytes the socket has accepted.
    pub(super) written: u64,
    /// Window to give back.
    pub(super) credit: usize,
    pub(super) end: Flush,
}

/// The queue of segments.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    entries: VecDeque<Entry>,
}

impl WriteQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Queue bytes that give back `credit` bytes of window when written.
    pub(super) fn push_bytes(&mut self, bytes: &[u8], credit: usize) {
        if bytes.is_empty() && credit == 0 {
            return;
        }
        if let Some(last) = self.entries.back_mut()
            && let Segment::Bytes { bytes: held, .. } = &mut last.segment
            && held.len() + bytes.len() <= JOINED_BYTES_MAX
        {
            held.extend_from_slice(bytes);
            last.credit += credit;
            return;
        }
        let bytes = bytes.to_vec();
        self.entries.push_back(Entry {
            segment: Segment::Bytes { bytes, at: 0 },
            credit,
        });
    }

    /// Queue the first `take` bytes of a piece. A borrowed buffer of which nothing is taken is done with.
    pub(super) fn push_piece(
        &mut self,
        piece: Piece,
        take: u64,
        credit: usize,
        drops: &mut DeferredDrops,
    ) {
        debug_assert!(
            take <= piece.len(),
            "cannot take more of a piece than it has"
        );
        let end = usize::try_from(take).unwrap_or(usize::MAX);
        let segment = match piece {
            Piece::Bytes(bytes) if end <= JOINED_BYTES_MAX / 4 => {
                return self.push_bytes(&bytes[..end], credit);
            }
            piece if take == 0 => {
                drops.push(piece.into_borrowed());
                Segment::Bytes {
                    bytes: Vec::new(),
                    at: 0,
                }
            }
            Piece::Bytes(mut bytes) => {
                bytes.truncate(end);
                Segment::Bytes { bytes, at: 0 }
            }
            Piece::Borrowed(buffer) => Segment::Borrowed { buffer, at: 0, end },
            Piece::File {
                file,
                offset,
                owner,
                ..
            } => Segment::File {
                file,
                offset,
                len: take,
                owner,
            },
        };
        if take > 0 || credit > 0 {
            self.entries.push_back(Entry { segment, credit });
        }
    }

    /// Write until the socket would block or everything is out.
    ///
    /// # Errors
    /// The socket's error, other than "would block".
    pub(super) fn flush(
        &mut self,
        transport: &mut Transport,
        drops: &mut DeferredDrops,
    ) -> io::Result<Flushed> {
        let (mut written, mut credit) = (0, 0);
        let end = loop {
            credit += self.drop_written(drops);
            let Some(first) = self.entries.front_mut() else {
                break Flush::Done;
            };
            if written >= SHARE_BYTES {
                break Flush::ShareUsed;
            }
            let result = match &mut first.segment {
                Segment::File {
                    file, offset, len, ..
                } => {
                    let step = usize::try_from((*len).min(FILE_STEP_BYTES)).unwrap_or(usize::MAX);
                    match file {
                        PieceFile::Application(_) | PieceFile::Own(_) | PieceFile::Part(_) => {
                            transport.send_file(file.file(), *offset, step)
                        }
                        PieceFile::Shared(_) => transport.copy_file(file.file(), *offset, step),
                    }
                }
                _ => self.write_slices(transport),
            };
            match result {
                Ok(0) if matches!(self.entries[0].segment, Segment::File { .. }) => {
                    break Flush::FileShort;
                }
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(step) => {
                    written += step as u64;
                    self.advance(step);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Flush::Blocked,
                Err(error) => return Err(error),
            }
        };
        Ok(Flushed {
            written,
            credit,
            end,
        })
    }

    /// Bytes that are queued and not written.
    pub(super) fn unsent_bytes(&self) -> u64 {
        let unsent = |entry: &Entry| match &entry.segment {
            Segment::File { len, .. } => *len,
            segment => segment.bytes().map_or(0, <[u8]>::len) as u64,
        };
        self.entries.iter().map(unsent).sum()
    }

    /// Give up what is queued, so that objects of the application's find their way back.
    pub(super) fn abandon(&mut self, drops: &mut DeferredDrops) {
        for entry in self.entries.drain(..) {
            drops.push(entry.segment.into_borrowed());
        }
    }

    fn write_slices(&self, transport: &mut Transport) -> io::Result<usize> {
        if self.entries.len() == 1 {
            let bytes = self.entries[0].segment.bytes().unwrap_or_default();
            return transport.write(&bytes[..bytes.len().min(SHARE_BYTES as usize)]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut room) = (0, SHARE_BYTES as usize);
        for (slice, entry) in slices.iter_mut().zip(&self.entries) {
            let Some(bytes) = entry.segment.bytes().filter(|_| room > 0) else {
                break;
            };
            let len = bytes.len().min(room);
            *slice = IoSlice::new(&bytes[..len]);
            room -= len;
            count += 1;
        }
        transport.write_vectored(&slices[..count])
    }

    /// Account for `written` bytes at the front of the queue.
    fn advance(&mut self, mut written: usize) {
        for entry in &mut self.entries {
            if written == 0 {
                return;
            }
            match &mut entry.segment {
                Segment::Bytes { bytes, at } => {
                    let step = written.min(bytes.len() - *at);
                    *at += step;
                    written -= step;
                }
                Segment::Borrowed { at, end, .. } => {
                    let step = written.min(*end - *at);
                    *at += step;
                    written -= step;
                }
                Segment::File { offset, len, .. } => {
                    *offset += written as u64;
                    *len -= written as u64;
                    return;
                }
            }
        }
    }

    /// Remove what is written. Returns the window that it gives back.
    fn drop_written(&mut self, drops: &mut DeferredDrops) -> usize {
        let mut credit = 0;
        while let Some(entry) = self.entries.front() {
            let is_written = match &entry.segment {
                Segment::Bytes { bytes, at } => *at == bytes.len(),
                Segment::Borrowed { at, end, .. } => at == end,
                Segment::File { len, .. } => *len == 0,
            };
            if !is_written {
                return credit;
            }
            let entry = self
                .entries
                .pop_front()
                .expect("the front was read just now");
            credit += entry.credit;
            drops.push(entry.segment.into_borrowed());
        }
        // An idle connection keeps no queue: ten thousand of them would pay for it.
        self.entries = VecDeque::new();
        credit
    }
}

#[cfg(test)]
mod tests;
