//! Opens log files, also for a master that is root in a directory where others may write.
//!
//! A user who may change a directory can put a link to any file under a log's name. So root goes from directory to
//! directory. It follows a symbolic link where only root can have put it, and one of the workers' user if that leads to
//! what is that user's anyway. In a directory that others may change it takes a file that is root's or the workers' and
//! has no second name. It gives away only a file that it has made. What the system shows as files (`/proc`) it takes from
//! the operator alone: there an open descriptor of root's is a privilege. Every step starts from an open directory, so
//! nothing can be exchanged between a check and its use.

mod own_stream;
mod system;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchown, geteuid};

/// A log's file could not be opened; worded as gunicorn words it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("Error: '{}' isn't writable [{}]", path.display(), exception(reason))]
    NotWritable { path: PathBuf, reason: io::Error },
    #[error("Error: '{}' isn't opened as root: {reason}", path.display())]
    NotTrusted { path: PathBuf, reason: Distrust },
}

/// Why root does not write to a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("'{}' is a symbolic link in a directory to which users other than root may write", .0.display())]
    Link(PathBuf),
    #[error("users other than root may write to its directory, and it belongs to user {0}")]
    Owner(u32),
    #[error("a symbolic link of the workers' user leads to a file of user {0}")]
    Target(u32),
    #[error("a symbolic link of the workers' user leads to a directory that is not that user's")]
    Directory,
    #[error("users other than root may write to its directory, and it is a hard link")]
    HardLink,
    #[error(
        "users other than root may write to its directory, and it is neither a file nor a FIFO"
    )]
    Kind,
    #[error("a symbolic link of the workers' user leads into a file system of the kernel")]
    System,
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

/// What a log file is opened for.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileOptions {
    /// The workers' user and group: a file that is made here is given to them, so that they may open it anew.
    pub owner: Option<(u32, u32)>,
    /// Standard output and error go there too (`capture_output`).
    pub captures: bool,
}

/// Opens a file for appending, and makes it if it is not there. Neither this nor writing to a FIFO without a reader waits.
///
/// # Errors
/// When the file cannot be opened, or root does not trust it.
pub(super) fn open_for_appending(path: &Path, options: FileOptions) -> Result<OwnedFd, LogError> {
    let opened = match geteuid().is_root() {
        true => Walk::new(path, options.owner).and_then(Walk::open),
        false => open_file(AT_FDCWD, path.as_os_str(), OFlag::O_CREAT).map_err(Failure::from),
    };
    if let Err(Failure::Errno(Errno::ENXIO)) = &opened
        && let Some(stream) = own_stream::duplicate(path)
    {
        return Ok(stream);
    }
    let path = || path.to_owned();
    let fd = opened.map_err(|failure| match failure {
        Failure::Errno(errno) => LogError::NotWritable {
            path: path(),
            reason: errno.into(),
        },
        Failure::Distrust(reason) => LogError::NotTrusted {
            path: path(),
            reason,
        },
    })?;
    let is_fifo = fstat(&fd).is_ok_and(|stat| kind(&stat) == SFlag::S_IFIFO);
    if !is_fifo || options.captures {
        // What the application prints to must be a stream as it expects it.
        set_blocking(&fd);
    }
    Ok(fd)
}

enum Failure {
    Errno(Errno),
    Distrust(Distrust),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Distrust> for Failure {
    fn from(distrust: Distrust) -> Self {
        Self::Distrust(distrust)
    }
}

/// Who can put what into a directory, and into those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Only root changes it.
    Closed,
    /// Others put entries into it, and cannot replace those of root (`/tmp`).
    Sticky,
    /// Others may change it, or have put it here.
    Open,
    /// A link of the workers' user led here: only what is that user's is taken.
    Workers,
}

impl Trust {
    /// Of a directory in one of trust `above`.
    fn of(directory: &OwnedFd, above: Self) -> Result<Self, Errno> {
        // Only the system makes entries there.
        if system::is_proc(directory) {
            return Ok(above);
        }
        let stat = fstat(directory)?;
        let mode = Mode::from_bits_truncate(stat.st_mode);
        let by_group =
            mode.contains(Mode::S_IWGRP) && (stat.st_gid != 0 || system::has_acl(directory));
        let by_others = by_group || mode.contains(Mode::S_IWOTH);
        Ok(if matches!(above, Self::Open | Self::Workers) {
            above
        } else if stat.st_uid != 0 {
            Self::Open
        } else if !by_others {
            Self::Closed
        } else if mode.contains(Mode::S_ISVTX) {
            Self::Sticky
        } else {
            Self::Open
        })
    }
}

/// The way of root to a file.
struct Walk {
    directory: OwnedFd,
    trust: Trust,
    /// Where `directory` is, for messages.
    place: PathBuf,
    left: VecDeque<OsString>,
    steps: usize,
    /// The workers' user and group.
    owner: Option<(u32, u32)>,
}

impl Walk {
    fn new(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, Failure> {
        let root = openat(AT_FDCWD, "/", DIRECTORY, Mode::empty())?;
        let trust = Trust::of(&root, Trust::Closed)?;
        let mut walk = Self {
            directory: root,
            trust,
            place: PathBuf::from("/"),
            left: VecDeque::new(),
            steps: 0,
            owner,
        };
        walk.insert(path);
        Ok(walk)
    }

    /// What the path names comes before what is left.
    fn insert(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push_front(name.to_owned()),
                Component::ParentDir => self.left.push_front(OsString::from("..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn open(mut self) -> Result<OwnedFd, Failure> {
        loop {
            let name = self.next()?;
            let is_last = self.left.is_empty();
            if self.trust != Trust::Closed && system::is_kernels(&self.directory) {
                return Err(Distrust::System.into());
            }
            if is_last && system::is_proc(&self.directory) {
                // `/proc/self/fd/1` and its like are no texts to follow: the system knows what is behind them.
                return Ok(open_file(&self.directory, &name, OFlag::empty())?);
            }
            let stat = fstatat(&self.directory, &*name, AtFlags::AT_SYMLINK_NOFOLLOW);
            let opened = match stat {
                Ok(stat) if kind(&stat) == SFlag::S_IFLNK => {
                    self.follow(&name, &stat)?;
                    continue;
                }
                Ok(_) if !is_last => {
                    self.enter(&name)?;
                    continue;
                }
                Ok(stat) => self.open_existing(&name, &stat),
                Err(Errno::ENOENT) if is_last => self.create(&name),
                Err(errno) => return Err(errno.into()),
            };
            match opened {
                // It has gone, or has come, since it was looked for.
                Err(Failure::Errno(Errno::ENOENT | Errno::EEXIST)) => self.left.push_front(name),
                opened => return opened,
            }
        }
    }

    /// Links in a circle, or files that are exchanged all the time, do not keep the server busy for ever.
    fn next(&mut self) -> Result<OsString, Failure> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Errno::ELOOP.into());
        }
        Ok(self.left.pop_front().ok_or(Errno::EISDIR)?)
    }

    fn enter(&mut self, name: &OsStr) -> Result<(), Failure> {
        let directory = openat(&self.directory, name, DIRECTORY, Mode::empty())?;
        self.trust = Trust::of(&directory, self.trust)?;
        self.directory = directory;
        self.place.push(name);
        Ok(())
    }

    fn follow(&mut self, name: &OsStr, link: &FileStat) -> Result<(), Failure> {
        let target = PathBuf::from(readlinkat(&self.directory, name)?);
        if self.trust != Trust::Closed {
            // Exchanged since it was looked at or not: from here on only what is the workers' user's is taken.
            if !self.is_workers(link) || link.st_nlink != 1 {
                return Err(Distrust::Link(self.place.join(name)).into());
            }
            self.trust = Trust::Workers;
        }
        if target.is_absolute() {
            self.directory = openat(AT_FDCWD, "/", DIRECTORY, Mode::empty())?;
            self.trust = Trust::of(&self.directory, self.trust)?;
            self.place = PathBuf::from("/");
        }
        self.insert(&target);
        Ok(())
    }

    fn open_existing(&self, name: &OsStr, found: &FileStat) -> Result<OwnedFd, Failure> {
        // To open some files is to act: a watchdog starts, a reader of a FIFO is told of a writer.
        self.check(found)?;
        let fd = open_file(&self.directory, name, OFlag::O_NOFOLLOW)?;
        // Exchanged since it was looked at or not.
        self.check(&fstat(&fd)?)?;
        Ok(fd)
    }

    /// Whether a file that is there is written to.
    fn check(&self, stat: &FileStat) -> Result<(), Distrust> {
        let is_roots = stat.st_uid == 0 && self.trust != Trust::Workers;
        if self.trust == Trust::Closed {
            Ok(())
        } else if !matches!(kind(stat), SFlag::S_IFREG | SFlag::S_IFIFO) {
            Err(Distrust::Kind)
        } else if !is_roots && !self.is_workers(stat) {
            Err(match self.trust {
                Trust::Workers => Distrust::Target(stat.st_uid),
                Trust::Closed | Trust::Sticky | Trust::Open => Distrust::Owner(stat.st_uid),
            })
        } else if stat.st_nlink != 1 {
            Err(Distrust::HardLink)
        } else {
            Ok(())
        }
    }

    fn create(&self, name: &OsStr) -> Result<OwnedFd, Failure> {
        if self.trust == Trust::Workers && !self.is_workers(&fstat(&self.directory)?) {
            return Err(Distrust::Directory.into());
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let fd = open_file(&self.directory, name, flags)?;
        if let Some((user, group)) = self.owner {
            // Workers that cannot open it anew keep it as it is.
            let _ = fchown(&fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        }
        Ok(fd)
    }

    fn is_workers(&self, stat: &FileStat) -> bool {
        self.owner.is_some_and(|(user, _)| user == stat.st_uid)
    }
}

/// One step: no directory of `name` is looked at here, unless the caller is not root.
fn open_file(directory: impl AsFd, name: &OsStr, more: OFlag) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_APPEND | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
    let mode = Mode::from_bits_truncate(0o666);
    match openat(&directory, name, flags | OFlag::O_WRONLY, mode) {
        // A FIFO that nobody reads. Open for both it takes lines all the same, and readers may come and go.
        Err(Errno::ENXIO) => openat(&directory, name, flags | OFlag::O_RDWR, mode),
        opened => opened,
    }
}

fn set_blocking(fd: &OwnedFd) {
    if let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) {
        let flags = OFlag::from_bits_truncate(flags) & !OFlag::O_NONBLOCK;
        let _ = fcntl(fd, FcntlArg::F_SETFL(flags));
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

#[cfg(target_os = "linux")]
const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
/// As many names and links as a path has at most.
const STEPS_MAX: usize = 256;

#[cfg(test)]
mod tests;
