//! How much of a response the kernel takes from us before it can send it.
//!
//! Without a bound it takes as much as a send buffer grows to, megabytes for a client that reads nothing, and the
//! loop copies them: five hundred such clients had a gigabyte and a half, and seconds of the processor. What is on
//! its way to a client that does read does not count, so a bound here costs no throughput.

use std::os::fd::AsFd;

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
