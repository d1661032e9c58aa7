//! How many connections wait at a listener to be accepted.
#![expect(unsafe_code, reason = "nix has no safe call for TCP_INFO")]

use std::os::fd::{AsFd as _, AsRawFd as _};

use nix::libc::{IPPROTO_TCP, TCP_INFO, c_void, getsockopt, socklen_t, tcp_info};

use super::Listener;

/// `None` for unix sockets, and where the kernel has no figure.
pub fn backlog(listener: &Listener) -> Option<u32> {
    let Listener::Tcp(tcp) = listener else {
        return None;
    };
    let mut info = std::mem::MaybeUninit::<tcp_info>::zeroed();
    let mut length = size_of::<tcp_info>() as socklen_t;
    let place = info.as_mut_ptr().cast::<c_void>();
    let fd = tcp.as_fd().as_raw_fd();
    // SAFETY: `place` has `length` bytes, and the kernel writes no more than that.
    let result = unsafe { getsockopt(fd, IPPROTO_TCP, TCP_INFO, place, &raw mut length) };
    if result != 0 {
        return None;
    }
    // SAFETY: the structure is plain integers, for which zeroes are as valid as what the kernel has written.
    let info = unsafe { info.assume_init() };
    // Of a listening socket this is the length of its accept queue.
    Some(info.tcpi_unacked)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_that_nobody_accepts_are_counted() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let listener = Listener::Tcp(tcp);
        assert_eq!(backlog(&listener), Some(0));
        let waiting = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(backlog(&listener), Some(3));
        drop(waiting);
    }
}
