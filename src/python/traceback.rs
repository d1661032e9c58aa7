//! An exception as the text that Python would print.

use pyo3::prelude::*;

/// The traceback without its last line break. The bare exception, or its class, when it cannot be formatted.
pub fn format(py: Python<'_>, error: &PyErr) -> String {
    let lines = py.import("traceback").and_then(|module| {
        let value = error.value(py);
        // Up to Python 3.11 the value does not know its traceback before it is raised again.
        module.call_method1(
            "format_exception",
            (value.get_type(), value, error.traceback(py)),
        )
    });
    let text = lines
        .and_then(|lines| lines.extract::<Vec<String>>())
        .map(|lines| lines.concat());
    // An exception whose own `__str__` raises still deserves a line.
    text.unwrap_or_else(|_| error.get_type(py).to_string())
        .trim_end()
        .to_owned()
}

/// What the interpreter would make of a `SystemExit`: nothing is 0, a number is itself, anything else is a message.
pub fn exit_code(py: Python<'_>, error: &PyErr) -> i32 {
    let Ok(code) = error.value(py).getattr("code") else {
        return 1;
    };
    if code.is_none() {
        return 0;
    }
    match code.extract::<i32>() {
        Ok(number) => number & 0xff,
        Err(_) => {
            log::error!("{code}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::with_interpreter;

    #[test]
    fn it_is_what_python_prints() {
        with_interpreter(|py| {
            let error = py.run(c"1 / 0", None, None).unwrap_err();
            let text = format(py, &error);
            assert!(
                text.starts_with("Traceback (most recent call last):\n"),
                "{text}"
            );
            assert!(
                text.ends_with("ZeroDivisionError: division by zero"),
                "{text}"
            );
        });
    }

    #[test]
    fn an_exception_that_cannot_be_shown_has_a_line_all_the_same() {
        with_interpreter(|py| {
            let code = c"class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd";
            let error = py.run(code, None, None).unwrap_err();
            assert!(format(py, &error).contains("Odd"));
        });
    }
}
