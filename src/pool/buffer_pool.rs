//! Memory for request bodies, used again: fresh memory costs a page fault for every four kilobytes of it.

use std::ops::Deref;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

/// Bodies of this length and more use memory again. Smaller ones cost little.
pub const REUSED_BYTES_MIN: usize = 16 * 1024;
/// A small buffer has up to this many bytes.
const SMALL_BYTES_MAX: usize = 128 * 1024;
/// This many of them are kept: as many as may well be under way together.
const SMALL_KEPT_MAX: usize = 64;
/// A large buffer has up to this many bytes. Longer ones are not worth keeping.
const LARGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// This many of them are kept. More gained nothing when measured.
const LARGE_KEPT_MAX: usize = 4;

/// Buffers between two bodies. The event loop takes them, a body that is dropped gives them back.
#[derive(Debug)]
pub struct BufferPool {
    small: ArrayQueue<Vec<u8>>,
    large: ArrayQueue<Vec<u8>>,
}

impl Default for BufferPool {
    fn default() -> Self {
        Self {
            small: ArrayQueue::new(SMALL_KEPT_MAX),
            large: ArrayQueue::new(LARGE_KEPT_MAX),
        }
    }
}

impl BufferPool {
    /// The queue for memory of this length.
    fn queue(&self, len: usize) -> Option<&ArrayQueue<Vec<u8>>> {
        if !(REUSED_BYTES_MIN..=LARGE_BYTES_MAX).contains(&len) {
            return None;
        }
        let is_small = len <= SMALL_BYTES_MAX;
        Some(if is_small { &self.small } else { &self.large })
    }
}

/// The bytes of a body, whose memory goes back to the [`BufferPool`] it came from.
#[derive(Debug, Default)]
pub struct BodyBytes {
    memory: Vec<u8>,
    home: Option<Arc<BufferPool>>,
}

impl BodyBytes {
    /// A body that may become `len` bytes long: in used memory, if there is any. A length alone allocates nothing.
    pub fn expecting(len: usize, pool: &Arc<BufferPool>) -> Self {
        let queue = pool.queue(len);
        Self {
            memory: queue.and_then(ArrayQueue::pop).unwrap_or_default(),
            home: Some(pool.clone()),
        }
    }

    /// The bytes and the room behind them, to be added to.
    pub fn memory(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    /// How many bytes fit without more memory.
    pub fn spare(&self) -> usize {
        self.memory.capacity() - self.memory.len()
    }
}

impl Deref for BodyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        if let Some(home) = self.home.take()
            && let Some(queue) = home.queue(self.memory.capacity())
        {
            self.memory.clear();
            // When there are enough already, it is freed.
            let _ = queue.push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bodys_memory_serves_the_next_one_of_its_kind_empty() {
        let pool = Arc::new(BufferPool::default());
        for len in [REUSED_BYTES_MIN, SMALL_BYTES_MAX, LARGE_BYTES_MAX] {
            let mut first = BodyBytes::expecting(len, &pool);
            first.memory().resize(len, 7);
            let at = first.as_ptr();
            drop(first);
            let mut second = BodyBytes::expecting(len, &pool);
            assert!(second.is_empty());
            second.memory().extend(b"x");
            assert!(&second[..] == b"x" && second.as_ptr() == at);
        }
    }

    #[test]
    fn small_huge_and_too_many_are_not_kept() {
        let pool = Arc::new(BufferPool::default());
        for len in [REUSED_BYTES_MIN - 1, LARGE_BYTES_MAX + 1] {
            BodyBytes::expecting(len, &pool).memory().reserve_exact(len);
            assert!(pool.small.is_empty() && pool.large.is_empty());
        }
        for len in [REUSED_BYTES_MIN, SMALL_BYTES_MAX + 1] {
            let mut bodies: Vec<_> = (0..=SMALL_KEPT_MAX)
                .map(|_| BodyBytes::expecting(len, &pool))
                .collect();
            for body in &mut bodies {
                body.memory().reserve_exact(len);
            }
        }
        assert_eq!(
            (pool.small.len(), pool.large.len()),
            (SMALL_KEPT_MAX, LARGE_KEPT_MAX)
        );
    }
}
