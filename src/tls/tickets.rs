//! Session tickets whose keys all workers of all generations share, so that each resumes what another has begun.
//!
//! The arbiter holds two random secrets in the shared memory, this period's and the last one's, and replaces them every
//! [`PERIOD_SECONDS`]. A worker derives its keys from a secret and from the client authorities it checks against: under changed
//! authorities the keys have other names, old tickets are not recognised, and those clients make a full handshake. So a client whose
//! authority is no longer trusted cannot come back with a ticket.
//!
//! A ticket is the key's name, a random nonce, and the session under AES-256-GCM (RFC 5077, section 4, has the shape).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use rustls::server::ProducesTickets;

/// How long a secret makes new tickets; it opens them for as long again.
pub(super) const PERIOD_SECONDS: i64 = 12 * 3600;

/// Words of the shared memory: a sequence number, odd while the arbiter writes; both secrets; when the first was made.
pub(super) const TICKET_WORDS: usize = 1 + 2 * SECRET_WORDS + 1;

const SECRET_WORDS: usize = 4;
const NAME_BYTES: usize = 16;

/// One secret, as it stands in the shared memory. Zeroes are none.
type Secret = [u64; SECRET_WORDS];

/// Both secrets and the time of the first, Unix seconds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TicketSecrets {
    current: Secret,
    previous: Secret,
    made_at: i64,
}

impl TicketSecrets {
    /// A new secret, and the one before it. `None`: the one there is serves on, because it is young or because the system
    /// gives no random bytes.
    pub(super) fn next(&self, now: i64) -> Option<Self> {
        let age = now.saturating_sub(self.made_at);
        // A clock that was set back makes a secret from the future; it is replaced, or it would stay for ever.
        if self.current != [0; SECRET_WORDS] && (0..PERIOD_SECONDS).contains(&age) {
            return None;
        }
        let mut bytes = [0; SECRET_WORDS * 8];
        rand::fill(&mut bytes).ok()?;
        let mut current = Secret::default();
        for (word, bytes) in current.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes
                .iter()
                .fold(0, |word, byte| (word << 8) | u64::from(*byte));
        }
        Some(Self {
            current,
            // One that is two periods old has opened tickets for long enough.
            previous: if age < 2 * PERIOD_SECONDS {
                self.current
            } else {
                [0; SECRET_WORDS]
            },
            made_at: now,
        })
    }

    /// In the arbiter.
    pub(super) fn store(&self, words: &[AtomicU64]) {
        let sequence = words[0].load(Ordering::Relaxed) | 1;
        words[0].store(sequence, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in words[1..].iter().zip(self.words()) {
            word.store(value, Ordering::Relaxed);
        }
        words[0].store(sequence + 1, Ordering::Release);
    }

    /// With the sequence number. `None`: the arbiter was writing all the time, or has died while it wrote.
    pub(super) fn read(words: &[AtomicU64]) -> Option<(u64, Self)> {
        for _ in 0..TRIES_MAX {
            let sequence = words[0].load(Ordering::Acquire);
            let mut values = [0; TICKET_WORDS - 1];
            for (value, word) in values.iter_mut().zip(&words[1..]) {
                *value = word.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if sequence % 2 == 0 && words[0].load(Ordering::Relaxed) == sequence {
                return Some((sequence, Self::of_words(values)));
            }
            std::hint::spin_loop();
        }
        None
    }

    pub(super) fn words(&self) -> [u64; TICKET_WORDS - 1] {
        let mut words = [0; TICKET_WORDS - 1];
        words[..SECRET_WORDS].copy_from_slice(&self.current);
        words[SECRET_WORDS..2 * SECRET_WORDS].copy_from_slice(&self.previous);
        words[2 * SECRET_WORDS] = self.made_at as u64;
        words
    }

    pub(super) fn of_words(words: [u64; TICKET_WORDS - 1]) -> Self {
        let mut secrets = Self::default();
        secrets.current.copy_from_slice(&words[..SECRET_WORDS]);
        secrets
            .previous
            .copy_from_slice(&words[SECRET_WORDS..2 * SECRET_WORDS]);
        secrets.made_at = words[2 * SECRET_WORDS] as i64;
        secrets
    }
}

/// The arbiter writes ten words twice a day.
const TRIES_MAX: usize = 1000;

impl fmt::Debug for TicketSecrets {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketSecrets")
            .field("made_at", &self.made_at)
            .finish_non_exhaustive()
    }
}

/// Where the shared memory is, for [`Tickets`].
pub(super) trait TicketWords: fmt::Debug + Send + Sync {
    fn ticket_words(&self) -> &[AtomicU64];
}

/// Makes and opens the tickets of one server configuration.
#[derive(Debug)]
pub(super) struct Tickets<W> {
    shared: W,
    binding: Vec<u8>,
    /// Only the event loop uses it; the lock is for the library's bounds.
    keys: Mutex<Option<Keys>>,
}

#[derive(Debug)]
struct Keys {
    sequence: u64,
    current: Key,
    previous: Option<Key>,
}

#[derive(Debug)]
struct Key {
    name: [u8; NAME_BYTES],
    cipher: LessSafeKey,
}

impl<W: TicketWords> Tickets<W> {
    pub(super) fn new(shared: W, binding: Vec<u8>) -> Self {
        Self {
            shared,
            binding,
            keys: Mutex::new(None),
        }
    }

    fn with_keys<T>(&self, act: impl FnOnce(&Keys) -> Option<T>) -> Option<T> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let words = self.shared.ticket_words();
        let sequence = words[0].load(Ordering::Relaxed);
        if keys.as_ref().is_none_or(|keys| keys.sequence != sequence) {
            if let Some((sequence, secrets)) = TicketSecrets::read(words) {
                *keys = Keys::new(sequence, &secrets, &self.binding);
            }
        }
        act(keys.as_ref()?)
    }
}

impl Keys {
    fn new(sequence: u64, secrets: &TicketSecrets, binding: &[u8]) -> Option<Self> {
        Some(Self {
            sequence,
            current: Key::derive(&secrets.current, binding)?,
            previous: Key::derive(&secrets.previous, binding),
        })
    }
}

impl Key {
    /// `None` without a secret. Anybody could derive a key from zeroes, and make tickets of sessions that never were.
    fn derive(secret: &Secret, binding: &[u8]) -> Option<Self> {
        if *secret == [0; SECRET_WORDS] {
            return None;
        }
        Self::of(secret, binding)
    }

    fn of(secret: &Secret, binding: &[u8]) -> Option<Self> {
        let mut bytes = [0; SECRET_WORDS * 8];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(secret) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let derived = |purpose: &[u8]| {
            let mut context = hmac::Context::with_key(&key);
            context.update(purpose);
            context.update(binding);
            context.sign()
        };
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&derived(b"ticket name").as_ref()[..NAME_BYTES]);
        let cipher = UnboundKey::new(&AES_256_GCM, derived(b"ticket key").as_ref()).ok()?;
        Some(Self {
            name,
            cipher: LessSafeKey::new(cipher),
        })
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = session.to_vec();
        let additional = Aad::from(self.name);
        self.cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), additional, &mut sealed)
            .ok()?;
        Some([&self.name, &nonce[..], &sealed].concat())
    }

    fn open(&self, nonce: [u8; NONCE_LEN], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let session = self
            .cipher
            .open_in_place(nonce, Aad::from(self.name), &mut opened);
        let length = session.ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl<W: TicketWords> ProducesTickets for Tickets<W> {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD_SECONDS as u32
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.with_keys(|keys| keys.current.seal(session))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.with_keys(|keys| {
            let mut known = std::iter::once(&keys.current).chain(&keys.previous);
            known.find(|key| key.name == *name)?.open(*nonce, sealed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Debug)]
    struct Words([AtomicU64; TICKET_WORDS]);

    impl TicketWords for Arc<Words> {
        fn ticket_words(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    fn words() -> Arc<Words> {
        Arc::new(Words([const { AtomicU64::new(0) }; TICKET_WORDS]))
    }

    const NOW: i64 = 1_900_000_000;

    #[test]
    fn one_worker_opens_what_another_has_made() {
        let shared = words();
        TicketSecrets::default().next(NOW).unwrap().store(&shared.0);
        let (one, other) = (
            Tickets::new(Arc::clone(&shared), vec![1]),
            Tickets::new(shared, vec![1]),
        );
        let ticket = one.encrypt(b"session").unwrap();
        assert_ne!(ticket, one.encrypt(b"session").unwrap());
        assert_eq!(other.decrypt(&ticket).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_lives_through_one_change_of_secrets_and_not_two() {
        let shared = words();
        let mut secrets = TicketSecrets::default().next(NOW).unwrap();
        secrets.store(&shared.0);
        let tickets = Tickets::new(Arc::clone(&shared), Vec::new());
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(secrets.next(NOW + PERIOD_SECONDS - 1), None);
        for (times, found) in [(1, Some(b"session".to_vec())), (2, None)] {
            secrets = secrets.next(NOW + times * PERIOD_SECONDS).unwrap();
            secrets.store(&shared.0);
            assert_eq!(tickets.decrypt(&ticket), found, "{times}");
        }
    }

    #[test]
    fn a_secret_from_long_ago_or_from_the_future_is_replaced() {
        let secrets = TicketSecrets::default().next(NOW).unwrap();
        assert!(secrets.next(NOW - 1).is_some());
        let much_later = secrets.next(NOW + 2 * PERIOD_SECONDS).unwrap();
        assert_eq!(much_later.previous, [0; SECRET_WORDS]);
    }

    #[test]
    fn other_authorities_open_no_ticket() {
        let shared = words();
        TicketSecrets::default().next(NOW).unwrap().store(&shared.0);
        let ticket = Tickets::new(Arc::clone(&shared), vec![1])
            .encrypt(b"session")
            .unwrap();
        assert_eq!(Tickets::new(shared, vec![2]).decrypt(&ticket), None);
    }

    #[test]
    fn nothing_is_made_or_opened_without_a_secret() {
        let shared = words();
        let tickets = Tickets::new(Arc::clone(&shared), Vec::new());
        assert_eq!(tickets.encrypt(b"session"), None);
        assert_eq!(tickets.decrypt(&[0; 100]), None);
        TicketSecrets::default().next(NOW).unwrap().store(&shared.0);
        let ticket = tickets.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
        }
        let mut changed = ticket;
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(tickets.decrypt(&changed), None);
    }

    #[test]
    fn a_ticket_that_anybody_could_make_is_not_opened() {
        let shared = words();
        TicketSecrets::default().next(NOW).unwrap().store(&shared.0);
        let tickets = Tickets::new(Arc::clone(&shared), vec![1]);
        let forged = Key::of(&[0; SECRET_WORDS], &[1])
            .unwrap()
            .seal(b"session")
            .unwrap();
        assert_eq!(tickets.decrypt(&forged), None);
    }

    #[test]
    fn an_arbiter_that_died_while_it_wrote_leaves_no_endless_wait() {
        let shared = words();
        shared.0[0].store(1, Ordering::Relaxed);
        assert_eq!(Tickets::new(shared, Vec::new()).encrypt(b"session"), None);
    }
}
