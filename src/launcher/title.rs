//! The process's name in `ps` and `top`.
//!
//! With the `setproctitle` module installed the title is that module's business, as in gunicorn. Without it it is written
//! where `ps` reads it: over the command line that the kernel keeps at the top of the stack. It cannot be longer than
//! that. Python has copied its arguments long before, and no other code reads them there.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use pyo3::prelude::*;

/// A title that cannot be set is not worth a line.
pub(super) fn set_title(py: Python<'_>, title: &str) {
    let title = format!("ferricorn: {title}");
    let set = py
        .import("setproctitle")
        .and_then(|module| module.call_method1("setproctitle", (&title,)));
    if set.is_err() {
        let _ = overwrite_arguments(&title);
    }
    let _ = nix::sys::prctl::set_name(&short_name(&title));
}

/// The thread's name, of which the kernel keeps 15 bytes: the title's first two words without a space. CPython from 3.12
/// on splits `/proc/self/stat` at spaces to count threads. One more in this name, and `os.fork` takes the niceness for
/// that number and warns of threads.
fn short_name(title: &str) -> std::ffi::CString {
    let words: String = title.split(' ').take(2).collect();
    std::ffi::CString::new(words).unwrap_or_default()
}

/// Through the file that is this process's memory: a wrong address is an error there, not a fault.
fn overwrite_arguments(title: &str) -> io::Result<()> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (start, end) = arguments(&stat).ok_or(io::ErrorKind::InvalidData)?;
    // The last byte must stay NUL, or the kernel reads on into the environment.
    let room = usize::try_from(end - start).map_err(io::Error::other)?;
    let mut bytes = title.as_bytes().to_vec();
    bytes.truncate(room.saturating_sub(1));
    bytes.resize(room, 0);
    let memory = File::options().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&bytes, start)
}

/// `arg_start` and `arg_end` of proc(5): fields 48 and 49, where the name in parentheses is the second.
fn arguments(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(45);
    let start: u64 = fields.next()?.trim().parse().ok()?;
    let end: u64 = fields.next()?.trim().parse().ok()?;
    (start != 0 && end > start).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_name_has_no_space() {
        assert_eq!(
            short_name("ferricorn: worker [app:app]"),
            c"ferricorn:worker".to_owned()
        );
    }

    #[test]
    fn the_arguments_are_found_in_the_kernels_text() {
        let fields: Vec<_> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("7 (a ) b) {}\n", fields.join(" "));
        assert_eq!(arguments(&stat), Some((48, 49)));
        assert_eq!(arguments("7 (x) S 1"), None);
    }
}
