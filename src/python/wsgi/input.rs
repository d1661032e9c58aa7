//! `wsgi.input`: the request's body, whole before the application runs, read from memory or from its spool.
//!
//! PEP 3333, "Input and Error Streams": `read`, `readline`, `readlines`, iteration. At its end every call returns
//! nothing, however often it is made. No call touches the network.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::pool::RequestBody;
use crate::python::gil::{Reason, handoff};

/// A spooled body is read in steps of this at least, so that lines are not read one by one.
const STEP_BYTES: usize = 64 * 1024;

/// See the module.
#[pyclass(frozen, module = "ferricorn", name = "Input")]
#[derive(Debug)]
pub(super) struct Input(Mutex<Source>);

#[derive(Debug, Default)]
struct Source {
    /// Read and not yet asked for: `bytes[at..]`.
    bytes: Vec<u8>,
    at: usize,
    /// What is still in the spool.
    spool: Option<Spool>,
}

#[derive(Debug)]
struct Spool {
    file: File,
    left: u64,
}

impl Input {
    pub(super) fn new(body: RequestBody) -> Self {
        Self(Mutex::new(match body {
            RequestBody::Empty => Source::default(),
            RequestBody::Memory(bytes) => Source {
                bytes,
                at: 0,
                spool: None,
            },
            RequestBody::File { file, len } => Source {
                bytes: Vec::new(),
                at: 0,
                spool: Some(Spool { file, left: len }),
            },
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call `take` on the source. Whatever may read a file does so without the GIL.
    fn with_source<T: Send>(
        &self,
        py: Python<'_>,
        take: impl FnOnce(&mut Source) -> io::Result<T> + Send,
    ) -> PyResult<T> {
        // A body in memory is there at once; nobody else holds the lock for longer than that, unless the application
        // shares the stream between threads and a spool is being read.
        if let Ok(mut source) = self.0.try_lock()
            && source.spool.is_none()
        {
            return Ok(take(&mut source)?);
        }
        Ok(handoff(py, Reason::SpooledBody, || take(&mut self.lock()))?)
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
        if let Ok(mut source) = self.0.try_lock()
            && source.spool.is_none()
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
        let rest = &self.bytes[self.at..];
        &rest[..rest.len().min(max)]
    }

    fn take(&mut self, max: usize) -> Vec<u8> {
        let taken = self.peek(max).to_vec();
        self.at += taken.len();
        taken
    }

    /// Have `want` bytes in memory, or all there are.
    fn fill(&mut self, want: usize) -> io::Result<()> {
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        let have = self.bytes.len() - self.at;
        if have >= want {
            return Ok(());
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        let step = (want - have).max(STEP_BYTES) as u64;
        let read = (&mut spool.file)
            .take(step.min(spool.left))
            .read_to_end(&mut self.bytes)? as u64;
        if read < step.min(spool.left) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the spooled request body became shorter",
            ));
        }
        spool.left -= read;
        if spool.left == 0 {
            self.spool = None;
        }
        Ok(())
    }

    /// Length of the next line including its end, `max` at most.
    fn line_len(&mut self, max: usize) -> io::Result<usize> {
        let mut searched = 0;
        loop {
            let rest = self.peek(max);
            if let Some(end) = memchr::memchr(b'\n', &rest[searched..]) {
                return Ok(searched + end + 1);
            }
            if rest.len() == max || self.spool.is_none() {
                return Ok(rest.len());
            }
            searched = rest.len();
            self.fill(searched.saturating_add(STEP_BYTES).min(max))?;
        }
    }
}
