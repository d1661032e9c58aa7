//! What root opens, and what it does not: `nobody` stands for the workers' user. Without root there is nothing to test
//! but that files open.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

use super::*;

const NOBODY: u32 = 65534;
const STRANGER: u32 = 65533;

/// A directory of root's, and in it `logs`, which belongs to `owner`.
struct Place {
    base: tempfile::TempDir,
    logs: PathBuf,
}

impl Place {
    /// `None` without root.
    fn of(owner: u32) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let logs = base.path().join("logs");
        fs::create_dir(&logs).unwrap();
        fs::set_permissions(&logs, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&logs, Some(owner), Some(owner)).unwrap();
        Some(Self { base, logs })
    }

    fn log(&self) -> PathBuf {
        self.logs.join("log")
    }

    /// A file of `owner`'s outside of `logs`.
    fn file(&self, name: &str, owner: u32) -> PathBuf {
        let path = self.base.path().join(name);
        fs::write(&path, "kept\n").unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        path
    }
}

fn open(path: &Path) -> Result<(), String> {
    let options = FileOptions {
        owner: Some((NOBODY, NOBODY)),
        captures: false,
    };
    let opened = open_for_appending(path, options).map_err(|error| error.to_string())?;
    fs::File::from(opened).write_all(b"line\n").unwrap();
    Ok(())
}

/// Refused for a reason with these words.
fn is_refused(path: &Path, words: &str) -> bool {
    open(path).is_err_and(|error| error.contains(words))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_file_that_is_made_is_given_away_and_one_that_is_found_is_not() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    open(&place.log()).unwrap();
    assert_eq!(fs::metadata(place.log()).unwrap().uid(), NOBODY);
    chown(place.log(), Some(0), Some(0)).unwrap();
    open(&place.log()).unwrap();
    assert_eq!(fs::metadata(place.log()).unwrap().uid(), 0);
    assert_eq!(read(&place.log()), "line\nline\n");
}

#[test]
fn a_link_in_a_directory_of_others_leads_to_nothing_of_roots() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    let secret = place.file("secret", 0);
    for link_owner in [0, NOBODY, STRANGER] {
        symlink(&secret, place.log()).unwrap();
        lchown(place.log(), Some(link_owner), Some(link_owner)).unwrap();
        assert!(open(&place.log()).is_err(), "a link of user {link_owner}");
        fs::remove_file(place.log()).unwrap();
    }
    symlink(place.base.path().join("made"), place.log()).unwrap();
    lchown(place.log(), Some(NOBODY), Some(NOBODY)).unwrap();
    assert!(is_refused(&place.log(), "that is not that user's"));
    assert!(!place.base.path().join("made").exists());
    assert_eq!(read(&secret), "kept\n");
    assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);
}

#[test]
fn a_directory_that_is_a_link_is_no_way_out_either() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    let theirs = place.logs.join("sub");
    symlink(place.base.path(), &theirs).unwrap();
    lchown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let secret = place.file("secret", 0);
    assert!(is_refused(
        &theirs.join("secret"),
        "leads to a file of user 0"
    ));
    assert!(is_refused(&theirs.join("new"), "that is not that user's"));
    lchown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
    assert!(is_refused(&theirs.join("secret"), "is a symbolic link"));
    assert_eq!(read(&secret), "kept\n");
}

#[test]
fn a_link_of_the_workers_user_leads_to_what_is_its_own() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    let releases = place.logs.join("releases");
    fs::create_dir(&releases).unwrap();
    chown(&releases, Some(NOBODY), Some(NOBODY)).unwrap();
    let current = place.logs.join("current");
    symlink("releases", &current).unwrap();
    lchown(&current, Some(NOBODY), Some(NOBODY)).unwrap();
    open(&current.join("log")).unwrap();
    open(&current.join("log")).unwrap();
    assert_eq!(read(&releases.join("log")), "line\nline\n");
}

#[test]
fn a_link_that_only_root_can_have_made_is_followed() {
    let Some(place) = Place::of(0) else {
        return;
    };
    let target = place.file("target", 0);
    symlink("../target", place.log()).unwrap();
    open(&place.log()).unwrap();
    assert_eq!(read(&target), "kept\nline\n");
    // The way of container images.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    fs::remove_file(place.log()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
    symlink(format!("/dev/fd/{number}"), place.log()).unwrap();
    open(&place.log()).unwrap();
    let mut line = [0; 5];
    nix::unistd::read(&reader, &mut line).unwrap();
    assert_eq!(&line, b"line\n");
    // A directory where a group of others may write is one of others.
    fs::set_permissions(&place.logs, fs::Permissions::from_mode(0o775)).unwrap();
    chown(&place.logs, None, Some(NOBODY)).unwrap();
    assert!(is_refused(&place.log(), "is a symbolic link"));
}

#[test]
fn hard_links_and_files_of_strangers_are_left_alone() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    let secret = place.file("secret", 0);
    fs::hard_link(&secret, place.log()).unwrap();
    assert!(is_refused(&place.log(), "is a hard link"));
    fs::remove_file(place.log()).unwrap();
    fs::rename(place.file("strangers", STRANGER), place.log()).unwrap();
    assert!(is_refused(&place.log(), "belongs to user 65533"));
    fs::remove_file(place.log()).unwrap();
    fs::rename(place.file("workers", NOBODY), place.log()).unwrap();
    open(&place.log()).unwrap();
    assert_eq!(read(&secret), "kept\n");
}

#[test]
fn a_link_of_the_workers_user_opens_nothing_through_the_system() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    let secret = place.file("secret", 0);
    let held = fs::File::options().append(true).open(&secret).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&held);
    let process = format!("/proc/{}", std::process::id());
    for name in [format!("fd/{fd}"), "coredump_filter".to_owned()] {
        let _ = fs::remove_file(place.log());
        symlink(format!("{process}/{name}"), place.log()).unwrap();
        lchown(place.log(), Some(NOBODY), Some(NOBODY)).unwrap();
        assert!(is_refused(&place.log(), "of the kernel"), "{name}");
    }
    assert_eq!(read(&secret), "kept\n");
    // The operator may name what he likes, also of a process that is not root's.
    open(Path::new(&format!("{process}/fd/{fd}"))).unwrap();
    assert_eq!(read(&secret), "kept\nline\n");
}

#[test]
fn what_is_not_trusted_is_not_even_opened() {
    let Some(place) = Place::of(NOBODY) else {
        return;
    };
    let fifo = place.base.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let reader = nix::fcntl::open(&fifo, flags, Mode::empty()).unwrap();
    symlink(&fifo, place.log()).unwrap();
    lchown(place.log(), Some(NOBODY), Some(NOBODY)).unwrap();
    assert!(is_refused(&place.log(), "leads to a file of user 0"));
    let mut seen = [nix::poll::PollFd::new(
        reader.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    let events = nix::poll::poll(&mut seen, 0u8);
    assert_eq!(events, Ok(0), "its reader was told that a writer has left");
}

#[test]
#[cfg(target_os = "linux")]
fn a_directory_with_an_access_list_is_one_of_others() {
    let Some(place) = Place::of(0) else {
        return;
    };
    let target = place.file("target", 0);
    symlink(&target, place.log()).unwrap();
    open(&place.log()).unwrap();
    // user::rwx user:nobody:rwx group::r-x mask::rwx other::r-x
    let entries = [
        (1, 7, u32::MAX),
        (2, 7, NOBODY),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ];
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(rights));
        list.extend(id.to_le_bytes());
    }
    let name = "system.posix_acl_access";
    if rustix::fs::setxattr(&place.logs, name, &list, rustix::fs::XattrFlags::empty()).is_err() {
        return; // A file system without such lists.
    }
    assert!(is_refused(&place.log(), "is a symbolic link"));
}

#[test]
fn a_fifo_without_a_reader_opens_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    let fd = open_for_appending(&path, FileOptions::default()).unwrap();
    assert_eq!(nix::unistd::write(&fd, b"line\n"), Ok(5));
}

#[test]
fn links_in_a_circle_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    symlink("log", &path).unwrap();
    assert!(is_refused(&path, "Too many symbolic links"));
}
