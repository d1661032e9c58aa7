//! The control interface, server side: gunicornc's protocol on a unix socket, its commands and ours.
//!
//! The walk of a command: `clients` reads bytes and finds whole frames (`frame`), `command` makes a [`Command`] of
//! one, the arbiter carries it out or lets `tables` answer from a [`View`], and `clients` writes the answer.
//!
//! Invariants:
//! - Nothing here waits: the arbiter's loop, which is the only caller, polls the descriptors and calls.
//! - Everything has a bound: clients, the size of a request, the time a client may be idle.
//! - What a client sends is matched, never trusted: a bad frame gets an error or a closed connection.
#![forbid(unsafe_code)]

mod advice;
mod clients;
mod command;
mod control_socket;
mod frame;
mod tables;

pub use advice::{Load, advice};
pub use clients::{ClientId, Clients};
pub use command::{Asked, Command, Request, Topic};
pub use control_socket::{ControlSocket, OpenError};
pub use frame::{Inbox, encode};
pub use tables::{ListenerView, View, WorkerView, answer, help, running};
