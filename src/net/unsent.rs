//! How much of a response the kernel takes from us before it can send it.
//!
//! Without a bound it takes as much as a send buffer grows to, megabytes for a client that reads nothing, and the
//! loop copies them: five hundred such clients had a gigabyte and a half, and seconds of the processor. What is on
//! its way to a client that does read does not count, so a bound here costs no throughput.

#![expect(unsafe_code, reason = "nix has no safe call for SIOCOUTQ")]

use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::setsockopt;
// The macro names both of the others.
use nix::{libc, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// tcp(7): a socket is writable while fewer bytes than this are not sent yet.
    NotSentLowat,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// Enough that a client at 10 Gbit/s does not run out of bytes in the time of one iteration of the loop.
const UNSENT_BYTES_MAX: u32 = 256 * 1024;

/// Sets the bound on a listener; accepted connections inherit it, so no call is spent on each. Where the kernel
/// refuses it, memory is all that is lost.
pub(super) fn bound(listener: &impl AsFd) {
    let _ = setsockopt(listener, NotSentLowat, &UNSENT_BYTES_MAX);
}

/// How many bytes the peer of a connected socket has not acknowledged, or of a unix socket has not read. Of a peer that reads,
/// however slowly, the figure changes within its round trip. `None` where the kernel has none.
pub fn unacknowledged_bytes(socket: &impl AsFd) -> Option<u32> {
    let mut bytes: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // tcp(7) and unix(7) call it SIOCOUTQ, which is the same number.
    // SAFETY: the descriptor is open for this call, and the kernel writes one `int`, which `bytes` is.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    (result == 0).then(|| u32::try_from(bytes).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_read_is_not_counted() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unacknowledged_bytes(&ours), Some(0));
        ours.write_all(&[b'x'; 1000]).unwrap();
        assert!(unacknowledged_bytes(&ours) >= Some(1000));
        theirs.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(unacknowledged_bytes(&ours), Some(0));
    }
}
