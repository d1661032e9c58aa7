//! Listening sockets, before they have connections.
//!
//! The arbiter opens them once; workers inherit them through fork. Nothing here removes a socket file when
//! it is dropped, because a forked child drops its copies too: the arbiter calls `Bound::unlink` by itself.

mod accept_pause;
pub mod address;
mod address_user;
mod backlog;
mod bind;
mod channel;
mod descriptors_left;
pub mod host_names;
pub mod inherit;
mod listener;
mod lookup;
mod private;
mod socket_file;
mod unsent;

pub use accept_pause::AcceptPause;
pub use address::{AddressError, BindAddress};
pub use backlog::backlog;
pub use bind::{
    BindError, BindOptions, Wait, adopt_all, ask_names, bind_all, describe, is_abandoned, look_up,
};
pub use channel::{Channels, Reader, receive_sockets, send_sockets};
pub use descriptors_left::has_place;
pub use listener::{Bound, Listener};
pub use private::bind_private;
pub use socket_file::SocketFile;
pub use unsent::unacknowledged_bytes;
