//! What the arbiter publishes to workers: the newest `Material`, and the secrets of session tickets.
//!
//! It stands in memory that workers inherit and cannot write ([`shared_region`](super::shared_region)): a page of words, and two
//! places for a `Material`. Generation n stands in place n modulo 2 and is complete before the number is stored, so a reader that finds the
//! same number before and after its copy has copied one generation. A worker learns of a new one by one load.

use std::fs::File;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::material::Material;
use super::shared_region::{self, SharedRegion};
use super::tickets::{TICKET_WORDS, TicketSecrets, TicketWords, Tickets};
use super::tls_error::TlsError;
use super::tls_server::Server;

/// Words of the first page: those of the tickets, and then these.
const GENERATION: usize = TICKET_WORDS;
const NOT_AFTER: usize = GENERATION + 1;
const LENGTHS: usize = NOT_AFTER + 1;
const PLACE: usize = 512;

/// One place: revocation lists of large authorities have several MiB. Pages cost nothing until they are used.
const PLACE_WORDS: usize = 16 * 1024 * 1024 / size_of::<u64>();
const REGION_BYTES: NonZeroUsize =
    NonZeroUsize::new((PLACE + 2 * PLACE_WORDS) * size_of::<u64>()).unwrap();

const _: () = assert!(
    LENGTHS + 2 <= PLACE,
    "the first page has room for all words"
);

/// The arbiter's side. One per master, made before its first fork.
#[derive(Debug)]
pub struct Publisher {
    writable: SharedRegion,
    certificates: Arc<Certificates>,
    /// What workers have.
    newest: Option<Material>,
}

impl Publisher {
    /// `carried`: what an old master has left (`leave_tickets`).
    ///
    /// # Errors
    /// The kernel refuses the memory.
    pub fn new(carried: Option<OwnedFd>) -> io::Result<Self> {
        let (writable, readable) = shared_region::create(REGION_BYTES)?;
        // Without the old master's keys its clients make full handshakes.
        if let Some(secrets) = carried.and_then(|file| read_tickets(file).ok()) {
            secrets.store(writable.words());
        }
        Ok(Self {
            writable,
            certificates: Arc::new(Certificates { readable }),
            newest: None,
        })
    }

    /// For a successor (USR2): a file in memory with the secrets of tickets, which survives an exec. Both masters replace their
    /// secrets at their own times from then on.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn leave_tickets(&self) -> io::Result<OwnedFd> {
        // In a child of the arbiter, which does not have its mapping.
        let words = self.certificates.readable.words();
        let (_, secrets) = TicketSecrets::read(words).unwrap_or_default();
        let file = memfd_create("ferricorn-tickets", MFdFlags::empty())?;
        let mut file = File::from(file);
        for word in secrets.words() {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(file.into())
    }

    /// For workers. Those that exist see what is published later.
    #[must_use]
    pub fn certificates(&self) -> Arc<Certificates> {
        Arc::clone(&self.certificates)
    }

    /// The newest one.
    #[must_use]
    pub fn material(&self) -> Option<&Material> {
        self.newest.as_ref()
    }

    /// Workers take it at their next tick. One that they have already is not published again.
    ///
    /// # Errors
    /// It is too large.
    pub fn publish(&mut self, material: Material) -> Result<(), TlsError> {
        if self.newest.as_ref() == Some(&material) {
            return Ok(());
        }
        let bytes = material.to_bytes();
        let words = self.writable.words();
        let generation = words[GENERATION].load(Ordering::Relaxed) + 1;
        let (length, place) = place_of(words, generation);
        if bytes.len() > size_of_val(place) {
            return Err(TlsError::TooLarge(bytes.len()));
        }
        for (word, bytes) in place.iter().zip(bytes.chunks(size_of::<u64>())) {
            let mut value = [0; size_of::<u64>()];
            value[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(value), Ordering::Relaxed);
        }
        length.store(bytes.len() as u64, Ordering::Relaxed);
        words[NOT_AFTER].store(material.not_after() as u64, Ordering::Relaxed);
        words[GENERATION].store(generation, Ordering::Release);
        // The stores of the next generation, into the other place, must not be seen before this number.
        fence(Ordering::Release);
        self.newest = Some(material);
        Ok(())
    }

    /// A new ticket secret once the one there is is old enough; `now` in Unix seconds.
    pub fn rotate_tickets(&self, now: i64) {
        let words = self.writable.words();
        let (_, secrets) = TicketSecrets::read(words).unwrap_or_default();
        if let Some(next) = secrets.next(now) {
            next.store(words);
        }
    }
}

fn read_tickets(file: OwnedFd) -> io::Result<TicketSecrets> {
    let file = File::from(file);
    let mut words = [0; TICKET_WORDS - 1];
    for (at, word) in (0..).zip(&mut words) {
        let mut bytes = [0; size_of::<u64>()];
        file.read_exact_at(&mut bytes, at * size_of::<u64>() as u64)?;
        *word = u64::from_le_bytes(bytes);
    }
    Ok(TicketSecrets::of_words(words))
}

/// Of a generation: its length in bytes, and its words.
fn place_of(words: &[AtomicU64], generation: u64) -> (&AtomicU64, &[AtomicU64]) {
    let place = usize::from(generation % 2 == 1);
    let start = PLACE + place * PLACE_WORDS;
    (&words[LENGTHS + place], &words[start..start + PLACE_WORDS])
}

/// The workers' side: what the arbiter has published. Forks inherit it.
#[derive(Debug)]
pub struct Certificates {
    readable: SharedRegion,
}

impl Certificates {
    /// Which `Material` is the newest; 0 while there is none.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.readable.words()[GENERATION].load(Ordering::Relaxed)
    }

    /// When the first of the newest certificates expires: Unix seconds. 0 while there are none.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.readable.words()[NOT_AFTER].load(Ordering::Relaxed) as i64
    }

    fn read(&self) -> Result<(u64, Material), TlsError> {
        let words = self.readable.words();
        for _ in 0..TRIES_MAX {
            let generation = words[GENERATION].load(Ordering::Acquire);
            let (length, place) = place_of(words, generation);
            let length = length.load(Ordering::Relaxed);
            let length = usize::try_from(length).map_err(|_| TlsError::Unreadable)?;
            let count = length.div_ceil(size_of::<u64>()).min(place.len());
            let mut bytes = Vec::with_capacity(count * size_of::<u64>());
            for word in &place[..count] {
                bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
            }
            bytes.truncate(length);
            fence(Ordering::Acquire);
            if words[GENERATION].load(Ordering::Relaxed) == generation {
                let material = Material::from_bytes(&bytes).ok_or(TlsError::Unreadable)?;
                return Ok((generation, material));
            }
        }
        Err(TlsError::Unreadable)
    }
}

/// The arbiter publishes at most once a second.
const TRIES_MAX: usize = 10;

impl TicketWords for Arc<Certificates> {
    fn ticket_words(&self) -> &[AtomicU64] {
        &self.readable.words()[..TICKET_WORDS]
    }
}

/// A worker's server, and whether the arbiter has published another since.
#[derive(Debug)]
pub struct CurrentServer {
    certificates: Arc<Certificates>,
    generation: u64,
    server: Arc<Server>,
}

/// What a look at the shared memory has brought.
#[derive(Debug)]
pub enum Refreshed {
    Unchanged,
    /// New connections use the new one.
    Replaced,
    /// The old one serves on. Told once for each generation.
    Failed(TlsError),
}

impl CurrentServer {
    /// # Errors
    /// Nothing is published, or it cannot be used.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, TlsError> {
        let (generation, server) = build(&certificates)?;
        Ok(Self {
            certificates,
            generation,
            server,
        })
    }

    #[must_use]
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// One load while nothing has changed.
    pub fn refresh(&mut self) -> Refreshed {
        let newest = self.certificates.generation();
        if newest == self.generation {
            return Refreshed::Unchanged;
        }
        match build(&self.certificates) {
            Ok((generation, server)) => {
                self.generation = generation;
                self.server = server;
                Refreshed::Replaced
            }
            Err(error) => {
                self.generation = newest;
                Refreshed::Failed(error)
            }
        }
    }
}

fn build(certificates: &Arc<Certificates>) -> Result<(u64, Arc<Server>), TlsError> {
    let (generation, material) = certificates.read()?;
    let tickets = Tickets::new(Arc::clone(certificates), material.session_binding());
    let server = Server::new(&material, Arc::new(tickets))?;
    Ok((generation, Arc::new(server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_material::{Client, material};

    #[test]
    fn a_worker_takes_each_new_certificate_once() {
        let mut publisher = Publisher::new(None).unwrap();
        publisher.rotate_tickets(1);
        assert!(matches!(
            CurrentServer::new(publisher.certificates()),
            Err(TlsError::Unreadable)
        ));
        let (first, first_authority) = material("a.example");
        publisher.publish(first.clone()).unwrap();
        let mut current = CurrentServer::new(publisher.certificates()).unwrap();
        assert!(matches!(current.refresh(), Refreshed::Unchanged));
        assert_eq!(current.server().not_after(), first.not_after());

        publisher.publish(first).unwrap();
        assert!(matches!(current.refresh(), Refreshed::Unchanged));
        let (second, second_authority) = material("a.example");
        publisher.publish(second).unwrap();
        let before = Arc::clone(current.server());
        assert!(matches!(current.refresh(), Refreshed::Replaced));
        assert!(matches!(current.refresh(), Refreshed::Unchanged));

        Client::new(&second_authority)
            .shake_hands(current.server(), "a.example")
            .unwrap();
        Client::new(&first_authority)
            .shake_hands(&before, "a.example")
            .unwrap();
        Client::new(&first_authority)
            .shake_hands(current.server(), "a.example")
            .unwrap_err();
    }

    #[test]
    fn a_session_of_one_worker_is_resumed_in_another_and_after_a_new_certificate() {
        let mut publisher = Publisher::new(None).unwrap();
        publisher.rotate_tickets(1);
        let (first, authority) = material("a.example");
        publisher.publish(first.clone()).unwrap();
        let one = CurrentServer::new(publisher.certificates()).unwrap();
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let client = Client::of_version(&authority, version);
            let mut other = CurrentServer::new(publisher.certificates()).unwrap();
            assert!(
                !client
                    .shake_hands(one.server(), "a.example")
                    .unwrap()
                    .is_resumed
            );
            assert!(
                client
                    .shake_hands(other.server(), "a.example")
                    .unwrap()
                    .is_resumed
            );
            let mut next = first.clone();
            next.alpn = vec![format!("{version:?}").into_bytes(), b"http/1.1".to_vec()];
            publisher.publish(next).unwrap();
            assert!(matches!(other.refresh(), Refreshed::Replaced));
            assert!(
                client
                    .shake_hands(other.server(), "a.example")
                    .unwrap()
                    .is_resumed
            );
        }
    }

    #[test]
    fn a_session_of_the_old_master_is_resumed_under_the_new_one() {
        let (material, authority) = material("a.example");
        let mut old = Publisher::new(None).unwrap();
        old.rotate_tickets(1);
        let client = Client::new(&authority);
        let mut new = Publisher::new(Some(old.leave_tickets().unwrap())).unwrap();
        new.rotate_tickets(1);
        for (publisher, is_resumed) in [(&mut old, false), (&mut new, true)] {
            publisher.publish(material.clone()).unwrap();
            let current = CurrentServer::new(publisher.certificates()).unwrap();
            let handshake = client.shake_hands(current.server(), "a.example").unwrap();
            assert_eq!(handshake.is_resumed, is_resumed);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_and_the_old_one_stays() {
        let mut publisher = Publisher::new(None).unwrap();
        let (small, _) = material("a.example");
        publisher.publish(small.clone()).unwrap();
        let mut large = small.clone();
        large.alpn = vec![vec![0; 17 * 1024 * 1024]];
        assert!(matches!(
            publisher.publish(large),
            Err(TlsError::TooLarge(_))
        ));
        assert_eq!(publisher.certificates().read().unwrap(), (1, small));
    }
}
