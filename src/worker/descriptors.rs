//! Descriptors that other parts of the process write to: arrived signals, and signals that the application handles.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::sys::signal::Signal;

use super::events::{self, Descriptor};

/// The read ends, non-blocking.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    signals: Option<File>,
    interrupts: Option<File>,
}

impl Descriptors {
    /// Register those that there are.
    pub(super) fn new(
        signals: Option<OwnedFd>,
        interrupts: Option<OwnedFd>,
        registry: &Registry,
    ) -> io::Result<Self> {
        for (fd, descriptor) in [
            (&signals, Descriptor::Signals),
            (&interrupts, Descriptor::Interrupts),
        ] {
            if let Some(fd) = fd {
                registry.register(
                    &mut SourceFd(&fd.as_raw_fd()),
                    events::of_descriptor(descriptor),
                    Interest::READABLE,
                )?;
            }
        }
        Ok(Self {
            signals: signals.map(File::from),
            interrupts: interrupts.map(File::from),
        })
    }

    /// Signals that have arrived, in order. A byte that is no signal's number is dropped.
    pub(super) fn signals(&mut self) -> Vec<Signal> {
        let mut arrived = Vec::new();
        drain(self.signals.as_mut(), |byte| {
            arrived.extend(Signal::try_from(i32::from(byte)).ok())
        });
        arrived
    }

    pub(super) fn drain_interrupts(&mut self) {
        drain(self.interrupts.as_mut(), |_| {});
    }
}

fn drain(file: Option<&mut File>, mut take: impl FnMut(u8)) {
    let Some(file) = file else { return };
    let mut buffer = [0; 64];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => buffer[..len].iter().for_each(|byte| take(*byte)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
