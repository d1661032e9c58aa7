//! The application's result on its way out: whole when it can be, else item by item.
//!
//! PEP 3333, "Buffering and Streaming" and "Handling the Content-Length Header". A list or tuple is sent whole.
//! Anything else is iterated on this thread: an item goes out before the next is requested. When the first item is the
//! whole declared Content-Length, the response is complete with it and is sent whole.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PyTuple};

use crate::pool::{
    COUNTED_BYTES_MIN, Job, Overdraft, Piece, Pool, Reply, ResponseBody, UnsentBytes,
};
use crate::python::fork_guard::end_child;
use crate::python::gil::{self, Reason};
use crate::python::green;

use super::file_wrapper::FileWrapper;
use super::response_spool::ResponseSpool;
use super::start_response::StartResponse;
use super::stream::{BorrowedBytes, Flow, StreamClient};

/// Up to this length an item is copied. The event loop borrows a longer one.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// Of an item that is no byte string an error shows this many characters: an item may be all of a page.
const SHOWN_CHARS_MAX: usize = 200;

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
    if sendfile && let Some(file) = file_piece(result, start) {
        job.response_body.pieces.push(file);
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

/// The file that the result wraps, as far as it is the response's body.
#[inline(never)]
fn file_piece(result: &Bound<'_, PyAny>, start: &Bound<'_, StartResponse>) -> Option<Piece> {
    let wrapper = result.cast_exact::<FileWrapper>().ok()?;
    if start.get().is_streaming() {
        return None;
    }
    let range = wrapper.get().range(result.py())?;
    let declared = start.get().declared_length();
    Some(Piece::File {
        file: range.file.into(),
        offset: range.offset,
        len: declared.map_or(range.len, |declared| declared.min(range.len)),
        owner: Some(Box::new(range.owner)),
    })
}

#[inline(never)]
fn send_whole(start: &Bound<'_, StartResponse>, mut job: Box<Job>, pool: &Pool) -> Sent {
    match start.get().take_head(job.response_body.len()) {
        Ok(Some(head)) => {
            job.response = head;
            match hold(start.py(), &mut job, pool) {
                None => pool.send(Reply::Whole(job)),
                Some(overdraft) => {
                    pool.send_and_wait(Reply::Whole(job));
                    if let Err(error) = wait_for_end(start.py(), overdraft) {
                        return Sent::Failed(None, error);
                    }
                }
            }
            Sent::Whole
        }
        Ok(None) => Sent::Streamed(without_body(job)),
        Err(error) => Sent::Failed(Some(without_body(job)), error),
    }
}

/// Wait until the response is written, or will not be.
fn wait_for_end(py: Python<'_>, overdraft: Overdraft) -> PyResult<()> {
    let Some(hub) = green::here() else {
        gil::release(py, Reason::UnsentResponse, || overdraft.wait());
        return Ok(());
    };
    let wait = hub.begin_wait();
    match overdraft.must_wait(wait.ticket()) {
        true => wait.until_called(py, None),
        false => Ok(()),
    }
}

/// What the application returned is not sent.
fn without_body(mut job: Box<Job>) -> Box<Job> {
    job.response_body.bytes.clear();
    job.response_body.pieces.clear();
    job
}

/// Reserve memory for the response until its client has read it, or put the body into a file when the clients of the worker
/// leave no room. What finds no place in a file either is sent all the same, and the thread waits for the client.
fn hold(py: Python<'_>, job: &mut Job, pool: &Pool) -> Option<Overdraft> {
    let body = &mut job.response_body;
    let head_bytes = job.response.byte_count() as u64;
    let body_bytes: u64 = body.parts_in_memory().map(|part| part.len() as u64).sum();
    if head_bytes + body_bytes < COUNTED_BYTES_MIN {
        return None;
    }
    let unsent = pool.unsent();
    if head_bytes < COUNTED_BYTES_MIN && is_one_object(body) {
        if count_object(body, unsent) {
            return None;
        }
    } else {
        body.reservation = unsent.reserve(head_bytes + body_bytes);
        if body.reservation.is_some() {
            return None;
        }
    }
    let is_stored = body_bytes > 0 && store(py, body, body_bytes, unsent);
    let left = match is_stored {
        true if head_bytes < COUNTED_BYTES_MIN => return None,
        true => head_bytes,
        false => head_bytes + body_bytes,
    };
    let (reservation, overdraft) = unsent.overdraw(left, pool.thread_count());
    body.reservation = Some(reservation);
    Some(overdraft)
}

/// Whether the body is one object of the application.
fn is_one_object(body: &ResponseBody) -> bool {
    body.bytes.is_empty() && matches!(body.pieces[..], [Piece::Borrowed(_)])
}

/// Count the body's only object until its client has read it. Returns whether the bound allows it.
fn count_object(body: &mut ResponseBody, unsent: &Arc<UnsentBytes>) -> bool {
    let Some(Piece::Borrowed(object)) = body.pieces.pop() else {
        return false;
    };
    let counted = unsent.count_object(object);
    let is_counted = counted.is_ok();
    let object = counted.unwrap_or_else(|refused| refused);
    body.pieces.push(Piece::Borrowed(object));
    is_counted
}

/// Put the parts in memory into a file. Returns whether that was possible.
fn store(py: Python<'_>, body: &mut ResponseBody, bytes: u64, unsent: &UnsentBytes) -> bool {
    let borrowed = &mut *body;
    let stored = gil::release(py, Reason::UnsentResponse, move || {
        unsent.store(borrowed.parts_in_memory(), bytes)
    });
    match stored {
        Ok((file, offset)) => {
            body.bytes.clear();
            body.pieces.clear();
            body.pieces.push(Piece::File {
                file,
                offset,
                len: bytes,
                owner: None,
            });
            true
        }
        Err(error) => {
            unsent.log_failure(bytes, &error);
            false
        }
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
        return stream(items.map(Ok), start, job, pool, None);
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
    let file = items.cast_exact::<FileWrapper>().ok().map(Bound::get);
    let complete = start.get().declared_length() == Some(first.as_bytes().len() as u64);
    if !complete {
        return stream(
            std::iter::once(Ok(first.into_any())).chain(items.clone()),
            start,
            job,
            pool,
            file,
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

/// Send the items one by one. Those of a file-like object, `file`, wait for a slow client in a file.
fn stream<'py>(
    items: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    start: &Bound<'py, StartResponse>,
    job: Box<Job>,
    pool: &Arc<Pool>,
    file: Option<&FileWrapper>,
) -> Sent {
    let mut left = start.get().declared_length();
    let window = match start.get().stream() {
        Ok(window) => window,
        Err(error) => return Sent::Failed(Some(job), error),
    };
    let client = StreamClient {
        conn: job.conn,
        pool,
        window: &window,
    };
    // What `write` has spooled goes first.
    let file = file.filter(|_| !window.is_spooling());
    let mut spool = file.map(|_| Box::<ResponseSpool>::default());
    for item in items {
        match pass_on(item, start, &mut left, spool.as_deref_mut(), client) {
            Ok(Next::Item) => {}
            Ok(Next::End) => break,
            Ok(Next::Gone) => return Sent::Gone(job),
            Err(error) => return Sent::Failed(Some(job), error),
        }
    }
    let (Some(spool), Some(file)) = (spool, file) else {
        return Sent::Streamed(job);
    };
    match spool.finish(start.py(), file, &client) {
        Ok(Flow::Open) => Sent::Streamed(job),
        Ok(Flow::Gone) => Sent::Gone(job),
        Err(error) => Sent::Failed(Some(job), error),
    }
}

/// What follows an item of a stream.
enum Next {
    Item,
    End,
    Gone,
}

/// Send one item. In a frame of its own: that of `stream` is a part of the C stack of each greenlet whose application waits
/// for its next event.
#[inline(never)]
fn pass_on(
    item: PyResult<Bound<'_, PyAny>>,
    start: &Bound<'_, StartResponse>,
    left: &mut Option<u64>,
    spool: Option<&mut ResponseSpool>,
    client: StreamClient<'_>,
) -> PyResult<Next> {
    end_child(start.py(), item.as_ref().err());
    let item = item?;
    let bytes = as_bytes(&item)?;
    let len = bytes.as_bytes().len() as u64;
    start.get().note_sent(len);
    let is_enough = left.is_some_and(|left| len > left);
    *left = left.map(|left| left.saturating_sub(len));
    let sent = match spool {
        None => client.send_item(start.py(), bytes),
        Some(spool) => spool.send_item(bytes, &client),
    };
    Ok(match sent? {
        // The loop cuts this item and logs it. The next one would not be sent.
        Flow::Open if is_enough => Next::End,
        Flow::Open => Next::Item,
        Flow::Gone => Next::Gone,
    })
}

fn as_bytes<'a, 'py>(item: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    item.cast().map_err(|_| {
        let shown = item
            .repr()
            .map_or_else(|_| "an item".to_owned(), |text| text.to_string());
        let end = shown.char_indices().nth(SHOWN_CHARS_MAX);
        let shown = end.map_or(shown.as_str(), |(end, _)| &shown[..end]);
        let mark = if end.is_some() { "..." } else { "" };
        PyTypeError::new_err(format!("{shown}{mark} is not a byte string"))
    })
}
