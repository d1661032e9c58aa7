//! Memory for request bodies, used again: a fresh megabyte costs a page fault for every four kilobytes of it.

use std::ops::Deref;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

/// So many buffers are kept for the next large body,
const KEPT_MAX: usize = 4;
/// of at least and at most these lengths: small ones cost little, and a huge one is not worth keeping.
const KEPT_BYTES_MIN: usize = 128 * 1024;
const KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Buffers between two bodies. The event loop takes them, whoever drops a body gives them back.
#[derive(Debug)]
pub struct Spares(ArrayQueue<Vec<u8>>);

impl Default for Spares {
    fn default() -> Self {
        Self(ArrayQueue::new(KEPT_MAX))
    }
}

/// The bytes of a body, whose memory goes back to the [`Spares`] it came from.
///
/// Memory behind the bytes may be initialised already, so that a socket can be read to where the bytes stay.
#[derive(Debug, Default)]
pub struct BodyBytes {
    memory: Vec<u8>,
    len: usize,
    home: Option<Arc<Spares>>,
}

impl BodyBytes {
    /// Room for `len` bytes of a body that is not large.
    pub fn with_capacity(len: usize) -> Self {
        Vec::with_capacity(len).into()
    }

    /// A large body: in used memory, if there is any.
    pub fn large(spares: &Arc<Spares>) -> Self {
        Self {
            memory: spares.0.pop().unwrap_or_default(),
            len: 0,
            home: Some(spares.clone()),
        }
    }

    /// Append `bytes`.
    pub fn extend(&mut self, bytes: &[u8]) {
        let (inside, beyond) = bytes.split_at(bytes.len().min(self.memory.len() - self.len));
        self.memory[self.len..self.len + inside.len()].copy_from_slice(inside);
        self.memory.extend_from_slice(beyond);
        self.len += bytes.len();
    }

    /// The `len` bytes of memory behind the body's, to be written and then [`BodyBytes::filled`].
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.memory.len() < end {
            // The system gives large zeroed memory without writing to it.
            let mut memory = vec![0; end];
            memory[..self.len].copy_from_slice(self);
            self.memory = memory;
        }
        &mut self.memory[self.len..end]
    }

    /// The first `len` bytes of [`BodyBytes::room`] belong to the body now.
    pub fn filled(&mut self, len: usize) {
        debug_assert!(self.len + len <= self.memory.len(), "more than there is");
        self.len = (self.len + len).min(self.memory.len());
    }
}

impl From<Vec<u8>> for BodyBytes {
    fn from(memory: Vec<u8>) -> Self {
        Self {
            len: memory.len(),
            memory,
            home: None,
        }
    }
}

impl Deref for BodyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if let Some(home) = self.home.take()
            && (KEPT_BYTES_MIN..=KEPT_BYTES_MAX).contains(&self.memory.len())
        {
            // When there are enough already, it is freed.
            let _ = home.0.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_appended_read_into_place_and_kept_apart_from_memory() {
        let mut body = BodyBytes::with_capacity(4);
        body.extend(b"abc");
        body.room(5)[..2].copy_from_slice(b"de");
        body.filled(2);
        assert_eq!(&body[..], b"abcde");
        body.extend(b"fghijk");
        assert_eq!(&body[..], b"abcdefghijk");
    }

    #[test]
    fn a_large_bodys_memory_serves_the_next_one_empty() {
        let spares = Arc::new(Spares::default());
        let mut first = BodyBytes::large(&spares);
        first.room(KEPT_BYTES_MIN).fill(7);
        first.filled(KEPT_BYTES_MIN);
        let at = first.as_ptr();
        drop(first);
        let mut second = BodyBytes::large(&spares);
        assert!(second.is_empty());
        second.extend(b"x");
        assert!(&second[..] == b"x" && second.as_ptr() == at);
    }

    #[test]
    fn small_huge_and_too_many_are_not_kept() {
        let spares = Arc::new(Spares::default());
        for len in [KEPT_BYTES_MIN - 1, KEPT_BYTES_MAX + 1] {
            BodyBytes::large(&spares).room(len);
            assert!(spares.0.is_empty());
        }
        let mut bodies: Vec<_> = (0..=KEPT_MAX).map(|_| BodyBytes::large(&spares)).collect();
        for body in &mut bodies {
            body.room(KEPT_BYTES_MIN);
        }
        drop(bodies);
        assert_eq!(spares.0.len(), KEPT_MAX);
    }
}
