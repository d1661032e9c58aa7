//! What the event loop reads and may not drop.

/// Bytes that belong to the application. The loop reads them; when it has finished they go back through
/// [`super::Pool::defer_drop`] and are dropped on a pool thread.
pub trait BorrowedBuffer: Send + std::fmt::Debug {
    /// The bytes, valid and unchanged for the life of the object.
    fn bytes(&self) -> &[u8];
}
