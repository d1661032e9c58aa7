//! The arbiter's listening sockets: opened, taken over, kept across a reload, and closed.
//!
//! With `reuse_port` there are as many sockets of each TCP address as there are workers. The arbiter opens them all
//! and keeps them, and every worker accepts from all of them: the kernel spreads connections over as many queues, and
//! none of these dies with a worker, or waits for one that is gone to be replaced.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::config::Config;
use crate::net::inherit::AdoptError;
use crate::net::{self, AddressError, BindAddress, BindError, BindOptions, Bound, Listener, Wait};

/// The sockets that are listened on now, those that are about to be closed, and those that came from outside.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    current: Vec<Arc<Bound>>,
    /// Workers of before still accept from them.
    dropped: Vec<Dropped>,
    /// systemd's descriptors: used instead of `bind`.
    inherited: Vec<RawFd>,
    /// Of the old master, until they are shared out.
    from_old_master: Vec<Listener>,
}

/// A socket that is not listened on any more.
#[derive(Debug)]
struct Dropped {
    bound: Arc<Bound>,
    /// Ages of the workers that have it.
    holders: Vec<u64>,
}

/// Why there are no listeners.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot use the sockets of systemd")]
    Adopt(#[source] AdoptError),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Bind(#[from] BindError),
}

impl ListenError {
    /// Nothing is wrong, but a name is being looked up.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self, Self::Bind(BindError::Pending(_)))
    }
}

impl Listeners {
    pub(super) fn new(inherited: Vec<RawFd>, from_old_master: Vec<Listener>) -> Self {
        Self {
            current: Vec::new(),
            dropped: Vec::new(),
            inherited,
            from_old_master,
        }
    }

    /// At the start. What the old master or systemd has opened is not opened again. `wait` is called between attempts
    /// and stops them by answering false.
    ///
    /// # Errors
    /// An address is wrong or cannot be had.
    pub(super) fn open(
        &mut self,
        config: &Config,
        mut wait: impl FnMut(Wait) -> bool,
    ) -> Result<(), ListenError> {
        let options = bind_options(config);
        let opened: Vec<Bound> = if self.inherited.is_empty() {
            let addresses = parse_addresses(config)?;
            // Also to find which of the old master's sockets are at them.
            net::look_up(&addresses, &mut wait)?;
            let from_old_master = std::mem::take(&mut self.from_old_master);
            let (taken, missing) = net::inherit::share_out(from_old_master, &addresses);
            let bound = net::bind_all(&missing, &options, wait)?;
            taken.into_iter().chain(bound).collect()
        } else {
            net::adopt_all(&self.inherited, &options).map_err(ListenError::Adopt)?
        };
        self.current = opened.into_iter().map(Arc::new).collect();
        Ok(())
    }

    /// At a reload: the listeners for `config`. Those whose address is asked for again are kept, the others opened.
    ///
    /// # Errors
    /// An address is wrong or cannot be had; nothing has changed then.
    pub(super) fn for_config(&self, config: &Config) -> Result<Vec<Arc<Bound>>, ListenError> {
        if !self.inherited.is_empty() {
            return Ok(self.current.clone());
        }
        let addresses = parse_addresses(config)?;
        let is_of = |bound: &Arc<Bound>, address: &BindAddress| bound.address == *address;
        let mut listeners: Vec<_> = addresses
            .iter()
            .flat_map(|address| self.current.iter().filter(|bound| is_of(bound, address)))
            .cloned()
            .collect();
        // One that was dropped a moment ago is still bound. The file of a unix socket is gone by then.
        let dropped = self.dropped.iter().map(|dropped| &dropped.bound);
        let dropped: Vec<_> = dropped
            .filter(|bound| matches!(bound.address, BindAddress::Tcp { .. }))
            .filter(|bound| addresses.contains(&bound.address))
            .filter(|bound| !listeners.iter().any(|kept| is_of(kept, &bound.address)))
            .cloned()
            .collect();
        listeners.extend(dropped);
        let missing: Vec<_> = addresses
            .into_iter()
            .filter(|address| !listeners.iter().any(|bound| is_of(bound, address)))
            .collect();
        // All at once, and not one after the other.
        net::ask_names(&missing);
        let opened = net::bind_all(&missing, &bind_options(config), |_| false)?;
        listeners.extend(opened.into_iter().map(Arc::new));
        Ok(listeners)
    }

    /// Listens on `listeners` from now on. Returns those of before.
    pub(super) fn replace(&mut self, listeners: Vec<Arc<Bound>>) -> Vec<Arc<Bound>> {
        std::mem::replace(&mut self.current, listeners)
    }

    pub(super) fn differ_from(&self, before: &[Arc<Bound>]) -> bool {
        let is_new = |bound: &Arc<Bound>| !before.iter().any(|old| Arc::ptr_eq(old, bound));
        self.current.len() != before.len() || self.current.iter().any(is_new)
    }

    /// Removes the socket files of `listeners` whose address is not listened on any more.
    pub(super) fn unlink_unused(&self, listeners: &[Arc<Bound>]) {
        for bound in listeners {
            let is_kept = |kept: &Arc<Bound>| kept.address == bound.address;
            if !self.current.iter().any(is_kept) {
                bound.unlink();
            }
        }
    }

    /// `listeners` are not listened on any more, apart from those that still are: once the workers of these ages accept
    /// from them no more, they are ended.
    pub(super) fn drop_unused(&mut self, listeners: Vec<Arc<Bound>>, holders: &[u64]) {
        for bound in listeners {
            let is_same = |kept: &Arc<Bound>| Arc::ptr_eq(kept, &bound);
            if !self.current.iter().any(is_same) {
                let holders = holders.to_vec();
                self.dropped.push(Dropped { bound, holders });
            }
        }
    }

    /// Closes what was dropped and no worker accepts from: `accepts` says that of a worker's age. `are_ended`: no other
    /// server shares the sockets, so whatever else holds them loses them.
    pub(super) fn close_dropped(&mut self, accepts: impl Fn(u64) -> bool, are_ended: bool) {
        let current = &self.current;
        self.dropped.retain(|dropped| {
            let is_held = dropped.holders.iter().any(|age| accepts(*age));
            let is_back = current.iter().any(|kept| Arc::ptr_eq(kept, &dropped.bound));
            if !is_held && !is_back && are_ended {
                dropped.bound.end();
            }
            is_held && !is_back
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bound> {
        self.current.iter().map(AsRef::as_ref)
    }

    /// For the line "Listening at".
    pub(super) fn describe(&self, config: &Config) -> String {
        let described = net::describe(self.iter().map(|bound| &bound.listener));
        match config.tls {
            Some(_) => described.replace("http://", "https://"),
            None => described,
        }
    }

    /// Descriptor and name of each, as hooks see them.
    pub(super) fn infos(&self) -> Vec<(RawFd, String)> {
        self.iter().map(|bound| bound.listener.info()).collect()
    }

    /// Descriptors of a child's own.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(super) fn try_clone(&self) -> io::Result<Vec<Listener>> {
        self.iter()
            .map(|bound| bound.listener.try_clone())
            .collect()
    }

    /// In the child that becomes a new master: the environment variables by which it finds the sockets, which from now
    /// on survive an exec.
    ///
    /// # Errors
    /// A descriptor is not open.
    pub(super) fn leave_to_new_master(&self, new_master: i32) -> io::Result<Vec<(String, String)>> {
        if !self.inherited.is_empty() {
            // systemd's own numbers are still open, and stay where they are.
            return Ok(vec![
                ("LISTEN_PID".to_owned(), new_master.to_string()),
                ("LISTEN_FDS".to_owned(), self.inherited.len().to_string()),
            ]);
        }
        let mut numbers = Vec::new();
        for bound in self.iter() {
            fcntl(&bound.listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
            numbers.push(bound.listener.as_raw_fd().to_string());
        }
        Ok(vec![("GUNICORN_FD".to_owned(), numbers.join(","))])
    }
}

/// Whether this server has opened all of them.
pub(super) fn are_own(listeners: &[Arc<Bound>]) -> bool {
    let is_own = |bound: &Arc<Bound>| !matches!(bound.address, BindAddress::Fd(_));
    listeners.iter().all(is_own)
}

fn parse_addresses(config: &Config) -> Result<Vec<BindAddress>, AddressError> {
    config.socket.bind.iter().map(|text| text.parse()).collect()
}

fn bind_options(config: &Config) -> BindOptions {
    BindOptions {
        backlog: config.socket.backlog,
        umask: config.process.umask,
        queues: if config.socket.reuse_port {
            Some(config.workers.workers.clamp(1, QUEUES_MAX))
        } else {
            None
        },
        owner: Some((config.process.user, config.process.group)),
    }
}

/// More queues than cores are of no use, and each is a descriptor in every worker.
const QUEUES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{getegid, geteuid};

    fn config(bind: &[String]) -> Config {
        let mut config = Config::default();
        config.socket.bind = bind.to_vec();
        config.process.user = geteuid().as_raw();
        config.process.group = getegid().as_raw();
        config
    }

    #[test]
    fn a_reload_keeps_what_is_asked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let bind = |name: &str| format!("unix:{}", path(name).display());
        let mut listeners = Listeners::default();
        listeners
            .open(&config(&[bind("a"), bind("b")]), |_| false)
            .unwrap();
        let next = listeners
            .for_config(&config(&[bind("b"), bind("c")]))
            .unwrap();
        let before = listeners.replace(next);
        assert!(listeners.differ_from(&before));
        assert_eq!(
            listeners.describe(&config(&[])),
            format!("{},{}", bind("b"), bind("c"))
        );
        listeners.unlink_unused(&before);
        assert!(!path("a").exists() && path("b").exists() && path("c").exists());
        let same = listeners
            .for_config(&config(&[bind("b"), bind("c")]))
            .unwrap();
        let before = listeners.replace(same);
        assert!(!listeners.differ_from(&before));
        let wrong = listeners.for_config(&config(&["http://x".to_owned()]));
        assert!(matches!(wrong, Err(ListenError::Address(_))));
    }

    #[test]
    fn a_new_master_finds_the_sockets_in_its_environment() {
        let mut listeners = Listeners::default();
        listeners
            .open(&config(&["127.0.0.1:0".to_owned()]), |_| false)
            .unwrap();
        let fd = listeners.infos()[0].0;
        let variables = listeners.leave_to_new_master(77).unwrap();
        assert_eq!(variables, [("GUNICORN_FD".to_owned(), fd.to_string())]);
        let adopted = Listeners::new(vec![3, 4], Vec::new());
        let variables = adopted.leave_to_new_master(77).unwrap();
        let expected = [("LISTEN_PID", "77"), ("LISTEN_FDS", "2")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(variables, expected);
    }
}
