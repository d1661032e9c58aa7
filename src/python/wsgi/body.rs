//! The application's result on its way out: whole when it can be, else item by item.
//!
//! PEP 3333, "Buffering and Streaming" and "Handling the Content-Length Header". A list or tuple is sent whole.
//! Anything else is iterated on this thread: an item goes out before the next is requested. When the first item is the
//! whole declared Content-Length, the response is complete with it and is sent whole.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyTuple};

use crate::pool::{COUNTED_BYTES_MIN, Job, Piece, Pool, Reply, ResponseBody};
use crate::python::fork_guard::end_child;
use crate::python::gil::{self, Reason};

use super::file_wrapper::FileWrapper;
use super::start_response::StartResponse;
use super::stream::{BorrowedBytes, Flow, send_item};

/// Up to this length an item is copied. The event loop borrows a longer one.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// How far the response was sent, and what is left of the job.
#[derive(Debug)]
pub(super) enum Sent {
    /// It went with the job.
    Whole,
    /// Its pieces are sent. Its end is still to be sent, with the job.
    Streamed(Box<Job>),
    /// The client has gone; nothing more will be sent.
    Gone(Box<Job>),
    /// The application failed. With the job when its failure can still be reported to the loop.
    Failed(Option<Box<Job>>, PyErr),
}

/// Send `result`. The caller closes it.
pub(super) fn send(
    result: &Bound<'_, PyAny>,
    start: &Bound<'_, StartResponse>,
    environ: &Bound<'_, PyDict>,
    mut job: Box<Job>,
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
            owner: Some(Box::new(range.owner)),
        };
        job.response_body.pieces.push(piece);
        return send_whole(start, job, pool);
    }
    job.is_file = result.is_exact_instance_of::<FileWrapper>();
    let items = result.try_iter();
    end_child(result.py(), items.as_ref().err());
    match items {
        Ok(items) => send_iterator(&items, start, environ, job, pool),
        Err(error) => Sent::Failed(Some(job), error),
    }
}

fn send_whole(start: &Bound<'_, StartResponse>, mut job: Box<Job>, pool: &Pool) -> Sent {
    match start.get().take_head(job.response_body.len()) {
        Ok(Some(head)) => {
            job.response = head;
            hold(start.py(), &mut job.response_body, pool);
            pool.send(Reply::Whole(job));
            Sent::Whole
        }
        Ok(None) => Sent::Streamed(without_body(job)),
        Err(error) => Sent::Failed(Some(without_body(job)), error),
    }
}

/// What the application returned is not sent.
fn without_body(mut job: Box<Job>) -> Box<Job> {
    job.response_body.bytes.clear();
    job.response_body.pieces.clear();
    job
}

/// Reserve memory for the body until its client has read it, or put it into a file when the clients of the worker leave no
/// room.
fn hold(py: Python<'_>, body: &mut ResponseBody, pool: &Pool) {
    let bytes: u64 = body.parts_in_memory().map(|part| part.len() as u64).sum();
    if bytes < COUNTED_BYTES_MIN {
        return;
    }
    body.reservation = pool.unsent().reserve(bytes);
    if body.reservation.is_some() {
        return;
    }
    let unsent = pool.unsent();
    let borrowed = &mut *body;
    let stored = gil::release(py, Reason::UnsentResponse, move || {
        unsent.store(borrowed.parts_in_memory())
    });
    match stored {
        Ok(file) => {
            body.bytes.clear();
            body.pieces.clear();
            body.pieces.push(Piece::File {
                file,
                offset: 0,
                len: bytes,
                owner: None,
            });
        }
        // It stays in memory: an answer is worth more than the bound.
        Err(error) => log::warn!(
            "A response of {bytes} bytes could not be put into a file (worker_tmp_dir): {error}"
        ),
    }
}

/// A list or tuple: its items exist already, so they go together.
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
            Err(error) => return Sent::Failed(Some(without_body(job)), error),
        };
        add_item(&mut job, bytes);
    }
    send_whole(start, job, pool)
}

fn add_item(job: &mut Job, bytes: &Bound<'_, PyBytes>) {
    let body = &mut job.response_body;
    let content = bytes.as_bytes();
    if content.len() > COPY_BYTES_MAX {
        body.pieces
            .push(Piece::Borrowed(Box::new(BorrowedBytes::new(bytes))));
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
        let item = items.clone().next();
        end_child(
            items.py(),
            item.as_ref().and_then(|item| item.as_ref().err()),
        );
        match item {
            None if start.get().is_streaming() => return Sent::Streamed(job),
            None => return send_whole(start, job, pool),
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
    match send_whole(start, job, pool) {
        Sent::Whole => exhaust(items, environ),
        other => other,
    }
}

/// The response is complete: the application finishes what it does after it. PEP 3333, "Handling the Content-Length
/// Header": bytes beyond the length are not sent, and iteration stops at them.
fn exhaust(items: &Bound<'_, PyIterator>, environ: &Bound<'_, PyDict>) -> Sent {
    for item in items.clone() {
        end_child(items.py(), item.as_ref().err());
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
        end_child(start.py(), item.as_ref().err());
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
            // The loop cuts this item and logs it. The next one would not be sent.
            Ok(Flow::Open) if is_enough => return Sent::Streamed(job),
            Ok(Flow::Open) => {}
            Ok(Flow::Gone) => return Sent::Gone(job),
            Err(error) => return Sent::Failed(Some(job), error),
        }
    }
    Sent::Streamed(job)
}

fn as_bytes<'a, 'py>(item: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    item.cast().map_err(|_| {
        let shown = item
            .repr()
            .map_or_else(|_| "an item".to_owned(), |text| text.to_string());
        PyTypeError::new_err(format!("{shown} is not a byte string"))
    })
}
