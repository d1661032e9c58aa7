//! A piece of a response's body on its way into frames, and what it gives back of the thread's window when it has left.

use std::os::unix::fs::FileExt;

use crate::pool::Piece;

/// See the module.
#[derive(Debug)]
pub(super) struct Chunk {
    piece: Piece,
    at: u64,
    end: u64,
    /// A file counts nothing in the window.
    credit: usize,
}

impl Chunk {
    /// The first `end` bytes of `piece`.
    pub(super) fn new(piece: Piece, end: u64) -> Self {
        let credit = piece.window_bytes();
        Self {
            piece,
            at: 0,
            end,
            credit,
        }
    }

    /// How many bytes are to be read.
    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    pub(super) fn credit(&self) -> usize {
        self.credit
    }

    pub(super) fn into_piece(self) -> Piece {
        self.piece
    }

    /// All of it without a copy, where the server owns the bytes and nothing was read or is cut.
    pub(super) fn take_owned(&mut self) -> Option<Vec<u8>> {
        let is_whole = self.at == 0 && self.end == self.piece.len();
        match &mut self.piece {
            Piece::Bytes(bytes) if is_whole => Some(std::mem::take(bytes)),
            _ => None,
        }
    }

    /// Copy at most `max` bytes of what is left. `None`: the file has become shorter.
    pub(super) fn read(&mut self, max: usize, into: &mut Vec<u8>) -> Option<()> {
        let left = usize::try_from(self.left()).unwrap_or(usize::MAX);
        let mut step = left.min(max);
        let at = usize::try_from(self.at).ok()?;
        match &self.piece {
            Piece::Bytes(bytes) => into.extend_from_slice(&bytes[at..at + step]),
            Piece::Borrowed(buffer) => into.extend_from_slice(&buffer.bytes()[at..at + step]),
            Piece::File { file, offset, .. } => {
                let start = into.len();
                into.resize(start + step, 0);
                let read = file.file().read_at(&mut into[start..], offset + self.at);
                step = read.ok().filter(|read| *read > 0)?;
                into.truncate(start + step);
            }
        }
        self.at += step as u64;
        Some(())
    }
}
