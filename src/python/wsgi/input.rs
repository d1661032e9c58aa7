//! `wsgi.input`: the request's body, read from memory, from its spool, or (`request_buffering = False`) as it arrives.
//!
//! PEP 3333, "Input and Error Streams": `read`, `readline`, `readlines`, iteration. At its end every call returns
//! nothing, however often it is made. A body that was cut short is an `OSError`, however often it is read.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::pool::{BodyBytes, RequestBody, StreamingBody};
use crate::python::gil::{Reason, release};

/// A spooled body is read in steps of this at least, so that lines are not read one by one.
const STEP_BYTES: usize = 64 * 1024;

/// See the module.
#[pyclass(frozen, module = "ferricorn", name = "Input")]
#[derive(Debug)]
pub(super) struct Input {
    source: Mutex<Source>,
    /// Why a thread waits for what is not in memory.
    reason: Reason,
}

#[derive(Debug, Default)]
struct Source {
    /// The whole body, when it came in memory; else empty.
    whole: BodyBytes,
    /// Read and not yet asked for: `whole[at..]` or `bytes[at..]`.
    bytes: Vec<u8>,
    at: usize,
    rest: Rest,
}

/// Where what is not yet in memory comes from.
#[derive(Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    Spool {
        file: File,
        left: u64,
    },
    Streaming(Arc<StreamingBody>),
}

impl Input {
    pub(super) fn new(body: RequestBody) -> Self {
        let mut source = Source::default();
        let mut reason = Reason::SpooledBody;
        match body {
            RequestBody::Empty => {}
            RequestBody::Memory(whole) => source.whole = whole,
            RequestBody::File { file, len } => source.rest = Rest::Spool { file, left: len },
            RequestBody::Streaming(body) => {
                source.rest = Rest::Streaming(body);
                reason = Reason::StreamingBody;
            }
        }
        Self {
            source: Mutex::new(source),
            reason,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call `take` on the source. Whatever may read a file or wait for the client does so without the GIL.
    fn with_source<T: Send>(
        &self,
        py: Python<'_>,
        take: impl FnOnce(&mut Source) -> io::Result<T> + Send,
    ) -> PyResult<T> {
        // A body in memory is there at once; nobody else holds the lock for longer than that, unless the application
        // shares the stream between threads and one of them waits.
        if let Ok(mut source) = self.source.try_lock()
            && source.is_in_memory()
        {
            return Ok(take(&mut source)?);
        }
        Ok(release(py, self.reason, || take(&mut self.lock()))?)
    }

    fn take_line(&self, py: Python<'_>, max: usize) -> PyResult<Line> {
        self.with_source(py, move |source| {
            let len = source.line_len(max)?;
            Ok(Line(source.take(len)))
        })
    }
}

/// One line with its end, as bytes of its own.
struct Line(Vec<u8>);

#[pymethods]
impl Input {
    /// `size` bytes, or all that are left when it is negative or None.
    #[pyo3(signature = (size=None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let max = limit(size);
        if let Ok(mut source) = self.source.try_lock()
            && (source.is_in_memory() || source.peek(max).len() == max)
        {
            let bytes = PyBytes::new(py, source.peek(max));
            source.at += bytes.as_bytes().len();
            return Ok(bytes);
        }
        let bytes = self.with_source(py, move |source| {
            source.fill(max)?;
            Ok(source.take(max))
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// One line with its end, or `size` bytes of it at most.
    #[pyo3(signature = (size=None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.take_line(py, limit(size))?.0))
    }

    /// All lines, or lines of `hint` bytes together.
    #[pyo3(signature = (hint=None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let max = hint
            .and_then(|hint| usize::try_from(hint).ok())
            .filter(|hint| *hint > 0)
            .unwrap_or(usize::MAX);
        let lines = PyList::empty(py);
        let mut total = 0;
        while total < max {
            let line = self.take_line(py, usize::MAX)?.0;
            if line.is_empty() {
                break;
            }
            total += line.len();
            lines.append(PyBytes::new(py, &line))?;
        }
        Ok(lines)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.take_line(py, usize::MAX)?.0;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }
}

fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok())
        .unwrap_or(usize::MAX)
}

impl Source {
    /// Up to `max` bytes that are in memory.
    fn peek(&self, max: usize) -> &[u8] {
        let rest = &self.held()[self.at..];
        &rest[..rest.len().min(max)]
    }

    fn held(&self) -> &[u8] {
        if self.whole.is_empty() {
            &self.bytes
        } else {
            &self.whole
        }
    }

    fn take(&mut self, max: usize) -> Vec<u8> {
        let taken = self.peek(max).to_vec();
        self.at += taken.len();
        taken
    }

    /// Whether nothing has to be fetched.
    fn is_in_memory(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// Have `want` bytes in memory, or all there are.
    fn fill(&mut self, want: usize) -> io::Result<()> {
        loop {
            let have = self.held().len() - self.at;
            if have >= want || !self.fetch(want - have)? {
                return Ok(());
            }
        }
    }

    /// Have more bytes in memory: `step` of them if that is known to be possible, else what comes first. Returns
    /// false when there are no more.
    fn fetch(&mut self, step: usize) -> io::Result<bool> {
        if self.is_in_memory() {
            return Ok(false);
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        match &mut self.rest {
            Rest::Nothing => return Ok(false),
            Rest::Streaming(body) => {
                if body.take(&mut self.bytes)? {
                    return Ok(true);
                }
            }
            Rest::Spool { file, left } => {
                let step = (step.max(STEP_BYTES) as u64).min(*left);
                let read = file.take(step).read_to_end(&mut self.bytes)? as u64;
                if read < step {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the spooled request body became shorter",
                    ));
                }
                *left -= read;
                if *left > 0 {
                    return Ok(true);
                }
            }
        }
        self.rest = Rest::Nothing;
        Ok(true)
    }

    /// Length of the next line including its end, `max` at most.
    fn line_len(&mut self, max: usize) -> io::Result<usize> {
        let mut searched = 0;
        loop {
            let rest = self.peek(max);
            if let Some(end) = memchr::memchr(b'\n', &rest[searched..]) {
                return Ok(searched + end + 1);
            }
            searched = rest.len();
            if searched == max || !self.fetch(STEP_BYTES)? {
                return Ok(searched);
            }
        }
    }
}
