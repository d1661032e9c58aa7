//! `wsgi.file_wrapper`: an iterable over a file-like object, sent by the kernel when it is a real file.

use std::fs::File;
use std::os::fd::{BorrowedFd, RawFd};

use pyo3::prelude::*;

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
}

/// A range of a real file, with a handle of our own.
#[derive(Debug)]
pub(super) struct FileRange {
    pub(super) file: File,
    pub(super) offset: u64,
    pub(super) len: u64,
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
        if let Some(close) = &self.close {
            close.call0(py)?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// What is left of the file from its position on, when it is a regular file; `None` for any other object, which
    /// is then iterated, and for a file that says it is empty: those of `/proc` all do.
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
        (len > 0).then_some(FileRange { file, offset, len })
    }
}

/// Whether reading the object gives the bytes of the file that its descriptor names. Decompressors and decoders have a
/// descriptor too. Python's own classes are known; of others it is assumed, as wrappers around a file are common.
fn reads_as_stored(filelike: &Bound<'_, PyAny>) -> PyResult<bool> {
    let io = filelike.py().import("io")?;
    if !filelike.is_instance(&io.getattr("IOBase")?)? {
        return Ok(true);
    }
    let class = filelike.get_type();
    let is_buffered =
        class.is(&io.getattr("BufferedReader")?) || class.is(&io.getattr("BufferedRandom")?);
    let raw = if is_buffered {
        filelike.getattr("raw")?
    } else {
        filelike.clone()
    };
    Ok(raw.get_type().is(&io.getattr("FileIO")?))
}
