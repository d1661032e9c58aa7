//! Which process listens on an address that is in use, as far as `/proc` shows it.
//!
//! The arbiter calls it once for an address that it cannot bind, before it waits a second for the next attempt.

use std::fs;
use std::path::Path;

use super::address::BindAddress;

/// `process 4711 (nginx)`, the oldest of those that have the socket. `None` where the system does not say.
pub(super) fn find(address: &BindAddress) -> Option<String> {
    let inodes = match address {
        BindAddress::Tcp { port, .. } => {
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
            let tables = tables.into_iter().flatten();
            tables
                .flat_map(|table| tcp_listeners(&table, *port))
                .collect()
        }
        BindAddress::Unix(path) => unix_sockets(&fs::read_to_string("/proc/net/unix").ok()?, path),
        BindAddress::Abstract(_) | BindAddress::Fd(_) => Vec::new(),
    };
    let pid = owner_of(&inodes)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!(
        "process {pid} ({})",
        name.trim_end().escape_debug()
    ))
}

/// The inodes of sockets that listen on `port`, in the form of `/proc/net/tcp`.
fn tcp_listeners(table: &str, port: u16) -> Vec<u64> {
    let listener = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
        let is_found =
            u16::from_str_radix(local_port, 16) == Ok(port) && columns.get(3) == Some(&TCP_LISTEN);
        is_found.then(|| columns.get(9)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(listener).collect()
}

/// The inodes of sockets at `path`, in the form of `/proc/net/unix`.
fn unix_sockets(table: &str, path: &Path) -> Vec<u64> {
    let at_path = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_found = columns.get(7).is_some_and(|name| Path::new(name) == path);
        is_found.then(|| columns.get(6)?.parse().ok()).flatten()
    };
    table.lines().skip(1).filter_map(at_path).collect()
}

/// Workers have inherited the socket from their master, whose pid is the lowest as long as pids have not wrapped round.
fn owner_of(inodes: &[u64]) -> Option<u32> {
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let has_one = |pid: &u32| {
        // Descriptors of other users' processes cannot be read.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        let mut targets = descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    };
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.into_iter().find(has_one)
}

/// `TCP_LISTEN` of the kernel's `tcp_states.h`, as the table shows it.
const TCP_LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn listeners_are_found_by_their_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
             1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n\
             2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 x\n";
        assert_eq!(tcp_listeners(table, 8000), [4711]);
        assert!(tcp_listeners(table, 9000).is_empty());
        assert!(tcp_listeners("header\nnonsense\n: :\n", 8000).is_empty());
    }

    #[test]
    fn unix_sockets_are_found_by_their_path() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 4711 /run/app.sock\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 4712\n";
        assert_eq!(unix_sockets(table, Path::new("/run/app.sock")), [4711]);
        assert!(unix_sockets(table, Path::new("/run/other.sock")).is_empty());
    }

    #[test]
    fn this_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = "127.0.0.1".to_owned();
        let found = find(&BindAddress::Tcp { host, port }).unwrap();
        let pid = std::process::id();
        assert!(found.starts_with(&format!("process {pid} (")), "{found}");
        assert_eq!(find(&BindAddress::Fd(0)), None);
    }
}
