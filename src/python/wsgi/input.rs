//! `wsgi.input`: the request's body, read from memory, from its spool, or (`request_buffering = False`) as it arrives.
//!
//! PEP 3333, "Input and Error Streams": `read`, `readline`, `readlines`, iteration. At its end every call returns
//! nothing, also when it is repeated. A body that was cut short is an `OSError` at every call.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::fork_guard::{is_child, keep_for_this_thread};
use crate::pool::{BodyBytes, PieceFile, RequestBody, StreamingBody, Ticket};
use crate::python::gil::{Reason, release};
use crate::python::green;

/// A spooled body is read in steps of at least this many bytes, so that lines are not read one by one.
const STEP_BYTES: usize = 64 * 1024;

/// See the module.
#[pyclass(frozen, module = "ferricorn", name = "Input")]
#[derive(Debug)]
pub(super) struct Input {
    source: Mutex<Source>,
    /// The reason for which the GIL is released while bytes are fetched.
    reason: Reason,
}

#[derive(Debug, Default)]
struct Source {
    /// The whole body, when it came in memory; else empty.
    whole: BodyBytes,
    /// Fetched and not yet read by the application: `whole[at..]` or `bytes[at..]`.
    bytes: Vec<u8>,
    at: usize,
    rest: Rest,
    /// Of the greenlet that reads: it must not wait with the lock.
    ticket: Option<Ticket>,
}

/// Where further bytes come from.
#[derive(Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    Spool {
        file: PieceFile,
        /// Of the file, whose own position a child of the application shares with its worker.
        offset: u64,
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
            RequestBody::File { file, offset, len } => {
                // A child of this request may read its body.
                keep_for_this_thread(file.file());
                source.rest = Rest::Spool {
                    file,
                    offset,
                    left: len,
                };
            }
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

    /// Call `take` on the source. Reading a file and waiting for the client happen without the GIL; a greenlet yields
    /// to its hub for the client, and calls again.
    fn with_source<T: Send>(
        &self,
        py: Python<'_>,
        take: impl Fn(&mut Source) -> io::Result<T> + Send + Sync,
    ) -> PyResult<T> {
        // A body in memory needs no wait. The lock is held for longer only when the application shares the stream
        // between threads and one of them waits.
        if let Ok(mut source) = self.source.try_lock()
            && source.is_in_memory()
        {
            return Ok(take(&mut source)?);
        }
        let Some(hub) = green::here().filter(|_| self.reason == Reason::StreamingBody) else {
            return Ok(release(py, self.reason, || take(&mut self.lock()))?);
        };
        loop {
            let wait = hub.begin_wait();
            let taken = {
                let mut source = self.lock();
                source.ticket = Some(wait.ticket());
                let taken = take(&mut source);
                source.ticket = None;
                taken
            };
            match taken {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait.until_called(py, None)?;
                }
                taken => return Ok(taken?),
            }
        }
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

    /// Fetch until `want` bytes are in memory, or all there are.
    fn fill(&mut self, want: usize) -> io::Result<()> {
        loop {
            let have = self.held().len() - self.at;
            if have >= want || !self.fetch(want - have)? {
                return Ok(());
            }
        }
    }

    /// Fetch more bytes: `step` of them from a file, else those that come first. Returns false when there are no more.
    fn fetch(&mut self, step: usize) -> io::Result<bool> {
        if self.is_in_memory() {
            return Ok(false);
        }
        if is_child() && matches!(self.rest, Rest::Streaming(_)) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "this process was forked by the application: the rest of the body comes to its worker",
            ));
        }
        self.bytes.drain(..self.at);
        self.at = 0;
        match &mut self.rest {
            Rest::Nothing => return Ok(false),
            Rest::Streaming(body) => {
                if body.take(&mut self.bytes, self.ticket.as_ref())? {
                    return Ok(true);
                }
            }
            Rest::Spool { file, offset, left } => {
                let step = (step.max(STEP_BYTES) as u64).min(*left);
                let read = read_at(file.file(), *offset, step, &mut self.bytes)?;
                *offset += read;
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

/// Append `len` bytes of the file from `offset` on, or those that there are. Returns how many.
fn read_at(file: &File, offset: u64, len: u64, into: &mut Vec<u8>) -> io::Result<u64> {
    struct From<'a>(&'a File, u64);
    impl io::Read for From<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read_at(bytes, self.1)?;
            self.1 += read as u64;
            Ok(read)
        }
    }
    Ok(From(file, offset).take(len).read_to_end(into)? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom, Write as _};

    fn spooled(content: &[u8], len: u64) -> Source {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        Source {
            rest: Rest::Spool {
                file: file.into(),
                offset: 0,
                left: len,
            },
            ..Source::default()
        }
    }

    fn lines(source: &mut Source) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        loop {
            let len = source.line_len(usize::MAX).unwrap();
            if len == 0 {
                return lines;
            }
            lines.push(source.take(len));
        }
    }

    #[test]
    fn lines_keep_their_ends_and_the_last_needs_none() {
        let mut source = spooled(b"one\ntwo\n\nthree", 14);
        assert_eq!(
            lines(&mut source),
            [&b"one\n"[..], b"two\n", b"\n", b"three"]
        );
        assert_eq!(
            source.line_len(usize::MAX).unwrap(),
            0,
            "also when repeated"
        );
    }

    #[test]
    fn a_line_may_be_longer_than_a_step() {
        let long = [vec![b'x'; 3 * STEP_BYTES], b"\nend".to_vec()].concat();
        let mut source = spooled(&long, long.len() as u64);
        assert_eq!(source.line_len(usize::MAX).unwrap(), 3 * STEP_BYTES + 1);
        assert_eq!(source.line_len(10).unwrap(), 10, "a size cuts a line");
    }

    #[test]
    fn a_body_in_memory_is_read_in_parts() {
        let mut source = Source {
            bytes: b"abcdef".to_vec(),
            ..Source::default()
        };
        source.fill(4).unwrap();
        assert_eq!(source.take(4), b"abcd");
        source.fill(4).unwrap();
        assert_eq!(source.take(4), b"ef");
        assert_eq!(source.take(4), b"");
    }

    #[test]
    fn a_child_that_reads_the_spool_moves_nothing_here() {
        let mut source = spooled(
            &[vec![b'a'; STEP_BYTES], vec![b'b'; 10]].concat(),
            STEP_BYTES as u64 + 10,
        );
        source.fill(1).unwrap();
        let Rest::Spool { file, .. } = &source.rest else {
            panic!("there is more to read")
        };
        // A forked child shares the position.
        file.file().seek(SeekFrom::End(0)).unwrap();
        source.take(STEP_BYTES);
        source.fill(10).unwrap();
        assert_eq!(source.take(10), [b'b'; 10]);
    }

    #[test]
    fn a_spool_that_became_shorter_is_an_error_at_every_call() {
        let mut source = spooled(b"short", 100);
        assert!(source.fill(100).is_err());
        assert!(source.fill(100).is_err());
    }

    #[test]
    fn a_size_of_none_or_below_zero_is_all() {
        assert_eq!(limit(None), usize::MAX);
        assert_eq!(limit(Some(-1)), usize::MAX);
        assert_eq!(limit(Some(7)), 7);
    }
}
