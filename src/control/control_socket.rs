//! The control socket's file: made private, never taken from a living server, removed by the arbiter alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::net::{self, SocketFile};

/// The listening socket and its file. Dropping it leaves the file, because forked children drop theirs.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} belongs to a running server", path = .0.display())]
    InUse(PathBuf),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Failed(PathBuf, io::Error),
}

impl ControlSocket {
    /// Opens the socket of `setting`, where `{pid}` stands for `pid`; `mode` is the file's.
    ///
    /// # Errors
    /// When the path belongs to a living server, or the system refuses.
    pub fn open(setting: &Path, pid: i32, mode: u32) -> Result<Self, OpenError> {
        let path = expand(setting, pid);
        let failed = |error| OpenError::Failed(path.clone(), error);
        let own_name = setting.to_string_lossy().contains(PID);
        if let Some(directory) = path.parent().filter(|parent| *parent != Path::new("")) {
            make_private(directory).map_err(failed)?;
            if own_name {
                sweep(directory, setting);
            }
        }
        let listener = match net::bind_private(&path, mode) {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(OpenError::InUse(path));
            }
            Err(error) => return Err(failed(error)),
        };
        let file = SocketFile::at(&path).map_err(failed)?;
        Ok(Self { listener, file })
    }

    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Removes the file, if it is still the one that was made here.
    pub fn unlink(&self) {
        self.file.unlink();
    }
}

fn expand(setting: &Path, pid: i32) -> PathBuf {
    match setting.to_str() {
        Some(text) => PathBuf::from(text.replace(PID, &pid.to_string())),
        None => setting.to_owned(),
    }
}

/// Makes a directory for its owner alone, or accepts one that others cannot put files into.
fn make_private(directory: &Path) -> io::Result<()> {
    if !directory.is_dir() {
        // The mask can only take more away.
        return DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
    }
    let found = fs::metadata(directory)?;
    let sticky = found.mode() & 0o1000 != 0;
    let is_foreign = found.uid() != geteuid().as_raw() && found.uid() != 0;
    if is_foreign || (found.mode() & 0o022 != 0 && !sticky) {
        let message = "others may write to its directory";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

/// Removes what killed servers left beside this name: sockets that no process listens on, named alike but for the pid.
fn sweep(directory: &Path, setting: &Path) {
    let name = setting.file_name().and_then(|name| name.to_str());
    let Some((before, after)) = name.and_then(|name| name.split_once(PID)) else {
        return;
    };
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten().take(SWEPT_MAX) {
        let name = entry.file_name();
        let of_a_pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(before)?.strip_suffix(after))
            .is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()));
        // Without waiting: a master that is stopped accepts nothing, and its backlog may be full.
        if of_a_pid && net::is_abandoned(&entry.path()) {
            // Another server may have swept it just now.
            let _ = fs::remove_file(entry.path());
        }
    }
}

const PID: &str = "{pid}";
const SWEPT_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Private whatever mask another test has set meanwhile.
    fn directory() -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .unwrap()
    }

    #[test]
    fn a_living_socket_is_not_stolen_and_a_dead_one_is_replaced() {
        let directory = directory();
        let setting = directory.path().join("made/here/{pid}.ctl");
        let first = ControlSocket::open(&setting, 7, 0o600).unwrap();
        assert!(first.path().ends_with("made/here/7.ctl"));
        assert_eq!(fs::metadata(first.path()).unwrap().mode() & 0o777, 0o600);
        let parent = first.path().parent().unwrap().to_owned();
        // Another test of this process may have a mask that takes more away.
        assert_eq!(fs::metadata(&parent).unwrap().mode() & 0o077, 0);

        let second = ControlSocket::open(&setting, 7, 0o600).unwrap_err();
        assert!(matches!(second, OpenError::InUse(_)), "{second}");

        let path = first.path().to_owned();
        drop(first);
        assert!(path.exists(), "dropping leaves the file to the arbiter");
        let other = ControlSocket::open(&setting, 8, 0o666).unwrap();
        assert!(!path.exists(), "left behind by a dead server");
        assert_eq!(fs::metadata(other.path()).unwrap().mode() & 0o777, 0o666);
        other.unlink();
        assert!(!other.path().exists());
    }

    #[test]
    fn a_neighbour_that_does_not_answer_holds_up_no_start() {
        let directory = directory();
        let setting = directory.path().join("{pid}.ctl");
        // Never accepts, like a master that is stopped.
        let stopped = ControlSocket::open(&setting, 1, 0o600).unwrap();
        for pid in 2..52 {
            let next = ControlSocket::open(&setting, pid, 0o600).unwrap();
            next.unlink();
        }
        assert!(stopped.path().exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_not_swept() {
        let directory = directory();
        let file = directory.path().join("17.ctl");
        fs::write(&file, "notes").unwrap();
        ControlSocket::open(&directory.path().join("{pid}.ctl"), 18, 0o600).unwrap();
        assert!(file.exists());
    }

    #[test]
    fn a_file_that_was_replaced_is_not_removed() {
        let directory = directory();
        let path = directory.path().join("control");
        let socket = ControlSocket::open(&path, 1, 0o600).unwrap();
        // Made before the first goes, so that it cannot get its inode.
        let new = directory.path().join("new");
        fs::write(&new, "another's").unwrap();
        fs::rename(&new, &path).unwrap();
        socket.unlink();
        assert!(path.exists());
        assert!(
            ControlSocket::open(&path, 1, 0o600).is_err(),
            "not a socket"
        );
    }
}
