//! `wsgi.file_wrapper`: an iterable over a file-like object, sent by the kernel when it is a real file.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use crate::fork_guard::GuardedFile;
use crate::pool::BorrowedBuffer;
use crate::python::fork_guard::end_child;
use crate::python::gil::is_attached;
use crate::python::{heartbeat, traceback};

/// PEP 3333, "Optional Platform-Specific File Handling".
#[pyclass(frozen, module = "ferricorn", name = "FileWrapper")]
#[derive(Debug)]
pub(super) struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    blksize: usize,
    /// The file-like object's own, if it has one.
    close: Option<Py<PyAny>>,
    /// The event loop sends the file: it is closed when that is over.
    is_sent: AtomicBool,
}

/// A range of a real file, with a handle of the server's.
#[derive(Debug)]
pub(super) struct FileRange {
    pub(super) file: GuardedFile,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) owner: OpenFile,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize=8192))]
    fn new(filelike: Bound<'_, PyAny>, blksize: usize) -> PyResult<Self> {
        let close = filelike.getattr_opt("close")?.map(Bound::unbind);
        Ok(Self {
            filelike: filelike.unbind(),
            blksize,
            close,
            is_sent: AtomicBool::new(false),
        })
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self
            .filelike
            .bind(py)
            .call_method1("read", (self.blksize,))?;
        Ok(block.is_truthy()?.then_some(block))
    }

    fn __getitem__<'py>(&self, py: Python<'py>, _index: isize) -> PyResult<Bound<'py, PyAny>> {
        self.__next__(py)?
            .ok_or_else(|| pyo3::exceptions::PyIndexError::new_err("the file is over"))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        match &self.close {
            Some(close) if !self.is_sent.load(Ordering::Relaxed) => close.call0(py).map(drop),
            _ => Ok(()),
        }
    }
}

impl FileWrapper {
    /// What is left of the file from its position on, when it is a regular file that is open for reading; `None` for any
    /// other object, which is then iterated, and for a file that says it is empty: those of `/proc` all do.
    #[expect(unsafe_code, reason = "a descriptor number is all that `fileno` gives")]
    pub(super) fn range(&self, py: Python<'_>) -> Option<FileRange> {
        let filelike = self.filelike.bind(py);
        if !reads_as_stored(filelike).ok()? {
            return None;
        }
        let descriptor: RawFd = filelike.call_method0("fileno").ok()?.extract().ok()?;
        let offset: u64 = filelike.call_method0("tell").ok()?.extract().ok()?;
        if descriptor < 0 {
            return None;
        }
        // SAFETY: the file-like object says that the descriptor is open, and it is alive and holds it for this call;
        // were it closed, duplicating it would fail.
        let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
        let file = File::from(borrowed.try_clone_to_owned().ok()?);
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let len = metadata.len().checked_sub(offset)?;
        if len == 0 {
            return None;
        }
        Some(FileRange {
            file: GuardedFile::of_inode(file, metadata.ino()),
            offset,
            len,
            owner: self.closed_when_sent(py),
        })
    }

    /// The file-like object is closed when what is returned is dropped, and not before.
    pub(super) fn closed_when_sent(&self, py: Python<'_>) -> OpenFile {
        self.is_sent.store(true, Ordering::Relaxed);
        OpenFile(self.close.as_ref().map(|close| close.clone_ref(py)))
    }
}

/// The application's file while the event loop sends it. PEP 3333 has `close()` called "upon completion of the current
/// request": when the last byte has left, or the client is gone, this comes back to a pool thread and is dropped.
#[derive(Debug)]
pub(super) struct OpenFile(Option<Py<PyAny>>);

impl BorrowedBuffer for OpenFile {
    fn bytes(&self) -> &[u8] {
        &[]
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let Some(close) = self.0.take() else {
            return;
        };
        let call = move |py: Python<'_>| {
            let called = close.call0(py);
            end_child(py, called.as_ref().err());
            if let Err(error) = called {
                log::error!(
                    "Error after the response was sent\n{}",
                    traceback::format(py, &error)
                );
            }
        };
        if is_attached() {
            Python::attach(call);
        } else {
            // The pool's threads have left: the worker is about to end.
            heartbeat::post(Box::new(call));
        }
    }
}

/// Whether reading the object gives the bytes of the file that its descriptor names: it is an `io.FileIO`, or an
/// `io.BufferedReader` or `io.BufferedRandom` over one. Any other object is read: decompressors, decoders, subclasses and
/// proxies have a descriptor too, and a `read` of their own.
fn reads_as_stored(filelike: &Bound<'_, PyAny>) -> PyResult<bool> {
    let io = filelike.py().import("io")?;
    // A single object may have methods that its class does not have.
    if let Some(own) = filelike.getattr_opt("__dict__")? {
        for name in ["read", "fileno", "tell"] {
            if own.contains(name)? {
                return Ok(false);
            }
        }
    }
    let class = filelike.get_type();
    let is_buffered =
        class.is(&io.getattr("BufferedReader")?) || class.is(&io.getattr("BufferedRandom")?);
    let raw = if is_buffered {
        filelike.getattr("raw")?
    } else {
        filelike.clone()
    };
    // One that is open for writing alone is iterated: its `read` raises before a head is sent.
    Ok(raw.get_type().is(&io.getattr("FileIO")?) && raw.call_method0("readable")?.is_truthy()?)
}
