//! Unlinked temporary files, for bodies that are not to stay in memory.

use std::io;
use std::path::Path;

use crate::fork_guard::GuardedFile;

/// A new one, in `directory` (`worker_tmp_dir`) if that is possible, else where the system has such files.
///
/// # Errors
/// It could not be made.
pub fn temporary_file(directory: Option<&Path>) -> io::Result<GuardedFile> {
    if let Some(directory) = directory
        && let Ok(file) = tempfile::tempfile_in(directory)
    {
        return Ok(file.into());
    }
    Ok(tempfile::tempfile()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_missing_is_no_obstacle() {
        assert!(temporary_file(Some(Path::new("/nonexistent"))).is_ok());
    }
}
