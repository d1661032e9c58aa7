//! TLS: what the operator's files hold, checked by the arbiter, published to the workers, and served there.
//!
//! The arbiter [`load`]s certificates, keys, authorities and revocation lists into a [`Material`], because it alone may be
//! allowed to read the key. It [`publish`](Publisher::publish)es that in memory that workers inherit and can only read. A worker
//! builds a [`Server`] of it, and a new one whenever the arbiter has published again ([`CurrentServer`]). The keys of session tickets
//! stand in the same memory, so that a session begun in one worker is resumed in every other.
//!
//! # Layers
//! A file uses those above it and none below.
//!
//! | layer | files |
//! | --- | --- |
//! | words | `tls_error`, `names`, `byte_format` |
//! | parts | `certificate_files`, `ciphers`, `encrypted_key`, `x509`, `shared_region`, `suites` |
//! | the whole | `material`, `tickets` |
//! | from files | `load` |
//! | in a worker | `tls_server` |
//! | between both | `published` |

mod byte_format;
mod certificate_files;
pub mod ciphers;
mod encrypted_key;
mod load;
mod material;
pub mod names;
mod published;
mod shared_region;
mod suites;
#[cfg(test)]
mod test_material;
mod tickets;
mod tls_error;
mod tls_server;
mod x509;

pub use load::{Loaded, Warning, files, load};
pub use material::Material;
pub use published::{Certificates, CurrentServer, Publisher, Refreshed};
#[cfg(test)]
pub use test_material::settings as settings_for_tests;
pub use tls_error::{FileFault, TlsError};
pub use tls_server::Server;
pub use x509::{DistinguishedName, NameAttribute, PeerCertificate};
