//! PEP 3333, paragraph by paragraph.
//!
//! | PEP 3333 | file |
//! | --- | --- |
//! | The Server/Gateway Side, Error Handling, Thread Support | `app.rs` |
//! | `environ` Variables, URL Reconstruction | `environ.rs`, `headers.rs` |
//! | Input and Error Streams | `input.rs`, `errors.rs` |
//! | The `start_response()` Callable, The `write()` Callable | `start_response.rs` |
//! | Buffering and Streaming, Handling the Content-Length Header | `body.rs` |
//! | (not of PEP 3333) `gunicorn.socket` | `upgrade.rs` |
//! | Optional Platform-Specific File Handling | `file_wrapper.rs` |

mod app;
mod body;
mod environ;
mod errors;
mod file_wrapper;
mod headers;
mod input;
mod start_response;
mod upgrade;

pub use app::{ListenerFace, WsgiApp, WsgiSettings};
