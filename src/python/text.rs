//! Between bytes of the wire and Python strings: WSGI strings are bytes decoded as latin-1 (PEP 3333, "A Note on
//! String Types").
#![expect(
    unsafe_code,
    reason = "PyO3 has no safe call for latin-1 in either direction"
)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The bytes as a latin-1 string.
///
/// # Errors
/// `MemoryError`.
pub(super) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let len = ffi::Py_ssize_t::try_from(bytes.len()).unwrap_or(ffi::Py_ssize_t::MAX);
    // SAFETY: `bytes` is valid for `len` bytes, which the call only reads; no error handler is named.
    let string =
        unsafe { ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), len, std::ptr::null()) };
    // SAFETY: the call returns a new reference, or null with an exception set.
    let string = unsafe { Bound::from_owned_ptr_or_err(py, string) }?;
    // SAFETY: a decoder returns exactly a str.
    Ok(unsafe { string.cast_into_unchecked() })
}

/// The string's characters as latin-1 bytes, or `None` when one of them is not latin-1.
pub(super) fn latin1_bytes<'a>(string: &'a Bound<'_, PyString>) -> Option<&'a [u8]> {
    let object = string.as_ptr();
    // SAFETY: `object` is a str, which is always ready since Python 3.12 and was made ready when it was created
    // before.
    let kind = unsafe { ffi::PyUnicode_KIND(object) };
    if kind != ffi::PyUnicode_1BYTE_KIND {
        return None;
    }
    // SAFETY: as above.
    let len = unsafe { ffi::PyUnicode_GET_LENGTH(object) };
    // SAFETY: the kind was just found to be one byte a character.
    let characters = unsafe { ffi::PyUnicode_1BYTE_DATA(object) };
    let len = usize::try_from(len).expect("a length is not negative");
    // SAFETY: a one-byte str has `len` bytes there, which do not change while it is alive, as it is for 'a.
    Some(unsafe { std::slice::from_raw_parts(characters, len) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    #[test]
    fn every_byte_survives_both_directions() {
        with_interpreter(|py| {
            let all: Vec<u8> = (0..=255).collect();
            let string = latin1(py, &all).unwrap();
            assert_eq!(string.len().unwrap(), 256);
            assert_eq!(latin1_bytes(&string), Some(&all[..]));
        });
    }

    #[test]
    fn a_character_outside_latin_1_has_no_bytes() {
        with_interpreter(|py| {
            assert_eq!(latin1_bytes(&PyString::new(py, "\u{20ac}")), None);
            assert_eq!(latin1_bytes(&PyString::new(py, "")), Some(&b""[..]));
        });
    }
}
