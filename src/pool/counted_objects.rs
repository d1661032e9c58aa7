//! Objects of the application that are whole response bodies and wait for clients: counted once, however many responses have
//! the same one (a page or a file that the application keeps in memory).
//!
//! An object is known by the address of its bytes: it lives as long as a response has it, so no other one has the address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::borrowed_buffer::BorrowedBuffer;

/// By address. `R` is the reservation of an object's bytes: it gives them back when it is dropped.
#[derive(Debug)]
pub(super) struct CountedObjects<R>(Arc<Mutex<HashMap<usize, Counted<R>>>>);

#[derive(Debug)]
struct Counted<R> {
    responses: usize,
    _reservation: R,
}

impl<R: Send + std::fmt::Debug + 'static> CountedObjects<R> {
    /// Count `buffer` until it is dropped: `reserve` its bytes, unless another response has the same object.
    ///
    /// # Errors
    /// They cannot be reserved; the buffer as it was.
    pub(super) fn count(
        &self,
        buffer: Box<dyn BorrowedBuffer>,
        reserve: impl FnOnce(u64) -> Option<R>,
    ) -> Result<Box<dyn BorrowedBuffer>, Box<dyn BorrowedBuffer>> {
        let bytes = buffer.bytes();
        let address = bytes.as_ptr() as usize;
        let mut objects = lock(&self.0);
        if let Some(counted) = objects.get_mut(&address) {
            counted.responses += 1;
        } else if let Some(reservation) = reserve(bytes.len() as u64) {
            let counted = Counted {
                responses: 1,
                _reservation: reservation,
            };
            objects.insert(address, counted);
        } else {
            return Err(buffer);
        }
        drop(objects);
        let objects = self.0.clone();
        let place = Place { objects, address };
        Ok(Box::new(CountedObject {
            _place: place,
            buffer,
        }))
    }
}

impl<R> Default for CountedObjects<R> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

fn lock<R>(
    objects: &Mutex<HashMap<usize, Counted<R>>>,
) -> MutexGuard<'_, HashMap<usize, Counted<R>>> {
    objects.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One response's part in what is counted.
#[derive(Debug)]
struct Place<R> {
    objects: Arc<Mutex<HashMap<usize, Counted<R>>>>,
    address: usize,
}

impl<R> Drop for Place<R> {
    fn drop(&mut self) {
        let mut objects = lock(&self.objects);
        let Some(counted) = objects.get_mut(&self.address) else {
            return;
        };
        counted.responses -= 1;
        if counted.responses == 0 {
            objects.remove(&self.address);
        }
    }
}

/// A buffer that is counted.
#[derive(Debug)]
struct CountedObject<R> {
    /// Dropped first: then another object may have the address.
    _place: Place<R>,
    buffer: Box<dyn BorrowedBuffer>,
}

impl<R: Send + std::fmt::Debug> BorrowedBuffer for CountedObject<R> {
    fn bytes(&self) -> &[u8] {
        self.buffer.bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug)]
    struct Shared(Arc<Vec<u8>>);

    impl BorrowedBuffer for Shared {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    #[test]
    fn an_object_is_counted_once_and_until_the_last_response_has_dropped_it() {
        let objects = CountedObjects::default();
        let reserved = Arc::new(());
        let count = |object: &Arc<Vec<u8>>, bytes_max: u64| {
            let reserve = |bytes| (bytes <= bytes_max).then(|| reserved.clone());
            objects.count(Box::new(Shared(object.clone())), reserve)
        };
        let object = Arc::new(vec![0; 10]);
        let refused = count(&object, 9).unwrap_err();
        assert_eq!(
            (refused.bytes(), Arc::strong_count(&reserved)),
            (&object[..], 1)
        );
        let first = count(&object, 10).unwrap();
        let others: Vec<_> = (0..50).map(|_| count(&object, 0).unwrap()).collect();
        let other_object = count(&Arc::new(vec![1]), 10).unwrap();
        assert_eq!(Arc::strong_count(&reserved), 3);
        drop(first);
        assert!(others.iter().all(|each| each.bytes() == *object));
        assert_eq!(Arc::strong_count(&reserved), 3);
        drop(others);
        assert_eq!(Arc::strong_count(&reserved), 2);
        drop(other_object);
        assert!(count(&object, 0).is_err(), "it is forgotten");
    }
}
