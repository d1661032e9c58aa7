//! Where log lines go: a file opened for appending, or one of our own standard streams.
//!
//! Invariants:
//! - Lines are written whole. A regular file takes any number of them with one `write`, and appending keeps those of
//!   several processes apart. A pipe keeps apart only what is at most `PIPE_BUF` long, so it gets that much at a time.
//! - A file's descriptor keeps its number for life: opening the file anew replaces what is behind it. Whoever else
//!   holds the number (the standard streams, the interpreter's fault handler) goes on to write to the log.
//! - A file that was renamed or removed is opened anew: on USR1, and by itself when that is noticed, which is looked
//!   for once a second at most. A file that was truncated needs nothing, because lines are appended.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdout, dup3, fchown};

/// A log's destination could not be opened; worded as gunicorn words it.
#[derive(Debug, thiserror::Error)]
#[error("Error: '{}' isn't writable [{}]", path.display(), exception(reason))]
pub struct LogError {
    path: PathBuf,
    reason: io::Error,
}

/// The exception that Python would show.
fn exception(reason: &io::Error) -> String {
    let errno = Errno::from_raw(reason.raw_os_error().unwrap_or(0));
    let class = match errno {
        Errno::ENOENT => "FileNotFoundError",
        Errno::EACCES | Errno::EPERM => "PermissionError",
        Errno::EISDIR => "IsADirectoryError",
        Errno::ENOTDIR => "NotADirectoryError",
        _ => "OSError",
    };
    format!("{class}({}, '{}')", errno as i32, errno.desc())
}

/// A stream of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standard {
    Output,
    Error,
}

/// What a log file is opened for.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOptions {
    /// To whom the file is given, so that workers may open it anew.
    pub owner: Option<(u32, u32)>,
    /// Standard output and error go there too (`capture_output`).
    pub captures: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Destination {
    target: Target,
    /// Whether one write may be longer than `PIPE_BUF`.
    takes_much: bool,
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
    /// Device and inode.
    identity: (u64, u64),
    looked: Instant,
    /// That it cannot be opened anew was said.
    has_complained: bool,
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
        let (fd, identity) = open_for_appending(&path, options)?;
        let takes_much = is_regular(&fd);
        let file = LogFile {
            path,
            fd,
            options,
            identity,
            looked: Instant::now(),
            has_complained: false,
        };
        file.capture();
        Ok(Self {
            target: Target::File(file),
            takes_much,
        })
    }

    /// One of our streams.
    pub fn standard(standard: Standard) -> Self {
        Self {
            takes_much: match standard {
                Standard::Output => is_regular(io::stdout()),
                Standard::Error => is_regular(io::stderr()),
            },
            target: Target::Standard(standard),
        }
    }

    /// Writes finished lines, with one system call when the descriptor takes them at once.
    pub fn write(&self, lines: &[u8]) {
        // A full disk or a closed pipe must not stop the server.
        let _ = match (&self.target, self.takes_much) {
            (Target::File(file), true) => write_all(&file.fd, lines),
            (Target::File(file), false) => write_lines(&file.fd, lines),
            (Target::Standard(Standard::Output), true) => write_all(io::stdout(), lines),
            (Target::Standard(Standard::Output), false) => write_lines(io::stdout(), lines),
            (Target::Standard(Standard::Error), true) => write_all(io::stderr(), lines),
            (Target::Standard(Standard::Error), false) => write_lines(io::stderr(), lines),
        };
    }

    /// Opens the path anew.
    ///
    /// # Errors
    /// When that fails: then the open file stays in use.
    pub fn reopen(&mut self) -> Result<(), LogError> {
        match &mut self.target {
            Target::File(file) => file.reopen(),
            Target::Standard(_) => Ok(()),
        }
    }

    /// Opens the path anew if it names another file by now, or none. Looks once a second at most.
    ///
    /// # Errors
    /// When it cannot be opened: then the open file stays in use, and nothing is said about it again.
    pub fn follow(&mut self) -> Result<(), LogError> {
        let Target::File(file) = &mut self.target else {
            return Ok(());
        };
        let now = Instant::now();
        if now.saturating_duration_since(file.looked) < LOOK_PERIOD {
            return Ok(());
        }
        file.looked = now;
        let is_there = std::fs::metadata(&file.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == file.identity);
        if is_there {
            return Ok(());
        }
        match file.reopen() {
            Err(_) if file.has_complained => Ok(()),
            Err(error) => {
                file.has_complained = true;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Standard output and error go to the file, if it was opened for that. To be called when they were changed.
    pub fn capture(&self) {
        if let Target::File(file) = &self.target {
            file.capture();
        }
    }

    /// A number under which the log can be written to for as long as it is open.
    pub fn raw_fd(&self) -> RawFd {
        match &self.target {
            Target::File(file) => file.fd.as_raw_fd(),
            Target::Standard(Standard::Output) => io::stdout().as_raw_fd(),
            Target::Standard(Standard::Error) => io::stderr().as_raw_fd(),
        }
    }
}

impl LogFile {
    fn reopen(&mut self) -> Result<(), LogError> {
        let (fd, identity) = open_for_appending(&self.path, self.options)?;
        dup3(&fd, &mut self.fd, OFlag::O_CLOEXEC).map_err(|errno| LogError {
            path: self.path.clone(),
            reason: errno.into(),
        })?;
        self.identity = identity;
        self.has_complained = false;
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

/// The standard library's streams buffer or split at newlines; a plain write to their descriptor does not.
fn write_all(fd: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let fd = fd.as_fd();
    let mut rest = bytes;
    while !rest.is_empty() {
        match nix::unistd::write(fd, rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// As many lines at a time as a pipe takes in one piece. A line that is longer goes alone.
fn write_lines(fd: impl AsFd, lines: &[u8]) -> io::Result<()> {
    let fd: BorrowedFd<'_> = fd.as_fd();
    let mut rest = lines;
    while !rest.is_empty() {
        let newline = |byte: &u8| *byte == b'\n';
        let within = &rest[..rest.len().min(PIPE_BUF)];
        let length = match within.iter().rposition(newline) {
            _ if rest.len() <= PIPE_BUF => rest.len(),
            Some(last) => last + 1,
            None => rest
                .iter()
                .position(newline)
                .map_or(rest.len(), |end| end + 1),
        };
        let (piece, behind) = rest.split_at(length);
        write_all(fd, piece)?;
        rest = behind;
    }
    Ok(())
}

fn is_regular(fd: impl AsFd) -> bool {
    fstat(fd)
        .is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG)
}

fn open_for_appending(
    path: &Path,
    options: FileOptions,
) -> Result<(OwnedFd, (u64, u64)), LogError> {
    let failed = |reason| LogError {
        path: path.to_owned(),
        reason,
    };
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o666)
        .open(path)
        .map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if let Some((user, group)) = options.owner
        && metadata.is_file()
        && (metadata.uid(), metadata.gid()) != (user, group)
    {
        // Only root may; whoever else starts a server need not change the owner either.
        let _ = fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
    }
    Ok((file.into(), (metadata.dev(), metadata.ino())))
}

/// So often it is looked whether a file was rotated.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// A pipe takes so much in one piece (`pipe(7)`).
const PIPE_BUF: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;

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
        if let Target::File(file) = &mut destination.target {
            file.looked -= LOOK_PERIOD;
        }
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
    fn a_pipe_gets_whole_lines() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let line = [&[b'x'; 1500][..], b"\n"].concat();
        let long = [&[b'y'; 5000][..], b"\n"].concat();
        let lines = [&line[..], &line, &line, &long, &line].concat();
        write_lines(&writer, &lines).unwrap();
        drop(writer);
        let mut written = Vec::new();
        io::Read::read_to_end(&mut fs::File::from(reader), &mut written).unwrap();
        assert_eq!(written, lines);
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
