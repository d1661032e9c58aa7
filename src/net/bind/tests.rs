//! Real sockets, on 127.0.0.1 and in a directory of the test's own.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// The mask is the process's, and other tests make directories at the same time: from now on this thread has its own. Where
/// the system forbids that, a directory of another test may lack permissions that only root needs not.
pub(super) fn have_own_mask() {
    let _ = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS);
}

fn bind_one(address: BindAddress) -> Result<Bound, BindError> {
    let bound = bind_all(&[address], &BindOptions::default(), |_| false)?;
    Ok(bound.into_iter().next().unwrap())
}

fn tcp(port: u16) -> BindAddress {
    let host = "127.0.0.1".to_owned();
    BindAddress::Tcp { host, port }
}

/// A path that no other test uses; short, because unix socket paths are.
fn socket_path(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("ferricorn-net-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory.join(name)
}

#[test]
fn tcp_listener_is_nonblocking_and_says_where() {
    let bound = bind_one(tcp(0)).unwrap();
    let Listener::Tcp(listener) = &bound.listener else {
        panic!("a TCP address gives a TCP listener");
    };
    let address = listener.local_addr().unwrap();
    assert_eq!(describe([&bound.listener]), format!("http://{address}"));
    let refused = listener.accept().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    let accepted = std::net::TcpStream::connect(address).unwrap();
    drop(accepted);
}

#[test]
fn port_in_use_is_tried_five_times() {
    let first = bind_one(tcp(0)).unwrap();
    let Listener::Tcp(listener) = &first.listener else {
        panic!("a TCP address gives a TCP listener");
    };
    let taken = tcp(listener.local_addr().unwrap().port());
    let mut waits = 0;
    let error = bind_all(
        std::slice::from_ref(&taken),
        &BindOptions::default(),
        |_| {
            waits += 1;
            true
        },
    )
    .unwrap_err();
    assert_eq!(waits, 5);
    assert_eq!(error.to_string(), format!("Can't connect to {taken}"));
}

#[test]
fn stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let path = socket_path("stale");
    let address = BindAddress::Unix(path.clone());
    drop(bind_one(address.clone()).unwrap());
    assert!(path.exists(), "dropping a listener leaves its file");

    let second = bind_one(address.clone()).unwrap();
    assert_eq!(
        second.listener.to_string(),
        format!("unix:{}", path.display())
    );
    assert!(UnixStream::connect(&path).is_ok());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777);

    assert!(matches!(bind_one(address), Err(BindError::Refused(_))));
    assert!(
        UnixStream::connect(&path).is_ok(),
        "the live server kept its file"
    );
    second.unlink();
    assert!(!path.exists());
}

#[test]
fn other_files_are_never_removed() {
    let path = socket_path("file");
    std::fs::write(&path, "precious").unwrap();
    let error = bind_one(BindAddress::Unix(path.clone())).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("'{}' is not a socket", path.display())
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn one_refused_address_leaves_nothing_behind() {
    let path = socket_path("all-or-none");
    let addresses = [BindAddress::Unix(path.clone()), BindAddress::Fd(1_000_000)];
    assert!(bind_all(&addresses, &BindOptions::default(), |_| false).is_err());
    assert!(!path.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn abstract_names_listen_without_a_file() {
    let name = format!("ferricorn-{}", std::process::id());
    let bound = bind_one(BindAddress::Abstract(name.into_bytes())).unwrap();
    assert!(matches!(bound.listener, Listener::Unix(_)));
}

#[test]
fn huge_backlog_is_left_to_the_kernel() {
    let options = BindOptions {
        backlog: u32::MAX,
        ..BindOptions::default()
    };
    assert!(bind_all(&[tcp(0)], &options, |_| false).is_ok());
}
