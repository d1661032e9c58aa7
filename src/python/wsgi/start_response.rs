//! `start_response` and the other callables of a request, as one object.
//!
//! PEP 3333, "The start_response() Callable" and "The write() Callable". The object that the application calls is
//! also what it gets back, and what the environ holds, so that a request costs one object and not four:
//!
//! | called with | it is |
//! | --- | --- |
//! | a status, headers, and perhaps `exc_info` | `start_response` |
//! | a byte string | `write` |
//! | a list of headers | `wsgi.early_hints` |
//! | nothing | `ferricorn.client_disconnected` |
//!
//! The head is validated and serialised while the application's strings are at hand; nothing is decided here about
//! framing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyAssertionError, PyConnectionResetError, PyOSError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyString};

use crate::fork_guard::is_child;
use crate::http::ResponseHead;
use crate::pool::{ConnId, Pool, Reply, StreamedResponse, Window};

use super::response_head::{fill, invalid, push_all, repr};
use super::stream::{Flow, StreamClient, WINDOW_BYTES};

/// See the module.
#[pyclass(frozen, module = "ferricorn", name = "StartResponse")]
#[derive(Debug)]
pub(super) struct StartResponse {
    conn: ConnId,
    pool: Arc<Pool>,
    state: Mutex<State>,
    /// Of a request that hooks or a custom logger see.
    record: Option<Box<Record>>,
}

/// What request hooks and custom loggers are shown of a response.
#[derive(Debug, Default)]
struct Record {
    head: Mutex<ResponseHead>,
    has_begun: AtomicBool,
    body_bytes: AtomicU64,
}

/// A response as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The last head that the application gave.
    pub(super) head: ResponseHead,
    /// Bytes of the body that were sent.
    pub(super) body_bytes: u64,
}

/// How far the response is.
#[derive(Debug)]
enum State {
    /// `start_response` was not called yet. The head's buffers wait.
    Fresh(ResponseHead),
    /// The head is known and not yet sent.
    Ready(ResponseHead),
    /// The head is on its way, and the body follows.
    Streaming(Arc<Window>),
    /// The application has the client's socket, and answers there. `is_answered`: it has begun a response in HTTP all the same.
    Hijacked { is_answered: bool },
    /// Nothing more is accepted: the response is whole or the request is over.
    Over,
}

impl StartResponse {
    pub(super) fn new(
        conn: ConnId,
        pool: Arc<Pool>,
        response: ResponseHead,
        is_recorded: bool,
    ) -> Self {
        Self {
            conn,
            pool,
            state: Mutex::new(State::Fresh(response)),
            record: is_recorded.then(Box::default),
        }
    }

    /// The response as it was recorded. Without hooks nothing is.
    pub(super) fn recorded(&self) -> Recorded {
        let Some(record) = &self.record else {
            return Recorded::default();
        };
        let head = record.head.lock().unwrap_or_else(PoisonError::into_inner);
        Recorded {
            head: head.clone(),
            body_bytes: record.body_bytes.load(Ordering::Relaxed),
        }
    }

    /// Whether the head is on its way, as far as that is recorded.
    pub(super) fn has_begun(&self) -> bool {
        let record = self.record.as_ref();
        record.is_some_and(|record| record.has_begun.load(Ordering::Relaxed))
    }

    fn note_begun(&self) {
        if let Some(record) = &self.record {
            record.has_begun.store(true, Ordering::Relaxed);
        }
    }

    /// Counts bytes of the body that are on their way.
    pub(super) fn note_sent(&self, bytes: u64) {
        if let Some(record) = &self.record {
            record.body_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take the head for a response that is sent whole, with a body of `body_bytes`. `None` when it is on its way already.
    ///
    /// # Errors
    /// `AssertionError` when the application has not called `start_response`.
    pub(super) fn take_head(&self, body_bytes: u64) -> PyResult<Option<ResponseHead>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Ready(head) => {
                self.note_begun();
                self.note_sent(body_bytes);
                Ok(Some(head))
            }
            State::Fresh(_) => Err(not_called()),
            other => {
                *state = other;
                Ok(None)
            }
        }
    }

    /// The declared Content-Length, while the head is not sent.
    pub(super) fn declared_length(&self) -> Option<u64> {
        match &*self.lock() {
            State::Ready(head) => head.content_length(),
            _ => None,
        }
    }

    /// The window of a response that is being streamed; sends the head first if that was not done.
    ///
    /// # Errors
    /// `AssertionError` when the application has not called `start_response`.
    pub(super) fn stream(&self) -> PyResult<Arc<Window>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Streaming(window) => {
                *state = State::Streaming(window.clone());
                Ok(window)
            }
            State::Ready(response) => {
                let window = Window::counted(WINDOW_BYTES, self.pool.unsent().clone());
                let window = Arc::new(window);
                *state = State::Streaming(window.clone());
                drop(state);
                self.note_begun();
                let streaming = StreamedResponse {
                    response,
                    window: window.clone(),
                };
                self.pool.send(Reply::Head(self.conn, Box::new(streaming)));
                Ok(window)
            }
            State::Fresh(head) => {
                *state = State::Fresh(head);
                Err(not_called())
            }
            State::Hijacked { .. } => {
                *state = State::Hijacked { is_answered: true };
                // Whatever is written goes nowhere.
                let window = Window::new(0);
                window.close();
                Ok(Arc::new(window))
            }
            State::Over => Err(PyAssertionError::new_err("the response is over")),
        }
    }

    /// Whether the application has the client's socket.
    pub(super) fn is_hijacked(&self) -> bool {
        matches!(&*self.lock(), State::Hijacked { .. })
    }

    /// Whether the application, which has the client's socket, answers in HTTP: it has failed.
    pub(super) fn is_hijacked_and_answered(&self) -> bool {
        matches!(&*self.lock(), State::Hijacked { is_answered: true })
    }

    /// Whether part of the response is on its way.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(&*self.lock(), State::Streaming(_))
    }

    /// The application has returned or failed: what its stream has spooled is sent.
    pub(super) fn flush_spool(&self, py: Python<'_>) {
        let window = match &*self.lock() {
            State::Streaming(window) => window.clone(),
            _ => return,
        };
        let client = StreamClient {
            conn: self.conn,
            pool: &self.pool,
            window: &window,
        };
        client.flush_spool(py);
    }

    /// The request is over: later calls of the application change nothing.
    pub(super) fn finish(&self, py: Python<'_>) {
        self.flush_spool(py);
        *self.lock() = State::Over;
    }

    /// `wsgi.early_hints`: an interim response with these headers, if the real one has not begun.
    fn hint(&self, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut hints = ResponseHead::default();
        hints
            .set_status(b"103 Early Hints")
            .map_err(|error| invalid(&error))?;
        push_all(&mut hints, headers)?;
        if is_child() {
            return Err(not_in_child());
        }
        let state = self.lock();
        if matches!(*state, State::Fresh(_) | State::Ready(_)) {
            self.pool.send(Reply::Hints(self.conn, Box::new(hints)));
        }
        Ok(())
    }

    fn write(&self, py: Python<'_>, bytes: &Bound<'_, PyBytes>) -> PyResult<()> {
        if self.is_hijacked() {
            return Ok(());
        }
        if is_child() {
            return Err(not_in_child());
        }
        let window = self.stream()?;
        self.note_sent(bytes.as_bytes().len() as u64);
        let client = StreamClient {
            conn: self.conn,
            pool: &self.pool,
            window: &window,
        };
        match client.send_item(py, bytes)? {
            Flow::Open => Ok(()),
            Flow::Gone => Err(PyConnectionResetError::new_err(
                "the client has disconnected",
            )),
        }
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status=None, response_headers=None, exc_info=None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: Option<&Bound<'py, PyAny>>,
        response_headers: Option<&Bound<'py, PyAny>>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let Some(status) = status else {
            let gone = PyBool::new(slf.py(), this.pool.is_gone(this.conn));
            return Ok(gone.to_owned().into_any());
        };
        let Some(headers) = response_headers else {
            this.call_with(status)?;
            return Ok(slf.py().None().into_bound(slf.py()));
        };
        let exc_info = exc_info.filter(|value| !value.is_none());
        let mut head = {
            let mut state = this.lock();
            if let State::Hijacked { is_answered } = &mut *state {
                *is_answered = true;
                return Ok(slf.clone().into_any());
            }
            match (&*state, exc_info) {
                (State::Streaming(_) | State::Over, Some(exc_info)) => {
                    drop(state);
                    return Err(raised(exc_info)?);
                }
                (State::Fresh(_), _) | (State::Ready(_), Some(_)) => {}
                _ => return Err(PyAssertionError::new_err("Response headers already set!")),
            }
            match std::mem::replace(&mut *state, State::Over) {
                State::Fresh(head) | State::Ready(head) => head,
                State::Streaming(_) | State::Hijacked { .. } | State::Over => {
                    ResponseHead::default()
                }
            }
        };
        match fill(&mut head, status, headers) {
            Ok(()) => {
                if let Some(record) = &this.record {
                    let mut kept = record.head.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.clone_from(&head);
                }
                *this.lock() = State::Ready(head);
                Ok(slf.clone().into_any())
            }
            Err(error) => {
                *this.lock() = State::Fresh(head);
                Err(error)
            }
        }
    }

    /// The application hijacks the client's socket.
    fn hijack(&self) -> PyResult<()> {
        if is_child() {
            return Err(not_in_child());
        }
        let mut state = self.lock();
        match *state {
            State::Fresh(_) | State::Ready(_) => {
                *state = State::Hijacked { is_answered: false };
                // Under the lock, so that it precedes the end of the request.
                self.pool.send(Reply::Hijacked(self.conn));
                Ok(())
            }
            _ => Err(PyOSError::new_err(
                "the response has begun: the client's socket is the server's",
            )),
        }
    }
}

impl StartResponse {
    /// Called with one argument: `write`, or `wsgi.early_hints`.
    fn call_with(&self, argument: &Bound<'_, PyAny>) -> PyResult<()> {
        if let Ok(bytes) = argument.cast::<PyBytes>() {
            return self.write(argument.py(), bytes);
        }
        if argument.is_instance_of::<PyString>() || argument.try_iter().is_err() {
            return Err(PyTypeError::new_err(format!(
                "{} is not a byte",
                repr(argument)
            )));
        }
        self.hint(argument)
    }
}

/// The response belongs to the worker: a child that the application has forked has no connection.
fn not_in_child() -> PyErr {
    PyConnectionResetError::new_err("this process was forked by the application: it cannot respond")
}

fn not_called() -> PyErr {
    PyAssertionError::new_err(
        "the application returned its response without calling start_response",
    )
}

/// The exception in `exc_info`, to be raised again because the head cannot be taken back.
fn raised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let exception = exc_info.get_item(1)?;
    Ok(PyErr::from_value(exception))
}
