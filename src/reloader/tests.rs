//! Real files that change in the ways of editors and version control.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

struct Project {
    directory: tempfile::TempDir,
    watcher: Watcher,
}

impl Project {
    fn new(engine: ReloadEngine) -> Self {
        let project = Self {
            directory: tempfile::tempdir().unwrap(),
            watcher: Watcher::new(engine).unwrap(),
        };
        project.write("app.py", "one");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn look(&mut self, modules: &[&str], matched: &[&str]) -> Option<String> {
        let modules = modules.iter().map(|name| Imported {
            path: self.path(name),
            stamp: None,
        });
        let files = Files {
            modules: modules.collect(),
            matched: matched.iter().map(|name| self.path(name)).collect(),
        };
        let changed = self.watcher.look(&files)?;
        Some(changed.file_name()?.to_str()?.to_owned())
    }
}

#[test]
fn changes_are_seen_once() {
    let mut project = Project::new(ReloadEngine::Poll);
    assert_eq!(project.look(&["app.py"], &[]), None);
    assert_eq!(project.look(&["app.py"], &[]), None);
    project.write("app.py", "other");
    assert_eq!(project.look(&["app.py"], &[]).as_deref(), Some("app.py"));
    assert_eq!(project.look(&["app.py"], &[]), None);
}

#[test]
fn an_older_file_in_its_place_is_a_change() {
    let mut project = Project::new(ReloadEngine::Poll);
    project.look(&["app.py"], &[]);
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let times = fs::FileTimes::new().set_modified(long_ago);
    let file = fs::File::options()
        .write(true)
        .open(project.path("app.py"))
        .unwrap();
    file.set_times(times).unwrap();
    assert_eq!(project.look(&["app.py"], &[]).as_deref(), Some("app.py"));
}

#[test]
fn a_module_that_is_new_was_imported_and_a_match_that_is_new_was_made() {
    let mut project = Project::new(ReloadEngine::Poll);
    project.write("a.html", "");
    assert_eq!(project.look(&["app.py"], &["a.html"]), None);
    project.write("late.py", "");
    assert_eq!(project.look(&["app.py", "late.py"], &["a.html"]), None);
    project.write("b.html", "");
    let changed = project.look(&["app.py"], &["a.html", "b.html"]);
    assert_eq!(changed.as_deref(), Some("b.html"));
}

#[test]
fn what_changed_between_import_and_first_look_is_seen() {
    let mut project = Project::new(ReloadEngine::Poll);
    let imported = |stamp| Files {
        modules: vec![Imported {
            path: project.path("app.py"),
            stamp,
        }],
        matched: Vec::new(),
    };
    let (stale, unknown) = (imported(Some((5, 3))), imported(None));
    assert!(project.watcher.look(&stale).is_some());
    assert_eq!(project.watcher.look(&unknown), None);
}

#[test]
fn a_missing_file_is_waited_for() {
    let mut project = Project::new(ReloadEngine::Poll);
    project.look(&["app.py"], &[]);
    fs::remove_file(project.path("app.py")).unwrap();
    assert_eq!(project.look(&["app.py"], &[]), None);
    project.write("app.py", "it is back");
    assert_eq!(project.look(&["app.py"], &[]).as_deref(), Some("app.py"));
}

#[test]
fn the_kernel_tells_at_once_and_of_our_files_only() {
    let mut project = Project::new(ReloadEngine::Inotify);
    assert_eq!(project.watcher.engine(), "inotify");
    project.look(&["app.py"], &[]);
    let (stop, _other) = UnixStream::pair().unwrap();
    // A log beside the code is no reason to look: the time it takes shows that nothing woke us.
    project.write("noise.log", "x");
    let start = std::time::Instant::now();
    assert!(project.watcher.wait(stop.as_fd()));
    assert!(start.elapsed() > PERIOD_NOTIFIED / 2);

    // As editors save: a new file takes the name.
    project.write("app.py.new", "other");
    fs::rename(project.path("app.py.new"), project.path("app.py")).unwrap();
    assert!(project.watcher.wait(stop.as_fd()));
    assert_eq!(project.look(&["app.py"], &[]).as_deref(), Some("app.py"));
}

#[test]
fn the_target_of_a_link_is_watched_too() {
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("real.py");
    fs::write(&target, "one").unwrap();
    let mut project = Project::new(ReloadEngine::Inotify);
    std::os::unix::fs::symlink(&target, project.path("link.py")).unwrap();
    project.look(&["link.py"], &[]);
    let (stop, _other) = UnixStream::pair().unwrap();
    fs::write(&target, "other").unwrap();
    let start = std::time::Instant::now();
    assert!(project.watcher.wait(stop.as_fd()));
    assert!(start.elapsed() < PERIOD_NOTIFIED);
    assert_eq!(project.look(&["link.py"], &[]).as_deref(), Some("link.py"));
}

#[test]
fn the_end_is_noticed_at_once() {
    let mut project = Project::new(ReloadEngine::Poll);
    let (stop, other) = UnixStream::pair().unwrap();
    drop(other);
    assert!(!project.watcher.wait(stop.as_fd()));
    assert!(!pause(Duration::from_secs(60), stop.as_fd()));
}
