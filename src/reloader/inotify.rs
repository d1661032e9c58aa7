//! The kernel's notifications about directories.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::fork_guard;

#[derive(Debug)]
pub(super) struct Notify {
    inotify: Inotify,
    watched: HashSet<PathBuf>,
    /// Files whose directories are watched.
    known: HashSet<PathBuf>,
}

impl Notify {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        fork_guard::register(&inotify);
        Ok(Self {
            inotify,
            watched: HashSet::new(),
            known: HashSet::new(),
        })
    }

    /// Watches the directories of `files`, and those that links lead to. False when the kernel has had enough.
    pub(super) fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> bool {
        for file in files {
            if self.known.contains(file) {
                continue;
            }
            self.known.insert(file.to_owned());
            let target = file.canonicalize().ok();
            let places = [file.parent(), target.as_deref().and_then(Path::parent)];
            for directory in places.into_iter().flatten() {
                if !self.watch_directory(directory) {
                    return false;
                }
            }
        }
        true
    }

    pub(super) fn watch_directory(&mut self, directory: &Path) -> bool {
        if !self.watched.insert(directory.to_owned()) {
            return true;
        }
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE;
        // What is no directory, as the inside of a zip file, is looked for each time and found missing.
        let added = self.inotify.add_watch(directory, flags);
        !matches!(added, Err(Errno::ENOSPC | Errno::ENOMEM))
    }

    /// Reads what has happened; true when some of it is for us.
    pub(super) fn read(&self, concerns: impl Fn(&Path) -> bool) -> bool {
        let mut is_worth_a_look = false;
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                // Without a name it is about the directory itself, or the queue was too long.
                let name = event.name.as_deref().map(Path::new);
                is_worth_a_look |= name.is_none_or(&concerns);
            }
        }
        is_worth_a_look
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
