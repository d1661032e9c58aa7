//! The file of a unix socket: given to its user without following a link, and removed only while it is still the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat, getegid, geteuid};

/// A socket file that this server has made, by device and inode: another process may put its own in its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file that is at `path` now.
    ///
    /// # Errors
    /// There is none, or it is no socket.
    pub fn at(path: &Path) -> io::Result<Self> {
        // Later the working directory may be another.
        let path = std::path::absolute(path)?;
        let found = std::fs::symlink_metadata(&path)?;
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Self {
            path,
            device: found.dev(),
            inode: found.ino(),
        })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, if it is still this one.
    pub fn unlink(&self) {
        let found = std::fs::symlink_metadata(&self.path);
        let is_same = found.is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if is_same && let Err(error) = std::fs::remove_file(&self.path) {
            log::debug!("socket {} not removed: {error}", self.path.display());
        }
    }
}

/// Gives the socket file that was just bound at `path` to `user` and `group`. A user who may write to its directory may
/// have put another file in its place: only a socket is given away that belongs to this user and has no other name.
pub(super) fn give_to(path: &Path, user: u32, group: u32) -> io::Result<()> {
    if (user, group) == (geteuid().as_raw(), getegid().as_raw()) {
        return Ok(());
    }
    // The standard library's `custom_flags` drops O_PATH with musl, whose O_ACCMODE contains it.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    let is_own = found.file_type().is_socket() && found.uid() == geteuid().as_raw();
    if !is_own || found.nlink() != 1 {
        let message = "another file was put in its place";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    fchownat(&file, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_of_another_process_at_the_path_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let file = SocketFile::at(&path).unwrap();
        let other = directory.path().join("other");
        let _other = UnixListener::bind(&other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        file.unlink();
        assert!(path.exists());
        SocketFile::at(&path).unwrap().unlink();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_socket_is_never_an_own_socket() {
        let directory = tempfile::tempdir().unwrap();
        assert!(SocketFile::at(directory.path()).is_err());
        assert!(SocketFile::at(&directory.path().join("none")).is_err());
    }

    #[test]
    fn only_a_socket_without_another_name_is_given_away() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let owner = |name: &str| std::fs::symlink_metadata(path(name)).unwrap().uid();
        let _listener = UnixListener::bind(path("plain")).unwrap();
        give_to(&path("plain"), 65534, 65534).unwrap();
        assert_eq!(owner("plain"), 65534);

        std::fs::write(path("secret"), "x").unwrap();
        std::os::unix::fs::symlink(path("secret"), path("link")).unwrap();
        std::fs::hard_link(path("secret"), path("name")).unwrap();
        let _listener = UnixListener::bind(path("socket")).unwrap();
        std::fs::hard_link(path("socket"), path("twice")).unwrap();
        for name in ["link", "name", "secret", "twice"] {
            assert!(give_to(&path(name), 65534, 65534).is_err(), "{name}");
        }
        assert_eq!((owner("secret"), owner("socket")), (0, 0));
    }
}
