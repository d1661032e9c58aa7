//! What a pool thread is running, on the scoreboard: a bounded copy of method and path, and for whom.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The request that a pool thread runs, as text for operators.
///
/// One writer (the pool thread), any number of readers in other processes. The writer makes `sequence` odd,
/// writes, and makes it even again; a reader that sees an odd or changed number tries again a few times and
/// then gives up, so neither ever waits for the other.
#[derive(Clone, Copy, Debug)]
pub struct ThreadSlot<'a>(&'a ThreadData);

impl<'a> ThreadSlot<'a> {
    pub(super) fn new(data: &'a ThreadData) -> Self {
        Self(data)
    }

    /// A request starts. Method and path are cut to what fits.
    pub fn begin(self, now_ms: u64, client: Option<IpAddr>, method: &[u8], path: &[u8]) {
        let method = &method[..method.len().min(METHOD_WORDS * 8)];
        let path = &path[..path.len().min(PATH_WORDS * 8)];
        let lengths = (method.len() << 16 | path.len()) as u32;
        self.write(|data| {
            data.lengths.store(lengths, Ordering::Relaxed);
            data.since_ms.store(now_ms.max(1), Ordering::Relaxed);
            store_client(&data.client, client);
            store_text(&data.method, method);
            store_text(&data.path, path);
        });
    }

    pub fn end(self) {
        self.write(|data| data.since_ms.store(0, Ordering::Relaxed));
    }

    /// What runs now, or `None` when nothing does (or it changes faster than it can be read).
    #[must_use]
    pub fn read(self) -> Option<Running> {
        (0..READ_ATTEMPTS).find_map(|_| self.try_read()).flatten()
    }

    fn try_read(self) -> Option<Option<Running>> {
        let before = self.0.sequence.load(Ordering::Acquire);
        if before % 2 == 1 {
            return None;
        }
        let since_ms = self.0.since_ms.load(Ordering::Relaxed);
        let lengths = self.0.lengths.load(Ordering::Relaxed) as usize;
        let client = load_client(&self.0.client);
        let method = load_text(&self.0.method, lengths >> 16);
        let path = load_text(&self.0.path, lengths & 0xffff);
        // Pairs with the release fence in `write`: if any of the loads above saw a later write, the next
        // load sees a later sequence.
        fence(Ordering::Acquire);
        if self.0.sequence.load(Ordering::Relaxed) != before {
            return None;
        }
        Some((since_ms != 0).then_some(Running {
            since_ms,
            client,
            method,
            path,
        }))
    }

    fn write(self, store: impl FnOnce(&ThreadData)) {
        let sequence = self.0.sequence.load(Ordering::Relaxed);
        self.0
            .sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        store(self.0);
        self.0
            .sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }
}

/// A running request, copied from the scoreboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub since_ms: u64,
    /// `None` on a unix socket.
    pub client: Option<IpAddr>,
    pub method: Vec<u8>,
    pub path: Vec<u8>,
}

/// As an IPv6 address; `::` is no client and stands for none.
fn store_client(words: &[AtomicU64; 2], client: Option<IpAddr>) {
    let bits = match client {
        None => 0,
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
        Some(IpAddr::V6(v6)) => v6.to_bits(),
    };
    words[0].store((bits >> 64) as u64, Ordering::Relaxed);
    words[1].store(bits as u64, Ordering::Relaxed);
}

fn load_client(words: &[AtomicU64; 2]) -> Option<IpAddr> {
    let half = |at: usize| u128::from(words[at].load(Ordering::Relaxed));
    let bits = half(0) << 64 | half(1);
    (bits != 0).then(|| Ipv6Addr::from_bits(bits).to_canonical())
}

fn store_text(words: &[AtomicU64], text: &[u8]) {
    for (word, bytes) in words.iter().zip(text.chunks(8)) {
        let mut packed = [0; 8];
        packed[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_ne_bytes(packed), Ordering::Relaxed);
    }
}

fn load_text(words: &[AtomicU64], length: usize) -> Vec<u8> {
    let mut text: Vec<u8> = words
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
        .collect();
    text.truncate(length);
    text
}

#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct ThreadData {
    sequence: AtomicU32,
    /// Method length in the upper half, path length in the lower.
    lengths: AtomicU32,
    since_ms: AtomicU64,
    client: [AtomicU64; 2],
    method: [AtomicU64; METHOD_WORDS],
    path: [AtomicU64; PATH_WORDS],
}

impl ThreadData {
    /// Forgets what a dead worker left. Only threads that ever ran something are written to, so that
    /// untouched pages stay free.
    pub(super) fn wipe(&self) {
        if self.sequence.load(Ordering::Relaxed) != 0 {
            self.since_ms.store(0, Ordering::Relaxed);
            self.sequence.store(0, Ordering::Relaxed);
        }
    }
}

const METHOD_WORDS: usize = 2;
const PATH_WORDS: usize = 18;
const READ_ATTEMPTS: usize = 4;

const _: () = assert!(size_of::<ThreadData>() == 192);

#[cfg(test)]
mod tests {
    use crate::scoreboard::Scoreboard;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn long_method_and_path_are_cut() {
        let scoreboard = Scoreboard::new(1, 1).unwrap();
        let thread = scoreboard.slot(0).thread(0);
        thread.begin(9, None, &[b'M'; 40], &[b'/'; 4000]);
        let running = thread.read().unwrap();
        assert_eq!(
            (running.method.len(), running.path.len(), running.since_ms),
            (16, 144, 9)
        );
        assert_eq!(running.client, None);
        for text in ["192.0.2.1", "2001:db8::1"] {
            let client: Option<IpAddr> = text.parse().ok();
            thread.begin(10, client, b"GET", b"/short");
            let running = thread.read().unwrap();
            assert_eq!(
                (&running.path[..], running.client),
                (&b"/short"[..], client)
            );
        }
        thread.end();
        assert_eq!(thread.read(), None);
    }

    #[test]
    fn readers_never_see_a_mixed_request() {
        let scoreboard = Arc::new(Scoreboard::new(1, 1).unwrap());
        let done = Arc::new(AtomicBool::new(false));
        let writer = {
            let (scoreboard, done) = (Arc::clone(&scoreboard), Arc::clone(&done));
            std::thread::spawn(move || {
                let thread = scoreboard.slot(0).thread(0);
                for turn in 0..100_000_u64 {
                    let letter = b'a' + (turn % 26) as u8;
                    let length = 1 + (turn % 90) as usize;
                    let client = Some(IpAddr::from([letter; 16]));
                    thread.begin(
                        u64::from(letter),
                        client,
                        &[letter; 4],
                        &vec![letter; length],
                    );
                    if turn % 3 == 0 {
                        thread.end();
                    }
                }
                done.store(true, Ordering::Relaxed);
            })
        };
        while !done.load(Ordering::Relaxed) {
            if let Some(running) = scoreboard.slot(0).thread(0).read() {
                let letter = running.since_ms as u8;
                assert_eq!(running.method, [letter; 4]);
                assert_eq!(running.client, Some(IpAddr::from([letter; 16])));
                assert!(running.path.iter().all(|byte| *byte == letter));
            }
        }
        writer.join().unwrap();
    }
}
