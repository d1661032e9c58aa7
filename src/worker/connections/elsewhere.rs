//! Connections that live on elsewhere: with the application, or with another worker.

use std::io;
use std::os::fd::BorrowedFd;

use super::Connections;
use crate::pool::{ConnId, Job};
use crate::worker::dispatch::Dispatch;
use crate::worker::requests::Requests;
use crate::worker::shared_io::SharedIo;

impl Connections {
    /// The application uses the socket itself from here on. That may have been noted after the conversation was over
    /// and the connection with it.
    pub(in crate::worker) fn hijack(&mut self, id: ConnId, dispatch: &Dispatch) {
        self.hijacked.push(id);
        if let Some(connection) = self.remove(id, dispatch) {
            match connection.into_transport().into_bridge() {
                Ok((client, theirs)) => self.bridges.open(id, client, theirs, &self.registry),
                Err(transport) => transport.give_up(&self.registry),
            }
        }
    }

    pub(in crate::worker) fn is_hijacked(&self, id: ConnId) -> bool {
        self.hijacked.contains(&id)
    }

    /// The request of `id` is over. Returns whether its connection was hijacked.
    pub(in crate::worker) fn end_hijacked(&mut self, id: ConnId) -> bool {
        let place = self.hijacked.iter().position(|hijacked| *hijacked == id);
        place.map(|at| self.hijacked.swap_remove(at)).is_some()
    }

    /// Transfer a connection, and the request of `job` that waits or what has come of its next one, with `send`. It gets a
    /// message: the listener's number, then the request. Returns false when the connection has to stay.
    pub(in crate::worker) fn transfer(
        &mut self,
        id: ConnId,
        job: Option<&Job>,
        dispatch: &Dispatch,
        send: impl FnOnce(&[u8], BorrowedFd<'_>) -> io::Result<()>,
    ) -> bool {
        let sent = self.get(id).and_then(|connection| {
            let listener = u8::try_from(connection.listener()).ok()?;
            let (socket, bytes) = connection.transfer(job)?;
            send(&[&[listener], &bytes[..]].concat(), socket)
                .inspect_err(|error| log::debug!("A connection was not transferred: {error}"))
                .ok()
        });
        if sent.is_some() {
            self.give_up(id, dispatch);
        }
        sent.is_some()
    }

    /// Take in what another worker has read of a connection.
    pub(in crate::worker) fn resume_transferred(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        requests: &mut Requests,
        io: &mut SharedIo,
    ) {
        self.act(id, requests, io, |connection, requests, io| {
            connection.resume_transferred(bytes, requests, io)
        });
    }

    fn give_up(&mut self, id: ConnId, dispatch: &Dispatch) {
        if let Some(connection) = self.remove(id, dispatch) {
            connection.into_transport().give_up(&self.registry);
        }
    }
}
