//! Status and headers from Python's strings into a response head; what is wrong with them is the application's exception.
//!
//! PEP 3333, "The start_response() Callable": native strings whose characters are latin-1.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::http::{ResponseError, ResponseHead};
use crate::python::text::latin1_bytes;

pub(super) fn fill(
    head: &mut ResponseHead,
    status: &Bound<'_, PyAny>,
    headers: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let text = native_string(status)?;
    let bytes = latin1_bytes(text).ok_or_else(|| not_latin1("status", text))?;
    head.set_status(bytes).map_err(|error| invalid(&error))?;
    push_all(head, headers)
}

pub(super) fn push_all(head: &mut ResponseHead, headers: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(list) = headers.cast_exact::<PyList>() {
        for pair in list.iter() {
            push(head, &pair)?;
        }
    } else {
        for pair in headers.try_iter()? {
            push(head, &pair?)?;
        }
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
    let name = native_string(&name)?;
    let value = value.cast::<PyString>().map_err(|_| {
        PyTypeError::new_err(format!(
            "value of header {} is not a string: {}",
            repr(name),
            repr(&value)
        ))
    })?;
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

pub(super) fn invalid(error: &ResponseError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub(super) fn repr(value: &Bound<'_, PyAny>) -> String {
    value
        .repr()
        .map_or_else(|_| "<unprintable>".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::ffi::CString;

    use super::*;
    use crate::python::with_interpreter;

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    /// The fields that a list of pairs gives, or the type of the exception.
    fn pushed(py: Python<'_>, pairs: &str) -> Result<Fields, String> {
        let pairs = py.eval(&CString::new(pairs).unwrap(), None, None).unwrap();
        let mut head = ResponseHead::default();
        push_all(&mut head, &pairs)
            .map_err(|error| error.get_type(py).name().unwrap().to_string())?;
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        Ok(head.fields().map(owned).collect())
    }

    #[test]
    fn pairs_become_fields_and_what_is_wrong_is_the_applications_exception() {
        with_interpreter(|py| {
            let fields = pushed(py, "[('X-A', 'caf\\xe9'), ('x-b', '2')]").unwrap();
            assert_eq!(fields[0], (b"X-A".to_vec(), b"caf\xe9".to_vec()));
            assert_eq!(fields[1], (b"x-b".to_vec(), b"2".to_vec()));
            for (pairs, exception) in [
                ("[(':status', '200')]", "ValueError"),
                ("[('x', '\\u20ac')]", "ValueError"),
                ("[('x', 1)]", "TypeError"),
                ("[(1, 'x')]", "TypeError"),
                ("[('x',)]", "TypeError"),
                ("[1]", "TypeError"),
            ] {
                assert_eq!(pushed(py, pairs), Err(exception.to_owned()), "{pairs}");
            }
        });
    }
}
