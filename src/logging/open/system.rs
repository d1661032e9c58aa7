//! What a directory is to the system beyond its owner and mode: whether the kernel makes its files up, and whether a list
//! of users is attached to it.

#[cfg(target_os = "linux")]
pub(super) use linux::{has_acl, is_kernels, is_proc};
#[cfg(not(target_os = "linux"))]
pub(super) use others::{has_acl, is_kernels, is_proc};

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::{AsRawFd as _, OwnedFd};

    use nix::sys::statfs::{
        BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType,
        PROC_SUPER_MAGIC, SECURITYFS_MAGIC, SELINUX_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
    };
    use rustix::fs::getxattr_query;
    use rustix::io::Errno;

    pub(in super::super) fn is_proc(directory: &OwnedFd) -> bool {
        file_system(directory) == Some(PROC_SUPER_MAGIC)
    }

    /// Whether a write to a file there is a command to the kernel. Who opened it decides what is allowed, not who writes
    /// (`uid_map`, `cgroup.procs`).
    pub(in super::super) fn is_kernels(directory: &OwnedFd) -> bool {
        const KERNELS: [FsType; 9] = [
            PROC_SUPER_MAGIC,
            SYSFS_MAGIC,
            CGROUP_SUPER_MAGIC,
            CGROUP2_SUPER_MAGIC,
            DEBUGFS_MAGIC,
            TRACEFS_MAGIC,
            SECURITYFS_MAGIC,
            SELINUX_MAGIC,
            BPF_FS_MAGIC,
        ];
        file_system(directory).is_some_and(|one| KERNELS.contains(&one))
    }

    fn file_system(directory: &OwnedFd) -> Option<FsType> {
        fstatfs(directory).ok().map(|stat| stat.filesystem_type())
    }

    /// Whether an access list names users beside those of the mode. Then the mode's bits of the group are the most that
    /// the list allows to anybody (`acl(5)`).
    pub(in super::super) fn has_acl(directory: &OwnedFd) -> bool {
        // A descriptor opened with `O_PATH` has attributes under its name only.
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let found = getxattr_query(path, "system.posix_acl_access");
        // What cannot be found out counts as one.
        !matches!(found, Err(Errno::NODATA | Errno::OPNOTSUPP) | Ok(0))
    }
}

/// `/dev/fd/1` is a device there.
#[cfg(not(target_os = "linux"))]
mod others {
    use std::os::fd::OwnedFd;

    pub(in super::super) fn is_proc(_: &OwnedFd) -> bool {
        false
    }

    pub(in super::super) fn is_kernels(_: &OwnedFd) -> bool {
        false
    }

    pub(in super::super) fn has_acl(_: &OwnedFd) -> bool {
        false
    }
}
