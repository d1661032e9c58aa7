//! The pidfile: written whole under another name and renamed, removed only while it still names this process.
//!
//! The directory may belong to another user than the process that writes the file, so the name of the temporary file cannot
//! be guessed, no symbolic link is followed, and what could not be written whole is removed.
//!
//! A file that is there may be left over. gunicorn asks whether a process of that number runs, and refuses to start for
//! ever when another process has got the number, as after the restart of a container. So:
//! - the arbiter holds a lock on its file for as long as it lives, and a locked file has an owner. It is a write lock, which
//!   takes the right to write the file: nobody who may only read it can pretend to be the owner of one that is left over;
//! - without the lock (gunicorn takes none) the process of that number has written the file only if it is not younger
//!   than the file.
//!
//! It has no `Drop`: a forked child drops its copy too. The arbiter calls `unlink` by itself. The lock belongs to the
//! open file, which workers close as they begin; it ends with the arbiter.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::kill;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::fork_guard;

#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    #[error("Already running on PID {pid} (or pid file '{path}' is stale)")]
    Running { pid: i32, path: String },
    #[error("{0} doesn't exist. Can't create pidfile.")]
    NoDirectory(String),
    #[error("Can't write pid file '{path}': {reason}")]
    Io { path: String, reason: io::Error },
}

#[derive(Debug)]
struct Pidfile {
    path: PathBuf,
    pid: i32,
    /// A file system without locks has no lock.
    _lock: Option<fs::File>,
}

impl Pidfile {
    /// # Errors
    /// When another process that runs is named in the file, or it cannot be written.
    fn create(path: &Path, pid: i32) -> Result<Self, PidfileError> {
        if let Some(other) = recorded_pid(path) {
            if other != pid && is_owned_by(path, other) {
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
        let lock = write_and_rename(path, pid).map_err(|reason| PidfileError::Io {
            path: path.display().to_string(),
            reason,
        })?;
        let path = path.to_path_buf();
        Ok(Self {
            path,
            pid,
            _lock: lock,
        })
    }

    /// Removes the file, unless it names another process by now.
    fn unlink(&self) {
        if recorded_pid(&self.path) == Some(self.pid) {
            if let Err(error) = fs::remove_file(&self.path) {
                log::debug!("pid file {} not removed: {error}", self.path.display());
            }
        }
    }
}

/// The pidfile of this master, at the path of its current setting.
#[derive(Debug, Default)]
pub(super) struct OwnPidfile(Option<Pidfile>);

impl OwnPidfile {
    /// The file is at `path` from now on, or nowhere.
    ///
    /// # Errors
    /// When another process that runs is named in the file, or it cannot be written. Then the old one stays.
    pub(super) fn move_to(&mut self, path: Option<&Path>, pid: i32) -> Result<(), PidfileError> {
        if self.0.as_ref().map(|pidfile| pidfile.path.as_path()) == path {
            return Ok(());
        }
        let created = path.map(|path| Pidfile::create(path, pid)).transpose()?;
        if let Some(old) = std::mem::replace(&mut self.0, created) {
            old.unlink();
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self) {
        if let Some(pidfile) = self.0.take() {
            pidfile.unlink();
        }
    }
}

/// # Errors
/// The file could not be written whole; then there is no temporary file either.
fn write_and_rename(path: &Path, pid: i32) -> io::Result<Option<fs::File>> {
    let temporary = temporary_name(path);
    // A file that exists, and a link, are refused: O_EXCL follows none.
    let file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&temporary)?;
    let written = write_and_lock(file, pid).and_then(|lock| {
        fs::rename(&temporary, path)?;
        Ok(lock)
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_and_lock(mut file: fs::File, pid: i32) -> io::Result<Option<fs::File>> {
    writeln!(file, "{pid}")?;
    fork_guard::register(&file);
    let is_locked = fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).is_ok();
    // Only now can others open it, and take a lock for readers.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    Ok(is_locked.then_some(file))
}

/// A lock of this kind on all of a file, whatever its length.
fn whole_file(kind: libc::c_int) -> libc::flock {
    // The constants are small, and each is declared wider than the field it is for.
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Whether a process holds a write lock on it. Readers do not keep each other out.
fn has_writer(file: &fs::File) -> bool {
    let mut lock = whole_file(libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok()
        && lock.l_type != libc::F_UNLCK as libc::c_short
}

/// Beside `path`, with 64 random bits: the standard library's hash keys are seeded by the system.
fn temporary_name(path: &Path) -> PathBuf {
    let random = RandomState::new().hash_one(std::process::id());
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{random:016x}"));
    path.with_file_name(name)
}

/// Opens a file that is there for reading, without following a link or waiting for a pipe's writer.
fn open_existing(path: &Path) -> io::Result<fs::File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    fs::File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

fn recorded_pid(path: &Path) -> Option<i32> {
    let mut text = String::new();
    let file = open_existing(path).ok()?;
    file.take(PIDFILE_BYTES_MAX)
        .read_to_string(&mut text)
        .ok()?;
    let pid = text.trim().parse().ok()?;
    (pid > 0).then_some(pid)
}

fn is_owned_by(path: &Path, pid: i32) -> bool {
    let is_locked = open_existing(path).is_ok_and(|file| has_writer(&file));
    let runs = || matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM));
    is_locked || (runs() && has_written(path, pid).unwrap_or(true))
}

/// Whether the process is at least as old as the file.
fn has_written(path: &Path, pid: i32) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if fields.next() == Some("Z") {
        // Dead, and its parent has not asked how.
        return Some(false);
    }
    // Field 22 of proc(5), in hundredths of a second since the machine's start.
    let ticks: u64 = fields.nth(18)?.parse().ok()?;
    let started = Duration::from_millis(ticks * (1000 / TICKS_PER_S));
    let now = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    let age_of_file = fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()?;
    Some(now.saturating_sub(started) + GRAIN >= age_of_file)
}

/// `USER_HZ`, which is the same on every Linux that we can run on.
const TICKS_PER_S: u64 = 100;
/// Both ages are that exact.
const GRAIN: Duration = Duration::from_millis(50);
/// A number and its line end are shorter.
const PIDFILE_BYTES_MAX: u64 = 64;

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
    fn a_reused_number_is_stale() {
        let path = path_of("reused");
        fs::write(&path, "1\n").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        drop(file);
        let first = Pidfile::create(&path, 1).unwrap();
        // While its owner lives no other process gets it, whatever number it holds.
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(std::time::UNIX_EPOCH)
            .unwrap();
        assert!(Pidfile::create(&path, 4242).is_err());
        drop(first);
        assert!(Pidfile::create(&path, 4242).is_ok());
    }

    #[test]
    fn who_may_only_read_it_does_not_own_it() {
        let path = path_of("read");
        fs::write(&path, "2147483647\n").unwrap();
        let reader = fs::File::open(&path).unwrap();
        let _held = nix::fcntl::Flock::lock(reader, nix::fcntl::FlockArg::LockExclusive).unwrap();
        let other = fs::File::open(&path).unwrap();
        fcntl(&other, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK))).unwrap();
        assert!(fcntl(&other, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))).is_err());
        assert!(!is_owned_by(&path, 2_147_483_647));
        assert!(Pidfile::create(&path, 4242).is_ok());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Pidfile::create(Path::new("/nonexistent/x.pid"), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nonexistent doesn't exist. Can't create pidfile."
        );
    }

    #[test]
    fn neither_the_file_nor_its_temporary_name_follows_a_link() {
        let path = path_of("linked");
        let victim = path_of("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let names = [(); 2].map(|()| temporary_name(&path));
        assert_ne!(names[0], names[1], "not to be guessed");
        let pidfile = Pidfile::create(&path, 4242).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(!path.is_symlink());
        pidfile.unlink();
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("in-the-way");
        // A directory with something in it cannot be replaced by a file.
        fs::create_dir_all(path.join("full")).unwrap();
        assert!(Pidfile::create(&path, 4242).is_err());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_in_its_place_is_not_waited_for() {
        let path = path_of("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(recorded_pid(&path), None);
    }
}
