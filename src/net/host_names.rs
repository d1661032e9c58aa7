//! The addresses of host names, for a process that does not wait for them.
//!
//! An address, no name and `localhost` need no look-up. For other names `Lookup`s are under way or have been: what is known
//! is kept, so that processes forked later have it, and asked for again at a reload ([`refresh`]).
//!
//! One table stands for the process, because statsd and syslog are reached through the log, which no caller passes on.
//! At the start, before there is anything to serve, a look-up is waited for; from [`never_wait`] on nothing waits.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::lookup::{Answer, Lookup};

/// Why there is no address.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is asked for.
    #[error("the address of '{0}' is not resolved yet")]
    Pending(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The address of a host, IPv4 first, as gunicorn: only a literal or a name that has nothing else is IPv6.
///
/// # Errors
/// The name is not known, or not yet.
pub fn resolve(host: &str, port: u16) -> Result<SocketAddr, NameError> {
    loop {
        match look(host, port) {
            Err(NameError::Pending(_)) if WAITS.load(Ordering::Relaxed) => {
                lock().entry(host).wait(WAIT_MS);
            }
            result => return result,
        }
    }
}

/// As [`resolve`], but without waiting. A name that was not found is asked for again.
pub fn known(host: &str, port: u16) -> Option<SocketAddr> {
    let found = look(host, port);
    if let Err(NameError::Failed(_)) = found {
        return look(host, port).ok();
    }
    found.ok()
}

fn look(host: &str, port: u16) -> Result<SocketAddr, NameError> {
    if let Some(found) = without_lookup(host) {
        return Ok(first_of(&found, port));
    }
    let mut names = lock();
    let name = names.entry(host);
    name.read();
    if !name.known.is_empty() {
        return Ok(first_of(&name.known, port));
    }
    if let Some(reason) = name.failure.take() {
        return Err(NameError::Failed(reason));
    }
    name.ask()?;
    Err(NameError::Pending(host.to_owned()))
}

/// Whether a look-up of the name is under way.
pub fn is_asked(host: &str) -> bool {
    let mut names = lock();
    let name = names.0.iter_mut().find(|name| name.host == host);
    name.is_some_and(|name| {
        name.read();
        name.lookup.is_some()
    })
}

/// Whether a name is neither known nor found to be unknown. It is asked for then.
pub fn is_pending(host: &str) -> bool {
    if without_lookup(host).is_some() || WAITS.load(Ordering::Relaxed) {
        return false;
    }
    let mut names = lock();
    let name = names.entry(host);
    name.read();
    let has_answer = !name.known.is_empty() || name.failure.is_some();
    // What cannot be asked for, for want of a descriptor, fails where the address is used.
    !has_answer && name.ask().is_ok()
}

/// Asks for all names anew that are known. False when there are none.
pub fn refresh() -> bool {
    let mut names = lock();
    let known = names.0.iter_mut().filter(|name| !name.known.is_empty());
    known.filter_map(|name| name.ask().ok()).count() > 0
}

/// Waits until there is an answer for each name that was asked for, `at_most_ms` for one of them. False when there is not.
pub fn await_answers(at_most_ms: u16) -> bool {
    let mut names = lock();
    names.0.iter_mut().for_each(Name::read);
    if let Some(name) = names.0.iter_mut().find(|name| name.lookup.is_some()) {
        name.wait(at_most_ms);
        name.read();
    }
    names.0.iter().all(|name| name.lookup.is_none())
}

/// From now on nothing is waited for, in this process and in those that it forks.
pub fn never_wait() {
    WAITS.store(false, Ordering::Relaxed);
}

/// This process will not fork, so threads of it may ask. They ask for what is known anew.
pub fn allow_threads() {
    THREADS_OF.store(std::process::id(), Ordering::Relaxed);
    refresh();
}

static NAMES: Mutex<Names> = Mutex::new(Names(Vec::new()));
static WAITS: AtomicBool = AtomicBool::new(true);
/// The id of the process that may have threads.
static THREADS_OF: AtomicU32 = AtomicU32::new(0);

/// No lock is held at a fork of the server: until it forks it has one thread.
fn lock() -> MutexGuard<'static, Names> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Latest last.
#[derive(Debug)]
struct Names(Vec<Name>);

#[derive(Debug)]
struct Name {
    host: String,
    /// With port 0.
    known: Vec<SocketAddr>,
    lookup: Option<Lookup>,
    /// Why the last look-up failed; reported once.
    failure: Option<String>,
}

impl Names {
    fn entry(&mut self, host: &str) -> &mut Name {
        let at = match self.0.iter().position(|name| name.host == host) {
            Some(at) => at,
            None => {
                if self.0.len() >= NAMES_MAX {
                    self.0.remove(0);
                }
                self.0.push(Name {
                    host: host.to_owned(),
                    known: Vec::new(),
                    lookup: None,
                    failure: None,
                });
                self.0.len() - 1
            }
        };
        &mut self.0[at]
    }
}

impl Name {
    fn ask(&mut self) -> io::Result<()> {
        self.read();
        if self.lookup.is_none() {
            let by_thread = THREADS_OF.load(Ordering::Relaxed) == std::process::id();
            self.failure = None;
            self.lookup = Some(Lookup::start(&self.host, by_thread)?);
        }
        Ok(())
    }

    /// Takes the answer, if there is one. One that says nothing takes nothing back.
    fn read(&mut self) {
        let Some(lookup) = &mut self.lookup else {
            return;
        };
        let answer = match lookup.is_of_this_process() {
            true => lookup.read(),
            false => return self.lookup = None,
        };
        match answer {
            Answer::NotYet => return,
            Answer::Found(found) => self.known = found,
            Answer::Failed(reason) => self.failure = Some(reason),
        }
        self.lookup = None;
    }

    fn wait(&self, at_most_ms: u16) {
        if let Some(lookup) = &self.lookup {
            lookup.wait(at_most_ms);
        }
    }
}

fn without_lookup(host: &str) -> Option<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let of = |address: IpAddr| SocketAddr::new(address, 0);
    match host {
        "" => Some(vec![of(Ipv4Addr::UNSPECIFIED.into())]),
        // RFC 6761, 6.3: it always means this machine.
        "localhost" => Some(vec![
            of(Ipv4Addr::LOCALHOST.into()),
            of(Ipv6Addr::LOCALHOST.into()),
        ]),
        host => host.parse().ok().map(|address| vec![of(address)]),
    }
}

/// `found` is not empty.
fn first_of(found: &[SocketAddr], port: u16) -> SocketAddr {
    let ipv4 = found.iter().find(|address| address.is_ipv4());
    let mut address = *ipv4.unwrap_or(&found[0]);
    address.set_port(port);
    address
}

/// Between two looks at what has come.
const WAIT_MS: u16 = 1000;
/// More than the settings of a server name.
const NAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_needs_no_lookup() {
        let resolved = |host| without_lookup(host).map(|found| first_of(&found, 80).to_string());
        assert_eq!(resolved("").as_deref(), Some("0.0.0.0:80"));
        assert_eq!(resolved("localhost").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(resolved("10.0.0.1").as_deref(), Some("10.0.0.1:80"));
        assert_eq!(resolved("[::1]").as_deref(), Some("[::1]:80"));
        assert_eq!(resolved("example.org"), None);
    }

    #[test]
    fn a_name_is_asked_for_once_and_then_known() {
        let mut names = Names(Vec::new());
        let name = names.entry("127.1");
        name.ask().unwrap();
        while name.lookup.is_some() {
            name.wait(WAIT_MS);
            name.read();
        }
        assert_eq!(first_of(&name.known, 5).to_string(), "127.0.0.1:5");
        // What fails later leaves it known.
        name.host = "name.invalid.".to_owned();
        name.ask().unwrap();
        while name.lookup.is_some() {
            name.wait(WAIT_MS);
            name.read();
        }
        assert!(name.failure.is_some() && !name.known.is_empty());
        for host in 0..NAMES_MAX {
            names.entry(&host.to_string());
        }
        assert_eq!(names.0.len(), NAMES_MAX);
        assert!(names.0.iter().all(|name| name.host != "name.invalid."));
    }
}
