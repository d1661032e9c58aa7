//! `start_response` and `write`, as one object per request.
//!
//! PEP 3333, "The start_response() Callable" and "The write() Callable". The object that the application calls is
//! also what it gets back: called with a byte string alone it is `write`. The head is validated and serialised while
//! the application's strings are at hand; nothing is decided here about framing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::http::{ResponseError, ResponseHead};
use crate::pool::{ConnId, Pool, Reply, Streaming, Window};
use crate::python::text::latin1_bytes;

use super::body::{self, Flow};

/// See the module.
#[pyclass(frozen, module = "ferricorn", name = "StartResponse")]
#[derive(Debug)]
pub(super) struct StartResponse {
    conn: ConnId,
    pool: Arc<Pool>,
    state: Mutex<State>,
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
    /// Nothing more is taken: the response is whole or the request is over.
    Over,
}

impl StartResponse {
    pub(super) fn new(conn: ConnId, pool: Arc<Pool>, response: ResponseHead) -> Self {
        Self {
            conn,
            pool,
            state: Mutex::new(State::Fresh(response)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take the head for a response that is sent whole. `None` when it is on its way already.
    ///
    /// # Errors
    /// `AssertionError` when the application has not called `start_response`.
    pub(super) fn take_head(&self) -> PyResult<Option<ResponseHead>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Ready(head) => Ok(Some(head)),
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
                let window = Arc::new(Window::new(body::WINDOW_BYTES));
                *state = State::Streaming(window.clone());
                drop(state);
                let streaming = Streaming {
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
            State::Over => Err(PyAssertionError::new_err("the response is over")),
        }
    }

    /// Whether part of the response is on its way.
    pub(super) fn is_streaming(&self) -> bool {
        matches!(&*self.lock(), State::Streaming(_))
    }

    /// The request is over: later calls of the application change nothing.
    pub(super) fn finish(&self) {
        *self.lock() = State::Over;
    }

    fn write(&self, py: Python<'_>, bytes: &Bound<'_, PyBytes>) -> PyResult<()> {
        let window = self.stream()?;
        match body::send_item(py, bytes, self.conn, &self.pool, &window) {
            Flow::Open => Ok(()),
            Flow::Gone => Err(pyo3::exceptions::PyConnectionResetError::new_err(
                "the client has disconnected",
            )),
        }
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, response_headers=None, exc_info=None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        response_headers: Option<&Bound<'py, PyAny>>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let Some(headers) = response_headers else {
            let bytes = status
                .cast::<PyBytes>()
                .map_err(|_| PyTypeError::new_err(format!("{} is not a byte", repr(status))))?;
            this.write(slf.py(), bytes)?;
            return Ok(slf.py().None().into_bound(slf.py()));
        };
        let exc_info = exc_info.filter(|value| !value.is_none());
        let mut head = {
            let mut state = this.lock();
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
                State::Streaming(_) | State::Over => ResponseHead::default(),
            }
        };
        head.clear();
        match fill(&mut head, status, headers) {
            Ok(()) => {
                *this.lock() = State::Ready(head);
                Ok(slf.clone().into_any())
            }
            Err(error) => {
                *this.lock() = State::Fresh(head);
                Err(error)
            }
        }
    }
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

fn fill(
    head: &mut ResponseHead,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let text = native_string(status)?;
    let bytes = latin1_bytes(text).ok_or_else(|| not_latin1("status", text))?;
    head.set_status(bytes).map_err(|error| invalid(&error))?;
    if let Ok(list) = headers.cast_exact::<PyList>() {
        for pair in list.iter() {
            push(head, &pair)?;
        }
        return Ok(());
    }
    for pair in headers.try_iter()? {
        push(head, &pair?)?;
    }
    Ok(())
}

fn push(head: &mut ResponseHead, pair: &Bound<'_, PyAny>) -> PyResult<()> {
    let (name, value) = match pair.cast_exact::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, pair.get_item(1)?),
        _ => pair.extract().map_err(|_| {
            PyTypeError::new_err(format!("{} is not a (name, value) pair", repr(pair)))
        })?,
    };
    let (name, value) = (native_string(&name)?, native_string(&value)?);
    let name_bytes = latin1_bytes(name).ok_or_else(|| not_latin1("header name", name))?;
    let value_bytes = latin1_bytes(value)
        .ok_or_else(|| not_latin1(&format!("value of header {}", repr(name)), value))?;
    head.push(name_bytes, value_bytes)
        .map_err(|error| invalid(&error))
}

fn native_string<'a, 'py>(value: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyString>> {
    value
        .cast()
        .map_err(|_| PyTypeError::new_err(format!("{} is not a string", repr(value))))
}

fn not_latin1(what: &str, value: &Bound<'_, PyString>) -> PyErr {
    PyValueError::new_err(format!(
        "{what} has characters outside latin-1: {}",
        repr(value)
    ))
}

fn invalid(error: &ResponseError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn repr(value: &Bound<'_, PyAny>) -> String {
    value
        .repr()
        .map_or_else(|_| "<unprintable>".to_owned(), |text| text.to_string())
}
