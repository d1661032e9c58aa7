//! Everything that touches the interpreter, and the rules of the GIL.
//!
//! 1. The event loop's thread and the arbiter's loop never attach while they serve; the loop runs inside one detach.
//! 2. A pool thread attaches once, when it starts, and stays attached until the pool is closed.
//! 3. It follows the wake-up protocol of `pool/wakeup.rs` and releases the GIL only through [`gil::release`], with a
//!    listed reason. Anything else that blocks while attached is a bug.
//! 4. Bytes are copied while attached; what is decided about HTTP is decided elsewhere.
//! 5. No Rust lock is held across a call into Python, an attach or a detach.
//! 6. The arbiter starts no thread, and Python's before- and after-fork calls surround the fork.

mod app_hint;
mod asgi;
pub mod config_file;
mod data_stacks;
pub mod fork_guard;
pub mod gil;
pub mod green;
pub mod green_application;
mod green_pool;
pub mod heartbeat;
pub mod hooks;
mod hub_call;
mod hub_inbox;
pub mod hub_watch;
pub mod interrupts;
pub mod loader;
pub mod native_thread;
pub mod ssl_context;
pub mod stacks;
mod text;
pub mod threads;
pub mod traceback;
pub mod worker_class;
pub mod wsgi;

/// For tests that need an interpreter: `make check-rust` runs them where Python has a shared library.
#[cfg(test)]
fn with_interpreter<T>(test: impl FnOnce(pyo3::Python<'_>) -> T) -> T {
    pyo3::Python::initialize();
    pyo3::Python::attach(test)
}
