//! [`WriteMode`]: how a log's descriptor takes bytes without making the writer wait.
//!
//! `O_NONBLOCK` cannot be set on a standard stream: it belongs to the open file, which other processes share. So a pipe
//! is written to with `RWF_NOWAIT` (Linux 6.4), which holds for one call, and where that is not to be had through an
//! open file of our own on the same pipe or terminal. What is left may wait: a file on a network file system, and a
//! pipe or terminal of another user on an old kernel.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{isatty, write};

/// See the module.
#[derive(Debug)]
pub(super) enum WriteMode {
    /// A file on a local disk, or a device such as `/dev/null`: written at once, whatever the length.
    Plain,
    /// `O_NONBLOCK` is set on an open file that only this server uses.
    NonBlocking,
    Socket,
    /// A pipe, with `RWF_NOWAIT`.
    NoWait,
    /// A pipe or terminal, through an open file of our own.
    Own(OwnedFd),
    /// A file on a network file system, which may hang.
    Remote,
    /// A pipe or terminal that can only be written to as it is.
    MayWait,
}

impl WriteMode {
    /// How `fd` is written to.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Self {
        let Ok(stat) = fstat(fd) else {
            return Self::Plain;
        };
        if is_nonblocking(fd) {
            return Self::NonBlocking;
        }
        match kind(&stat) {
            SFlag::S_IFREG if is_local(fd) => Self::Plain,
            SFlag::S_IFREG => Self::Remote,
            SFlag::S_IFSOCK => Self::Socket,
            SFlag::S_IFIFO if cfg!(target_os = "linux") => Self::NoWait,
            SFlag::S_IFIFO => Self::without_nowait(fd),
            SFlag::S_IFCHR if isatty(fd) == Ok(true) => Self::without_nowait(fd),
            _ => Self::Plain,
        }
    }

    /// As `of`, for a pipe or terminal where `RWF_NOWAIT` is not to be had.
    fn without_nowait(fd: BorrowedFd<'_>) -> Self {
        // `O_NOCTTY`: the terminal must not become this process's.
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        match open(&path, flags, Mode::empty()) {
            Ok(own) if identity(own.as_fd()) == identity(fd) => Self::Own(own),
            _ => Self::MayWait,
        }
    }

    /// The most that is written in one piece. A pipe keeps apart the lines of several processes when a write is no longer
    /// than this (`pipe(7)`).
    pub(super) fn piece_bytes_max(&self) -> usize {
        match self {
            Self::Plain | Self::Remote => usize::MAX,
            Self::NonBlocking | Self::Socket | Self::NoWait | Self::Own(_) | Self::MayWait => {
                PIPE_BUF
            }
        }
    }

    /// Writes what is taken at once; `EAGAIN` when nothing is.
    pub(super) fn put(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Plain | Self::Remote | Self::NonBlocking => write(fd, bytes),
            Self::Socket => {
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                send(fd.as_raw_fd(), bytes, flags)
            }
            Self::Own(own) => write(own, bytes),
            Self::NoWait => match put_nowait(fd, bytes) {
                // The kernel is too old, forbids it, or has it for pipes and not for FIFOs.
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => {
                    *self = Self::without_nowait(fd);
                    self.put(fd, bytes)
                }
                result => result,
            },
            Self::MayWait => {
                // Another writer may be faster than this one, and then it waits: a process that cannot have a thread can
                // do no better.
                let mut ready = [PollFd::new(fd, PollFlags::POLLOUT)];
                match poll(&mut ready, PollTimeout::ZERO) {
                    Ok(0) => Err(Errno::EAGAIN),
                    _ => write(fd, bytes),
                }
            }
        }
    }

    /// On a file system whose every call may hang.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::Remote)
    }

    /// Only a thread can write here without anybody else waiting.
    pub(super) fn may_wait(&self) -> bool {
        matches!(self, Self::Remote | Self::MayWait)
    }
}

#[cfg(target_os = "linux")]
fn put_nowait(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    use rustix::io::{ReadWriteFlags, pwritev2};
    // The offset -1 stands for the current one, which is all that a pipe has.
    let put = pwritev2(
        fd,
        &[std::io::IoSlice::new(bytes)],
        u64::MAX,
        ReadWriteFlags::NOWAIT,
    );
    put.map_err(|error| Errno::from_raw(error.raw_os_error()))
}

#[cfg(not(target_os = "linux"))]
fn put_nowait(_: BorrowedFd<'_>, _: &[u8]) -> Result<usize, Errno> {
    Err(Errno::EOPNOTSUPP)
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Device and inode.
pub(super) fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the fields' types are the system's"
    )]
    fstat(fd)
        .ok()
        .map(|stat| (stat.st_dev as u64, stat.st_ino as u64))
}

fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    fcntl(fd, FcntlArg::F_GETFL)
        .is_ok_and(|flags| OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK))
}

/// Whether the file is on a disk of this machine. One that is not known to be is taken for a network's.
#[cfg(target_os = "linux")]
fn is_local(fd: BorrowedFd<'_>) -> bool {
    // Of `linux/magic.h` and the file systems' own headers.
    const LOCAL: [i64; 14] = [
        0xef53,      // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0x2fc1_2fc1, // zfs
        0xf2f5_2010, // f2fs
        0xca45_1a4e, // bcachefs
        0x794c_7630, // overlayfs
        0x6175_6673, // aufs
        0x0102_1994, // tmpfs
        0x8584_58f6, // ramfs
        0x3153_464a, // jfs
        0x5265_4973, // reiserfs
        0x4d44,      // fat
        0x9fa0,      // proc
    ];
    nix::sys::statfs::fstatfs(fd).is_ok_and(|stat| {
        #[allow(clippy::unnecessary_cast, reason = "the type is the system's")]
        let magic = stat.filesystem_type().0 as i64;
        LOCAL.contains(&(magic & 0xffff_ffff))
    })
}

/// Other systems have no numbers to tell.
#[cfg(not(target_os = "linux"))]
fn is_local(_: BorrowedFd<'_>) -> bool {
    true
}

const PIPE_BUF: usize = 4096;
