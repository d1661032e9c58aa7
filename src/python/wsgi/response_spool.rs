//! The content of a file-like object on its way to a client that is slower than the object: what the client's window does not
//! take waits in a temporary file, so that the thread reads on and is soon free for the next request.
//!
//! The thread waits for the client for a tenth of a second in all. After that it appends to a file, which it hands to the
//! event loop when the window has room; what comes then begins another. At the end the rest follows, and the object is
//! closed when that has left or the client is gone. Without room on the disk, and beyond 256 MiB, the thread waits as that
//! of any stream.
//!
//! Runs on pool threads, attached.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::pool::{FILE_BYTES_MAX, Piece, TAIL_BYTES_MAX, TemporaryFile};
use crate::python::gil::{Reason, release};

use super::file_wrapper::{FileWrapper, OpenFile};
use super::stream::{Flow, StreamClient, StreamEnd, piece_of};

/// How long a thread waits for the client of one response before it takes to a file: a client that is near needs less.
const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct ResponseSpool {
    patience: Duration,
    /// The client has too much unread.
    is_behind: bool,
    /// Read and neither sent nor stored.
    bytes: Vec<u8>,
    /// What was stored and not sent, and its length.
    file: Option<(TemporaryFile, u64)>,
    /// All that was stored.
    stored: u64,
}

impl Default for ResponseSpool {
    fn default() -> Self {
        Self {
            patience: PATIENCE,
            is_behind: false,
            bytes: Vec::new(),
            file: None,
            stored: 0,
        }
    }
}

impl ResponseSpool {
    /// Send one item, or keep it.
    pub(super) fn send_item(
        &mut self,
        bytes: &Bound<'_, PyBytes>,
        client: &StreamClient<'_>,
    ) -> PyResult<Flow> {
        Flow::of(self.take_item(bytes, client))
    }

    fn take_item(
        &mut self,
        bytes: &Bound<'_, PyBytes>,
        client: &StreamClient<'_>,
    ) -> Result<(), StreamEnd> {
        let py = bytes.py();
        if bytes.as_bytes().is_empty() {
            return Ok(());
        }
        if !self.is_behind {
            self.is_behind = client.send_piece(piece_of(bytes))?;
            return self.wait_a_little(py, client);
        }
        self.bytes.extend_from_slice(bytes.as_bytes());
        if client.window.has_room()? {
            return self.send_held(client);
        }
        if self.bytes.len() >= TAIL_BYTES_MAX && !self.store(py, client) {
            self.send_held(client)?;
            client.wait(py)?;
            self.is_behind = false;
        }
        Ok(())
    }

    /// The object is at its end: send what is held, and have the object closed after it.
    pub(super) fn finish(
        mut self,
        py: Python<'_>,
        object: &FileWrapper,
        client: &StreamClient<'_>,
    ) -> PyResult<Flow> {
        if !self.bytes.is_empty() && !self.store(py, client) {
            return Flow::of(self.send_held(client));
        }
        let Some(stored) = self.take_file() else {
            return Ok(Flow::Open);
        };
        let piece = with_owner(stored, object.closed_when_sent(py));
        client
            .send_piece(piece)
            .map_or(Ok(Flow::Gone), |_| Ok(Flow::Open))
    }

    fn wait_a_little(
        &mut self,
        py: Python<'_>,
        client: &StreamClient<'_>,
    ) -> Result<(), StreamEnd> {
        if self.is_behind && !self.patience.is_zero() {
            let (since, patience) = (Instant::now(), self.patience);
            let has_room = client.wait_for(py, patience)?;
            self.patience = patience.saturating_sub(since.elapsed());
            self.is_behind = !has_room;
        }
        Ok(())
    }

    /// Send what is held, in order.
    fn send_held(&mut self, client: &StreamClient<'_>) -> Result<(), StreamEnd> {
        if let Some(stored) = self.take_file() {
            self.is_behind = client.send_piece(stored)?;
        }
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            self.is_behind = client.send_piece(Piece::Bytes(bytes))?;
        }
        Ok(())
    }

    fn take_file(&mut self) -> Option<Piece> {
        let (file, len) = self.file.take()?;
        Some(Piece::File {
            file: file.into(),
            offset: 0,
            len,
            owner: None,
        })
    }

    /// Append what is in memory to the file. Returns false when there is no room for it.
    fn store(&mut self, py: Python<'_>, client: &StreamClient<'_>) -> bool {
        if self.stored + self.bytes.len() as u64 > FILE_BYTES_MAX {
            return false;
        }
        let unsent = client.pool.unsent();
        let stored = release(py, Reason::UnsentResponse, || {
            let (file, len) = match &mut self.file {
                Some((file, len)) => (file, len),
                none => {
                    let (file, len) = none.insert((unsent.temporary_file()?, 0));
                    (file, len)
                }
            };
            file.file().write_all_at(&self.bytes, *len)?;
            *len += self.bytes.len() as u64;
            Ok::<_, io::Error>(())
        });
        match stored {
            Ok(()) => {
                self.stored += self.bytes.len() as u64;
                self.bytes.clear();
                true
            }
            Err(error) => {
                unsent.log_failure(self.bytes.len() as u64, &error);
                self.file.take_if(|(_, len)| *len == 0);
                false
            }
        }
    }
}

fn with_owner(mut piece: Piece, object: OpenFile) -> Piece {
    if let Piece::File { owner, .. } = &mut piece {
        *owner = Some(Box::new(object));
    }
    piece
}
