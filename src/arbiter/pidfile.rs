//! The pidfile: written whole under another name and renamed, removed only while it is still ours.
//!
//! It has no `Drop`: a forked child drops its copy too. The arbiter calls `unlink` by itself.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

#[derive(Debug, thiserror::Error)]
pub(super) enum PidfileError {
    #[error("Already running on PID {pid} (or pid file '{path}' is stale)")]
    Running { pid: i32, path: String },
    #[error("{0} doesn't exist. Can't create pidfile.")]
    NoDirectory(String),
    #[error("Can't write pid file '{path}': {reason}")]
    Io { path: String, reason: io::Error },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pidfile {
    path: PathBuf,
    pid: i32,
}

impl Pidfile {
    /// # Errors
    /// When another process that runs is named in the file, or it cannot be written.
    pub(super) fn create(path: &Path, pid: i32) -> Result<Self, PidfileError> {
        if let Some(other) = recorded_pid(path) {
            if other != pid && is_running(other) {
                let path = path.display().to_string();
                return Err(PidfileError::Running { pid: other, path });
            }
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !directory.is_dir() {
            let directory = directory.display().to_string();
            return Err(PidfileError::NoDirectory(directory));
        }
        write_and_rename(path, pid).map_err(|reason| PidfileError::Io {
            path: path.display().to_string(),
            reason,
        })?;
        let path = path.to_path_buf();
        Ok(Self { path, pid })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless another process has put itself into it.
    pub(super) fn unlink(&self) {
        if recorded_pid(&self.path) == Some(self.pid) {
            if let Err(error) = fs::remove_file(&self.path) {
                log::debug!("pid file {} not removed: {error}", self.path.display());
            }
        }
    }
}

fn write_and_rename(path: &Path, pid: i32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{pid}"));
    let temporary = PathBuf::from(temporary);
    let mut file = fs::File::create(&temporary)?;
    writeln!(file, "{pid}")?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    fs::rename(&temporary, path)
}

fn recorded_pid(path: &Path) -> Option<i32> {
    let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

fn is_running(pid: i32) -> bool {
    matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("ferricorn-pid-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    #[test]
    fn holds_the_pid_and_is_removed() {
        let path = path_of("plain");
        let pidfile = Pidfile::create(&path, 4242).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "4242\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        pidfile.unlink();
        assert!(!path.exists());
    }

    #[test]
    fn a_running_process_is_respected_and_a_dead_one_is_not() {
        let path = path_of("taken");
        fs::write(&path, "1\n").unwrap();
        let error = Pidfile::create(&path, 4242).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "Already running on PID 1 (or pid file '{}' is stale)",
                path.display()
            )
        );

        fs::write(&path, "2147483647\n").unwrap();
        let pidfile = Pidfile::create(&path, 4242).unwrap();
        fs::write(&path, "77\n").unwrap();
        pidfile.unlink();
        assert!(path.exists(), "the file names another process by now");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Pidfile::create(Path::new("/nonexistent/x.pid"), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nonexistent doesn't exist. Can't create pidfile."
        );
    }
}
