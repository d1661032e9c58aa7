//! Where log lines go: a file opened for appending, or one of our own standard streams.
//!
//! Invariants:
//! - Lines are written whole. A regular file takes any number of them with one `write`, and appending keeps those of
//!   several processes apart. A pipe keeps apart only what is at most `PIPE_BUF` long, so it gets that much at a time.
//! - No write waits: see `outlet.rs`.
//! - A file's descriptor keeps its number for life: opening the file anew replaces what is behind it. The standard
//!   streams and the interpreter's fault handler, which hold the number, go on to write to the log.
//! - A file that was renamed or removed is opened anew: on USR1, and by itself when that is noticed, which is looked
//!   for once a second at most. A file that was truncated needs nothing, because lines are appended.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::{dup2_stderr, dup2_stdout, dup3};

use super::open::open_for_appending;
pub use super::open::{FileOptions, LogError};
use super::outlet::Outlet;
use super::write_mode::identity;

/// A standard stream of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Output,
    Error,
}

/// See the module.
#[derive(Debug)]
pub struct Destination {
    target: Target,
    outlet: Outlet,
    /// Device and inode of what is written to.
    identity: Option<(u64, u64)>,
    looked: Instant,
    /// That it cannot be opened anew was said.
    has_complained: bool,
}

#[derive(Debug)]
enum Target {
    Standard(Standard),
    File(LogFile),
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    fd: OwnedFd,
    options: FileOptions,
}

impl Destination {
    /// `-` means `standard`; everything else is a path.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(name: &str, standard: Standard, options: FileOptions) -> Result<Self, LogError> {
        if name == "-" {
            return Ok(Self::standard(standard));
        }
        // Not relative: the server may change its directory.
        let path = std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name));
        let fd = open_for_appending(&path, options)?;
        let file = LogFile { path, fd, options };
        file.capture();
        Ok(Self::to(Target::File(file)))
    }

    /// One of our streams.
    pub fn standard(standard: Standard) -> Self {
        Self::to(Target::Standard(standard))
    }

    fn to(target: Target) -> Self {
        let outlet = target.with_fd(Outlet::of);
        let identity = target.with_fd(identity);
        Self {
            target,
            outlet,
            identity,
            looked: Instant::now(),
            has_complained: false,
        }
    }

    /// Replaces `before`, of the settings until now.
    pub(super) fn succeed(&mut self, mut before: Self) {
        before.flush();
        let is_same_file = before.identity == self.identity;
        self.outlet.succeed(before.outlet, is_same_file);
    }

    /// Writes finished lines, with one system call when the descriptor takes them at once. What it does not take waits.
    pub fn write(&mut self, lines: &[u8]) {
        let outlet = &mut self.outlet;
        self.target.with_fd(|fd| outlet.write(fd, lines));
    }

    /// How many lines were dropped, once lines flow again.
    pub(super) fn take_dropped(&mut self) -> Option<u64> {
        self.outlet.take_dropped()
    }

    /// How many lines were ever dropped.
    pub(super) fn dropped_total(&self) -> u64 {
        self.outlet.dropped_total()
    }

    /// This process was forked: what its parent has kept and dropped is the parent's.
    pub(super) fn forked(&mut self) {
        self.outlet.forked();
    }

    /// Lets a thread write where a write may wait. To be called in a process that will not fork.
    pub(super) fn allow_thread(&mut self) {
        self.outlet.allow_thread();
    }

    /// Gives what was not taken yet until `until`.
    pub(super) fn close(&mut self, until: Instant) {
        let outlet = &mut self.outlet;
        self.target.with_fd(|fd| outlet.close(fd, until));
    }

    /// Opens the path anew.
    ///
    /// # Errors
    /// When that fails: then the open file stays in use.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        if let Target::File(file) = &mut self.target {
            file.reopen()?;
            let path = file.path.clone();
            self.retarget()
                .map_err(|reason| LogError::NotWritable { path, reason })?;
            self.has_complained = false;
        }
        Ok(())
    }

    /// Looks after what waits for no line, once a second at most: opens the path anew if it names another file by now, or
    /// none; sees whether a standard stream is another one by now.
    ///
    /// # Errors
    /// When the path cannot be opened: then the open file stays in use, and nothing is said about it again.
    pub fn follow(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        // Where a write may hang, a look may hang too: such a file is opened anew by the signal alone.
        if now.saturating_duration_since(self.looked) < LOOK_PERIOD || self.outlet.is_remote() {
            return Ok(());
        }
        self.looked = now;
        let Target::File(file) = &self.target else {
            if self.target.with_fd(identity) != self.identity {
                // Without a thread this cannot fail, and with one the old stream stays in use.
                let _ = self.retarget();
            }
            return Ok(());
        };
        let is_there = std::fs::metadata(&file.path)
            .is_ok_and(|metadata| Some((metadata.dev(), metadata.ino())) == self.identity);
        if is_there {
            return Ok(());
        }
        match self.reopen() {
            Err(_) if self.has_complained => Ok(()),
            Err(error) => {
                self.has_complained = true;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Writes what waits, as far as it is taken now.
    pub(super) fn flush(&mut self) {
        let outlet = &mut self.outlet;
        self.target.with_fd(|fd| outlet.flush(fd));
    }

    /// Standard output and error go to the file, if it was opened for that. To be called when they were changed.
    pub fn capture(&mut self) {
        match &self.target {
            Target::File(file) => file.capture(),
            // As in `follow`.
            Target::Standard(_) => drop(self.retarget()),
        }
    }

    /// A number under which the log can be written to for as long as it is open.
    pub fn raw_fd(&self) -> RawFd {
        self.target.with_fd(|fd| fd.as_raw_fd())
    }

    /// Something else is behind the descriptor now.
    fn retarget(&mut self) -> io::Result<()> {
        self.identity = self.target.with_fd(identity);
        let outlet = &mut self.outlet;
        self.target.with_fd(|fd| outlet.retarget(fd))
    }
}

impl Target {
    fn with_fd<T>(&self, act: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match self {
            Self::File(file) => act(file.fd.as_fd()),
            Self::Standard(Standard::Output) => act(io::stdout().as_fd()),
            Self::Standard(Standard::Error) => act(io::stderr().as_fd()),
        }
    }
}

impl LogFile {
    fn reopen(&mut self) -> Result<(), LogError> {
        let fd = open_for_appending(&self.path, self.options)?;
        dup3(&fd, &mut self.fd, OFlag::O_CLOEXEC).map_err(|errno| LogError::NotWritable {
            path: self.path.clone(),
            reason: errno.into(),
        })?;
        self.capture();
        Ok(())
    }

    fn capture(&self) {
        if self.options.captures {
            // Both numbers are valid, and nothing else can fail.
            let _ = dup2_stdout(&self.fd);
            let _ = dup2_stderr(&self.fd);
        }
    }
}

/// Between two looks whether a file was rotated.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::Path;

    use super::*;

    fn log_path(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("ferricorn-log-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    fn open(path: &Path) -> Destination {
        let options = FileOptions::default();
        Destination::open(path.to_str().unwrap(), Standard::Error, options).unwrap()
    }

    /// As if a second had passed.
    fn later(destination: &mut Destination) {
        destination.looked -= LOOK_PERIOD;
    }

    #[test]
    fn reopen_follows_the_name_and_survives_failure() {
        let path = log_path("rotate");
        let mut destination = open(&path);
        let number = destination.raw_fd();
        destination.write(b"one\n");
        fs::rename(&path, log_path("rotate.1")).unwrap();
        destination.write(b"two\n");
        destination.reopen().unwrap();
        destination.write(b"three\n");
        assert_eq!(fs::read(log_path("rotate.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        assert_eq!(destination.raw_fd(), number);

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(destination.reopen().is_err());
        destination.write(b"still open\n");
    }

    #[test]
    fn a_rotated_file_is_followed_once_a_second_at_most() {
        let path = log_path("followed");
        let mut destination = open(&path);
        fs::rename(&path, log_path("followed.1")).unwrap();
        destination.follow().unwrap();
        assert!(!path.exists());
        later(&mut destination);
        destination.follow().unwrap();
        destination.write(b"new\n");
        assert_eq!(fs::read(&path).unwrap(), b"new\n");

        // Another file under the name, as logrotate makes it.
        fs::rename(&path, log_path("followed.2")).unwrap();
        fs::write(&path, b"").unwrap();
        later(&mut destination);
        destination.follow().unwrap();
        destination.write(b"newer\n");
        assert_eq!(fs::read(&path).unwrap(), b"newer\n");

        // Truncated in place: the next line is the first.
        fs::File::create(&path).unwrap();
        destination.write(b"newest\n");
        assert_eq!(fs::read(&path).unwrap(), b"newest\n");
    }

    #[test]
    fn a_file_that_cannot_be_followed_is_complained_of_once() {
        let path = log_path("gone/log");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut destination = open(&path);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        later(&mut destination);
        assert!(destination.follow().is_err());
        later(&mut destination);
        assert!(destination.follow().is_ok());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        later(&mut destination);
        destination.follow().unwrap();
        destination.write(b"back\n");
        assert_eq!(fs::read(&path).unwrap(), b"back\n");
    }

    #[test]
    fn an_unwritable_file_is_one_line() {
        let open = |name| Destination::open(name, Standard::Error, FileOptions::default());
        assert_eq!(
            open("/nonexistent/log").unwrap_err().to_string(),
            "Error: '/nonexistent/log' isn't writable [FileNotFoundError(2, 'No such file or directory')]"
        );
        let error = open("/").unwrap_err().to_string();
        assert!(error.contains("[IsADirectoryError(21, "), "{error}");
    }
}
