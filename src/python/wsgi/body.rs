//! The application's result on its way out: whole when it can be, else item by item.
//!
//! PEP 3333, "Buffering and Streaming" and "Handling the Content-Length Header". A list or tuple is handed over whole.
//! Anything else is iterated on this thread: an item goes out before the next is asked for. When the first item is
//! the whole declared Content-Length, the response is complete with it and is handed over as such.

use std::ptr::NonNull;
use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyTuple};

use crate::pool::{BorrowedBuffer, ConnId, Job, Piece, Pool, Reply, Window};
use crate::python::gil::{Reason, release};

use super::file_wrapper::FileWrapper;
use super::start_response::StartResponse;

/// So much of a streamed response may be unsent before its thread waits (the high watermark).
pub(super) const WINDOW_BYTES: usize = 512 * 1024;
/// Up to this length an item is copied; a longer one is lent to the event loop as it is.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// The same for an item of a stream, which is not copied a second time.
const STREAM_COPY_BYTES_MAX: usize = 4 * 1024;

/// Whether the client still listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Open,
    Gone,
}

/// How the response was handed over, and what is left of the job.
#[derive(Debug)]
pub(super) enum Sent {
    /// It went with the job.
    Whole,
    /// Its pieces are out; its end is still to be told, with the job.
    Streamed(Box<Job>),
    /// The client has gone; nothing more will be sent.
    Gone(Box<Job>),
    /// The application failed. With the job when its failure can still be told.
    Failed(Option<Box<Job>>, PyErr),
}

/// Send `result`, which stays to be closed by the caller.
pub(super) fn send(
    result: &Bound<'_, PyAny>,
    start: &Bound<'_, StartResponse>,
    environ: &Bound<'_, PyDict>,
    job: Box<Job>,
    pool: &Arc<Pool>,
    sendfile: bool,
) -> Sent {
    if let Ok(list) = result.cast_exact::<PyList>() {
        return send_items(list.iter(), start, job, pool);
    }
    if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        return send_items(tuple.iter(), start, job, pool);
    }
    if sendfile
        && let Ok(wrapper) = result.cast_exact::<FileWrapper>()
        && !start.get().is_streaming()
        && let Some(range) = wrapper.get().range(result.py())
    {
        let len = start
            .get()
            .declared_length()
            .map_or(range.len, |declared| declared.min(range.len));
        let piece = Piece::File {
            file: range.file,
            offset: range.offset,
            len,
        };
        return send_whole(start, job, pool, |job| job.response_body.pieces.push(piece));
    }
    match result.try_iter() {
        Ok(items) => send_iterator(&items, start, environ, job, pool),
        Err(error) => Sent::Failed(Some(job), error),
    }
}

fn send_whole(
    start: &Bound<'_, StartResponse>,
    mut job: Box<Job>,
    pool: &Pool,
    fill: impl FnOnce(&mut Job),
) -> Sent {
    match start.get().take_head() {
        Ok(Some(head)) => {
            job.response = head;
            fill(&mut job);
            start.get().note_sent(job.response_body.len());
            pool.send(Reply::Whole(job));
            Sent::Whole
        }
        Ok(None) => Sent::Streamed(job),
        Err(error) => Sent::Failed(Some(job), error),
    }
}

/// A list or tuple: its items are there already, so they go together.
fn send_items<'py>(
    items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    start: &Bound<'py, StartResponse>,
    mut job: Box<Job>,
    pool: &Arc<Pool>,
) -> Sent {
    if start.get().is_streaming() {
        return stream(items.map(Ok), start, job, pool);
    }
    for item in items {
        let bytes = match as_bytes(&item) {
            Ok(bytes) => bytes,
            Err(error) => {
                job.response_body.bytes.clear();
                job.response_body.pieces.clear();
                return Sent::Failed(Some(job), error);
            }
        };
        add_item(&mut job, bytes);
    }
    send_whole(start, job, pool, |_| {})
}

fn add_item(job: &mut Job, bytes: &Bound<'_, PyBytes>) {
    let body = &mut job.response_body;
    let content = bytes.as_bytes();
    if content.len() > COPY_BYTES_MAX {
        body.pieces
            .push(Piece::Borrowed(Box::new(Lent::new(bytes))));
    } else if body.pieces.is_empty() {
        body.bytes.extend_from_slice(content);
    } else if !content.is_empty() {
        body.pieces.push(Piece::Bytes(content.to_vec()));
    }
}

fn send_iterator(
    items: &Bound<'_, PyIterator>,
    start: &Bound<'_, StartResponse>,
    environ: &Bound<'_, PyDict>,
    mut job: Box<Job>,
    pool: &Arc<Pool>,
) -> Sent {
    let first = loop {
        match items.clone().next() {
            None if start.get().is_streaming() => return Sent::Streamed(job),
            None => return send_whole(start, job, pool, |_| {}),
            Some(Err(error)) => return Sent::Failed(Some(job), error),
            Some(Ok(item)) => match as_bytes(&item) {
                Err(error) => return Sent::Failed(Some(job), error),
                // An empty item asks for nothing to be sent; the head waits for the first byte (PEP 3333).
                Ok(bytes) if bytes.as_bytes().is_empty() => {}
                Ok(bytes) => break bytes.clone(),
            },
        }
    };
    let complete = start.get().declared_length() == Some(first.as_bytes().len() as u64);
    if !complete {
        return stream(
            std::iter::once(Ok(first.into_any())).chain(items.clone()),
            start,
            job,
            pool,
        );
    }
    add_item(&mut job, &first);
    match send_whole(start, job, pool, |_| {}) {
        Sent::Whole => exhaust(items, environ),
        other => other,
    }
}

/// The response is complete; let the application finish what it does after it. PEP 3333, "Handling the Content-Length
/// Header": what is more than that is not sent, and not asked for any further.
fn exhaust(items: &Bound<'_, PyIterator>, environ: &Bound<'_, PyDict>) -> Sent {
    for item in items.clone() {
        match item.as_ref().map(as_bytes) {
            Ok(Ok(bytes)) if !bytes.as_bytes().is_empty() => {
                log::error!(
                    "Response to {} is longer than its Content-Length; the rest was not sent.",
                    request_line(environ)
                );
                return Sent::Whole;
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Sent::Failed(None, error),
            Err(error) => return Sent::Failed(None, error.clone_ref(items.py())),
        }
    }
    Sent::Whole
}

/// The request as log lines name it, when its job is gone already.
fn request_line(environ: &Bound<'_, PyDict>) -> String {
    let text = |key| {
        let value = environ.get_item(key).ok().flatten();
        value.map_or_else(String::new, |value| value.to_string())
    };
    let line = ["REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"]
        .map(text)
        .join(" ");
    line.escape_debug().to_string()
}

fn stream<'py>(
    items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    start: &Bound<'py, StartResponse>,
    job: Box<Job>,
    pool: &Arc<Pool>,
) -> Sent {
    let mut left = start.get().declared_length();
    let window = match start.get().stream() {
        Ok(window) => window,
        Err(error) => return Sent::Failed(Some(job), error),
    };
    for item in items {
        let mut is_enough = false;
        let sent = item.and_then(|item| {
            let bytes = as_bytes(&item)?;
            start.get().note_sent(bytes.as_bytes().len() as u64);
            if let Some(left) = &mut left {
                let len = bytes.as_bytes().len() as u64;
                is_enough = len > *left;
                *left = left.saturating_sub(len);
            }
            Ok(send_item(start.py(), bytes, job.conn, pool, &window))
        });
        match sent {
            // The loop cuts the item and says so; there is no use in the next.
            Ok(Flow::Open) if is_enough => return Sent::Streamed(job),
            Ok(Flow::Open) => {}
            Ok(Flow::Gone) => return Sent::Gone(job),
            Err(error) => return Sent::Failed(Some(job), error),
        }
    }
    Sent::Streamed(job)
}

/// Send one item, then wait if the client has too much unread.
pub(super) fn send_item(
    py: Python<'_>,
    bytes: &Bound<'_, PyBytes>,
    conn: ConnId,
    pool: &Pool,
    window: &Window,
) -> Flow {
    let content = bytes.as_bytes();
    if content.is_empty() {
        return Flow::Open;
    }
    let Ok(must_wait) = window.add(content.len()) else {
        return Flow::Gone;
    };
    let piece = if content.len() > STREAM_COPY_BYTES_MAX {
        Piece::Borrowed(Box::new(Lent::new(bytes)))
    } else {
        Piece::Bytes(content.to_vec())
    };
    pool.send_piece(conn, piece, must_wait);
    if must_wait && release(py, Reason::Window, || window.wait()).is_err() {
        return Flow::Gone;
    }
    Flow::Open
}

fn as_bytes<'a, 'py>(item: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    item.cast().map_err(|_| {
        let shown = item
            .repr()
            .map_or_else(|_| "an item".to_owned(), |text| text.to_string());
        PyTypeError::new_err(format!("{shown} is not a byte string"))
    })
}

/// A `bytes` object on loan to the event loop.
#[derive(Debug)]
struct Lent {
    /// Keeps the bytes alive. Dropped on a pool thread.
    _object: Py<PyBytes>,
    start: NonNull<u8>,
    len: usize,
}

impl Lent {
    fn new(bytes: &Bound<'_, PyBytes>) -> Self {
        let content = bytes.as_bytes();
        Self {
            start: NonNull::from(content).cast(),
            len: content.len(),
            _object: bytes.clone().unbind(),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the bytes of an immutable object are read without the GIL"
)]
// SAFETY: `bytes` objects are immutable and `_object` keeps this one alive, so its bytes may be read on any thread.
unsafe impl Send for Lent {}

impl BorrowedBuffer for Lent {
    #[expect(
        unsafe_code,
        reason = "the bytes of an immutable object are read without the GIL"
    )]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of the bytes object that `_object` keeps alive; its content does not move
        // or change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}
