//! What settings ask of the machine: directories that exist, users and groups by name, places of the environment.

use std::path::{Component, Path, PathBuf};

use super::bad_value::BadValue;
use super::value::Value;

/// The absolute path of a directory that exists.
pub(super) fn directory(typed: &str) -> Result<String, BadValue> {
    let path = tidied(&start_directory().join(typed));
    if path.is_dir() {
        Ok(path.to_string_lossy().into_owned())
    } else {
        Err(BadValue::NoDirectory(typed.to_owned()))
    }
}

/// The current directory; `$PWD` when it is the same one: it keeps the symbolic links the operator typed.
pub fn start_directory() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    let Some(typed) = std::env::var_os("PWD").map(PathBuf::from) else {
        return current;
    };
    let inode = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    let same = typed.is_absolute() && inode(&typed).is_some() && inode(&typed) == inode(&current);
    if same { typed } else { current }
}

/// Each server has its own path: with one path for all, a second server would replace the first one's socket.
/// `src/ferricorn/ctl.py` looks in the same places.
pub(super) fn control_socket_path() -> String {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    if let Some(runtime) = variable("XDG_RUNTIME_DIR") {
        return format!("{runtime}/ferricorn/{{pid}}.ctl");
    }
    match variable("HOME") {
        Some(home) => format!("{home}/.ferricorn/{{pid}}.ctl"),
        None => format!("/tmp/ferricorn-{}/{{pid}}.ctl", nix::unistd::geteuid()),
    }
}

/// Without `.` and `..`, by text alone.
fn tidied(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                tidy.pop();
            }
            other => tidy.push(other),
        }
    }
    tidy
}

/// A user's number, by number or name; the effective user when nothing was given.
pub(super) fn user(value: &Value) -> Result<Value, BadValue> {
    account(value, effective_user(), find_user, BadValue::NoUser)
}

/// A group's number, likewise.
pub(super) fn group(value: &Value) -> Result<Value, BadValue> {
    account(value, effective_group(), find_group, BadValue::NoGroup)
}

fn account(
    value: &Value,
    effective: u32,
    find: fn(&str) -> Option<u32>,
    missing: fn(String) -> BadValue,
) -> Result<Value, BadValue> {
    let number = match value {
        Value::None => i64::from(effective),
        Value::Int(number) => {
            i64::from(u32::try_from(*number).map_err(|_| missing(number.to_string()))?)
        }
        Value::Str(name) => {
            let id = name.parse().ok().or_else(|| find(name));
            i64::from(id.ok_or_else(|| missing(name.clone()))?)
        }
        other => return Err(missing(other.to_string())),
    };
    Ok(Value::Int(number))
}

fn effective_user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn effective_group() -> u32 {
    nix::unistd::getegid().as_raw()
}

fn find_user(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name)
        .ok()
        .flatten()
        .map(|user| user.uid.as_raw())
}

fn find_group(name: &str) -> Option<u32> {
    nix::unistd::Group::from_name(name)
        .ok()
        .flatten()
        .map(|group| group.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_symbolic_part_of_a_path_and_drops_dots() {
        assert_eq!(tidied(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
