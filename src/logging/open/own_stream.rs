//! The process's own standard streams under the names that the system has for them.
//!
//! What is behind `/dev/stdout` may be a socket, as under journald. A socket cannot be opened by name, so the stream
//! itself is taken.

use std::io::{stderr, stdout};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

/// A duplicate of the stream that `path` names, if it names one.
pub(super) fn duplicate(path: &Path) -> Option<OwnedFd> {
    let number = match path.to_str()? {
        "/dev/stdout" => "1",
        "/dev/stderr" => "2",
        other => ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/"]
            .iter()
            .find_map(|directory| other.strip_prefix(directory))?,
    };
    match number {
        "1" => stdout().as_fd().try_clone_to_owned().ok(),
        "2" => stderr().as_fd().try_clone_to_owned().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_the_streams_are_taken() {
        for path in ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"] {
            assert!(duplicate(Path::new(path)).is_some(), "{path}");
        }
        for path in [
            "/dev/stdin",
            "/dev/fd/7",
            "/dev/null",
            "stdout",
            "/dev/fd/1/x",
        ] {
            assert!(duplicate(Path::new(path)).is_none(), "{path}");
        }
    }
}
