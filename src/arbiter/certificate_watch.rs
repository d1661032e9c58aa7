//! The certificates that workers serve: loaded at the start and at a reload, and again when a file changes.
//!
//! Files are looked at once a second. A change is acted on when the files have looked the same twice, so that one that is
//! still being written, or whose key follows a moment later, is not taken for broken. What cannot be loaded is logged once, and workers
//! keep what they have. The arbiter does this because it alone may be allowed to read the key.

use std::io;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Config, Tls};
use crate::tls::{self, Certificates, Publisher, TlsError};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct CertificateWatch {
    /// Made for the first configuration with TLS, and kept: workers of every generation read it.
    publisher: Option<Publisher>,
    /// Ticket keys of the old master.
    tickets: Option<OwnedFd>,
    files: Files,
    looked_at: u64,
    /// The last complaint, which is not repeated.
    complaint: Option<String>,
}

/// Which files are watched, and what they look like.
#[derive(Debug, Default)]
enum Files {
    /// Plain HTTP.
    #[default]
    None,
    /// Loaded as they look.
    Loaded { config: Arc<Config>, stamps: Stamps },
    /// They look different now, and perhaps not for the last time.
    Changed { config: Arc<Config>, stamps: Stamps },
}

/// Of every file. `None`: it cannot be seen.
type Stamps = Vec<Option<Stamp>>;

/// A replaced file has another inode; one that can be read only now has another time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl CertificateWatch {
    /// At the start: nothing is served without certificates. `tickets`: what the old master has left, if this is a successor.
    ///
    /// # Errors
    /// A file cannot be used, or there is no memory to publish it in.
    pub(super) fn start(
        config: &Arc<Config>,
        tickets: Option<OwnedFd>,
        now: u64,
    ) -> Result<Self, CertificateError> {
        let mut watch = Self {
            tickets,
            ..Self::default()
        };
        if let Some(settings) = &config.tls {
            watch.publish(config, settings, now)?;
        }
        Ok(watch)
    }

    /// For the workers of `config`. `None`: plain HTTP.
    pub(super) fn for_workers(&self, config: &Config) -> Option<Arc<Certificates>> {
        let publisher = self.publisher.as_ref().filter(|_| config.tls.is_some())?;
        Some(publisher.certificates())
    }

    /// When the first certificate ends: Unix seconds.
    pub(super) fn not_after(&self) -> Option<i64> {
        let certificates = self.publisher.as_ref()?.certificates();
        Some(certificates.not_after()).filter(|end| *end != 0)
    }

    /// In the child that becomes a new master: the environment variable by which it finds the keys of session tickets.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub(super) fn leave_to_new_master(&self) -> io::Result<Option<(String, String)>> {
        let Some(publisher) = &self.publisher else {
            return Ok(None);
        };
        let tickets = publisher.leave_tickets()?.into_raw_fd();
        Ok(Some((TICKETS.to_owned(), tickets.to_string())))
    }

    /// Once in each iteration of the loop. Never blocks for longer than it takes to look at some files.
    pub(super) fn follow(&mut self, config: &Arc<Config>, now: u64) {
        let Some(settings) = &config.tls else {
            self.files = Files::None;
            return;
        };
        let is_followed = match &self.files {
            Files::None => false,
            Files::Loaded { config: of, .. } | Files::Changed { config: of, .. } => {
                Arc::ptr_eq(of, config)
            }
        };
        if is_followed && now.saturating_sub(self.looked_at) < LOOK_MS {
            return;
        }
        self.looked_at = now;
        if let Some(publisher) = &self.publisher {
            publisher.rotate_tickets(unix_now());
        }
        if is_followed && !self.are_to_load(stamps(settings)) {
            return;
        }
        match self.publish(config, settings, now) {
            Ok(()) => self.complaint = None,
            Err(error) => self.complain(&error),
        }
    }

    /// Whether the files are different from those loaded, and look as they did a second ago.
    fn are_to_load(&mut self, seen: Stamps) -> bool {
        match &mut self.files {
            Files::None => false,
            Files::Loaded { stamps, .. } if *stamps == seen => false,
            Files::Loaded { config, .. } => {
                let config = Arc::clone(config);
                self.files = Files::Changed {
                    config,
                    stamps: seen,
                };
                false
            }
            Files::Changed { stamps, .. } => {
                let is_stable = *stamps == seen;
                *stamps = seen;
                is_stable
            }
        }
    }

    fn publish(
        &mut self,
        config: &Arc<Config>,
        settings: &Tls,
        now: u64,
    ) -> Result<(), CertificateError> {
        // Before they are read: a change in between is seen at the next look.
        self.files = Files::Loaded {
            config: Arc::clone(config),
            stamps: stamps(settings),
        };
        self.looked_at = now;
        let is_first = self.publisher.is_none();
        let loaded = tls::load(settings, unix_now())?;
        if !is_first {
            for warning in &loaded.warnings {
                log::warn!("{warning}");
            }
        }
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            none => {
                none.insert(Publisher::new(self.tickets.take()).map_err(CertificateError::Memory)?)
            }
        };
        publisher.rotate_tickets(unix_now());
        log::info!("TLS certificate: {}", loaded.material.describe());
        publisher.publish(loaded.material)?;
        Ok(())
    }

    fn complain(&mut self, error: &CertificateError) {
        let complaint = error.to_string();
        if self.complaint.as_ref() != Some(&complaint) {
            log::error!("{complaint}; keeping the previous certificate");
            self.complaint = Some(complaint);
        }
    }
}

/// Why certificates cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Load(#[from] TlsError),
    #[error("no memory for certificates: {0}")]
    Memory(io::Error),
}

fn stamps(settings: &Tls) -> Stamps {
    tls::files(settings)
        .iter()
        .map(|path| stamp(path))
        .collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        inode: (metadata.dev(), metadata.ino()),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// The number of a descriptor with the old master's keys of session tickets.
pub const TICKETS: &str = "FERRICORN_TICKETS";

/// Between looks at the files.
const LOOK_MS: u64 = 1000;

/// The time that certificates and tickets are dated with.
#[must_use]
pub fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use std::path::PathBuf;
    use tempfile::TempDir;

    /// Files that settings name, and the watch over them.
    struct Bench {
        directory: TempDir,
        config: Arc<Config>,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| vec![directory.path().join(name)];
            let mut config = Config::default();
            config.tls = Some(Tls {
                certfile: path("certificate.pem"),
                keyfile: path("key.pem"),
                keyfile_password: None,
                ca_certs: Vec::new(),
                cert_reqs: crate::config::ClientCertificates::None,
                ssl_crl: None,
                ciphers: None,
                ssl_minimum_version: crate::config::TlsVersion::Tls12,
                http_protocols: vec![crate::config::HttpProtocol::H1],
            });
            Self {
                directory,
                config: Arc::new(config),
                now: 0,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn renew(&self) -> (String, String) {
            let pair = generate_simple_self_signed(["a.example".to_owned()]).unwrap();
            let CertifiedKey { cert, signing_key } = pair;
            (cert.pem(), signing_key.serialize_pem())
        }

        fn put(&self, name: &str, text: &str) {
            std::fs::write(self.path("new"), text).unwrap();
            std::fs::rename(self.path("new"), self.path(name)).unwrap();
        }

        fn put_pair(&self, (certificate, key): &(String, String)) {
            self.put("certificate.pem", certificate);
            self.put("key.pem", key);
        }

        /// A second later. Returns which generation workers see.
        fn look(&mut self, watch: &mut CertificateWatch) -> u64 {
            self.now += LOOK_MS;
            watch.follow(&self.config, self.now);
            watch.for_workers(&self.config).unwrap().generation()
        }
    }

    #[test]
    fn a_renewed_pair_is_published_when_it_is_stable() {
        let mut bench = Bench::new();
        bench.put_pair(&bench.renew());
        let mut watch = CertificateWatch::start(&bench.config, None, 0).unwrap();
        assert_eq!(bench.look(&mut watch), 1);
        let (certificate, key) = bench.renew();
        bench.put("certificate.pem", &certificate);
        assert_eq!(bench.look(&mut watch), 1, "just seen");
        bench.put("key.pem", &key);
        assert_eq!(bench.look(&mut watch), 1, "changed again");
        assert_eq!(bench.look(&mut watch), 2);
        assert_eq!(bench.look(&mut watch), 2);
        assert_eq!(watch.complaint, None);
    }

    #[test]
    fn what_cannot_be_loaded_is_complained_of_once_and_tried_again_when_it_changes() {
        let mut bench = Bench::new();
        bench.put_pair(&bench.renew());
        let mut watch = CertificateWatch::start(&bench.config, None, 0).unwrap();
        let (certificate, key) = bench.renew();
        bench.put("certificate.pem", &certificate);
        for _ in 0..3 {
            assert_eq!(bench.look(&mut watch), 1);
        }
        let complaint = watch.complaint.clone().unwrap();
        assert!(complaint.contains("does not belong to"), "{complaint}");
        std::fs::remove_file(bench.path("key.pem")).unwrap();
        for _ in 0..3 {
            assert_eq!(bench.look(&mut watch), 1);
        }
        assert!(watch.complaint.clone().unwrap().ends_with("does not exist"));
        bench.put("key.pem", &key);
        bench.look(&mut watch);
        assert_eq!(bench.look(&mut watch), 2);
        assert_eq!(watch.complaint, None);
    }

    #[test]
    fn a_reload_looks_at_once_and_publishes_what_is_new() {
        let mut bench = Bench::new();
        bench.put_pair(&bench.renew());
        let mut watch = CertificateWatch::start(&bench.config, None, 0).unwrap();
        bench.put_pair(&bench.renew());
        bench.config = Arc::new(Config::clone(&bench.config));
        watch.follow(&bench.config, 1);
        assert_eq!(watch.for_workers(&bench.config).unwrap().generation(), 2);
        bench.config = Arc::new(Config::clone(&bench.config));
        watch.follow(&bench.config, 2);
        assert_eq!(watch.for_workers(&bench.config).unwrap().generation(), 2);
        assert!(watch.for_workers(&Config::default()).is_none());
    }

    #[test]
    fn nothing_starts_without_a_certificate() {
        let bench = Bench::new();
        let error = CertificateWatch::start(&bench.config, None, 0).unwrap_err();
        assert!(error.to_string().ends_with("does not exist"), "{error}");
        let plain = CertificateWatch::start(&Arc::new(Config::default()), None, 0).unwrap();
        assert!(plain.publisher.is_none() && plain.not_after().is_none());
    }
}
