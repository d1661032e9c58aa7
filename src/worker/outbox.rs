//! What a connection still has to write: bytes, objects of the application's, file ranges.
//!
//! The event loop pushes what the exchange has framed and calls [`Outbox::flush`] until the socket would block.
//! Several segments go out in one `writev`. Objects of the application's are never dropped here: the caller gets
//! them back and returns them to the pool.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;

use crate::pool::{BorrowedBuffer, Piece};

/// Small segments are joined up to this: many little pieces are one write.
const JOINED_BYTES_MAX: usize = 16 * 1024;
/// So many segments go into one `writev`.
const SLICES_MAX: usize = 32;
/// One `sendfile` sends at most this.
const FILE_STEP_BYTES: u64 = 256 * 1024;
/// A file whose system cannot send it is copied in steps of this.
const COPY_STEP_BYTES: u64 = 64 * 1024;
/// One connection writes at most about this in one turn of the loop: a reader as fast as we are must not hold it.
const TURN_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
enum Segment {
    Bytes {
        bytes: Vec<u8>,
        at: usize,
    },
    Shared {
        shared: Box<dyn BorrowedBuffer>,
        at: usize,
        end: usize,
    },
    File {
        file: File,
        offset: u64,
        len: u64,
    },
}

impl Segment {
    /// The unsent bytes, unless they are in a file.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes { bytes, at } => Some(&bytes[*at..]),
            Self::Shared { shared, at, end } => Some(&shared.bytes()[*at..*end]),
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

/// What a flush has done.
#[derive(Debug, Default)]
pub(super) struct Flushed {
    /// Bytes the socket has accepted.
    pub(super) written: u64,
    /// Window to give back.
    pub(super) credit: usize,
    /// Everything is written.
    pub(super) empty: bool,
    /// The turn's share is used up, and the socket may take more.
    pub(super) has_more_room: bool,
    /// A file ended before its range did: the response cannot be completed.
    pub(super) file_short: bool,
}

/// The queue of segments.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
}

impl Outbox {
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

    /// Queue the first `take` bytes of a piece. A piece of which nothing is taken goes to `finished`.
    pub(super) fn push_piece(
        &mut self,
        piece: Piece,
        take: u64,
        credit: usize,
        finished: &mut Vec<Box<dyn BorrowedBuffer>>,
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
            Piece::Bytes(mut bytes) => {
                bytes.truncate(end);
                Segment::Bytes { bytes, at: 0 }
            }
            Piece::Borrowed(shared) if take == 0 => {
                finished.push(shared);
                Segment::Bytes {
                    bytes: Vec::new(),
                    at: 0,
                }
            }
            Piece::Borrowed(shared) => Segment::Shared { shared, at: 0, end },
            Piece::File { file, offset, .. } => Segment::File {
                file,
                offset,
                len: take,
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
    pub(super) fn flush<S: Write + AsFd>(
        &mut self,
        socket: &mut S,
        finished: &mut Vec<Box<dyn BorrowedBuffer>>,
    ) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        loop {
            self.drop_written(&mut flushed, finished);
            let Some(first) = self.entries.front_mut() else {
                flushed.empty = true;
                return Ok(flushed);
            };
            let result = match &mut first.segment {
                Segment::File { file, offset, len } => send_file(socket, file, *offset, *len),
                _ => self.write_slices(socket),
            };
            match result {
                Ok(0) => {
                    flushed.file_short = matches!(self.entries[0].segment, Segment::File { .. });
                    return if flushed.file_short {
                        Ok(flushed)
                    } else {
                        Err(io::ErrorKind::WriteZero.into())
                    };
                }
                Ok(written) => {
                    flushed.written += written as u64;
                    self.advance(written);
                    if flushed.written >= TURN_BYTES {
                        self.drop_written(&mut flushed, finished);
                        flushed.empty = self.entries.is_empty();
                        flushed.has_more_room = !flushed.empty;
                        return Ok(flushed);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(flushed),
                Err(error) => return Err(error),
            }
        }
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
    pub(super) fn abandon(&mut self, finished: &mut Vec<Box<dyn BorrowedBuffer>>) {
        for entry in self.entries.drain(..) {
            if let Segment::Shared { shared, .. } = entry.segment {
                finished.push(shared);
            }
        }
    }

    fn write_slices<S: Write>(&self, socket: &mut S) -> io::Result<usize> {
        if self.entries.len() == 1 {
            let bytes = self.entries[0].segment.bytes().unwrap_or_default();
            return socket.write(&bytes[..bytes.len().min(TURN_BYTES as usize)]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut room) = (0, TURN_BYTES as usize);
        for (slice, entry) in slices.iter_mut().zip(&self.entries) {
            let Some(bytes) = entry.segment.bytes().filter(|_| room > 0) else {
                break;
            };
            let len = bytes.len().min(room);
            *slice = IoSlice::new(&bytes[..len]);
            room -= len;
            count += 1;
        }
        socket.write_vectored(&slices[..count])
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
                Segment::Shared { at, end, .. } => {
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

    fn drop_written(&mut self, flushed: &mut Flushed, finished: &mut Vec<Box<dyn BorrowedBuffer>>) {
        while let Some(entry) = self.entries.front() {
            let written = match &entry.segment {
                Segment::Bytes { bytes, at } => *at == bytes.len(),
                Segment::Shared { at, end, .. } => at == end,
                Segment::File { len, .. } => *len == 0,
            };
            if !written {
                return;
            }
            let entry = self
                .entries
                .pop_front()
                .expect("the front was just looked at");
            flushed.credit += entry.credit;
            if let Segment::Shared { shared, .. } = entry.segment {
                finished.push(shared);
            }
        }
        // An idle connection keeps no queue: ten thousand of them would pay for it.
        self.entries = VecDeque::new();
    }
}

/// Send a part of the file's `len` bytes from `offset` on. 0 when the file is over.
fn send_file<S: Write + AsFd>(
    socket: &mut S,
    file: &File,
    offset: u64,
    len: u64,
) -> io::Result<usize> {
    let step = usize::try_from(len.min(FILE_STEP_BYTES)).unwrap_or(usize::MAX);
    let mut at = i64::try_from(offset).map_err(io::Error::other)?;
    match nix::sys::sendfile::sendfile(&*socket, file, Some(&mut at), step) {
        // Not every file system can.
        Err(Errno::EINVAL | Errno::ENOSYS) => copy_file(socket, file, offset, len),
        sent => Ok(sent?),
    }
}

fn copy_file<S: Write>(socket: &mut S, file: &File, offset: u64, len: u64) -> io::Result<usize> {
    let step = usize::try_from(len.min(COPY_STEP_BYTES)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; step];
    let read = file.read_at(&mut bytes, offset)?;
    if read == 0 {
        return Ok(0);
    }
    socket.write(&bytes[..read])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Seek};
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[derive(Debug)]
    struct Owned(Vec<u8>);

    impl BorrowedBuffer for Owned {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    /// A socket that accepts at most `step` bytes at a time and blocks after each.
    struct Slow {
        to: UnixStream,
        step: usize,
        open: bool,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open = !self.open;
            if !self.open || bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.to.write(&bytes[..bytes.len().min(self.step)])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsFd for Slow {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.to.as_fd()
        }
    }

    #[test]
    fn segments_of_every_kind_arrive_in_order_through_a_socket_that_blocks() {
        let (to, mut from) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        let (mut outbox, mut finished) = (Outbox::default(), Vec::new());
        outbox.push_bytes(b"head;", 0);
        outbox.push_piece(
            Piece::Borrowed(Box::new(Owned(b"shared!".to_vec()))),
            6,
            6,
            &mut finished,
        );
        outbox.push_piece(
            Piece::File {
                file,
                offset: 2,
                len: 8,
            },
            5,
            5,
            &mut finished,
        );
        outbox.push_bytes(b";end", 4);
        let mut socket = Slow {
            to,
            step: 3,
            open: false,
        };
        let (mut credit, mut written, mut turns) = (0, 0, 0);
        while !outbox.is_empty() {
            let flushed = outbox.flush(&mut socket, &mut finished).unwrap();
            credit += flushed.credit;
            written += flushed.written;
            turns += 1;
            assert!(turns < 100, "the outbox makes progress");
        }
        drop(socket);
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        assert_eq!(text, "head;shared23456;end");
        assert_eq!((credit, written, finished.len()), (15, 20, 1));
    }

    #[test]
    fn a_file_shorter_than_its_range_is_told() {
        let (to, _from) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let (mut outbox, mut finished) = (Outbox::default(), Vec::new());
        outbox.push_piece(
            Piece::File {
                file,
                offset: 0,
                len: 10,
            },
            10,
            0,
            &mut finished,
        );
        let flushed = outbox.flush(&mut &to, &mut finished).unwrap();
        assert!(flushed.file_short && flushed.written == 3);
    }

    #[test]
    fn abandoning_gives_the_applications_objects_back() {
        let (mut outbox, mut finished) = (Outbox::default(), Vec::new());
        outbox.push_piece(
            Piece::Borrowed(Box::new(Owned(vec![1; 9]))),
            9,
            0,
            &mut finished,
        );
        outbox.abandon(&mut finished);
        assert_eq!(finished.len(), 1);
        assert!(outbox.is_empty());
    }
}
