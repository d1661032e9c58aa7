//! From the operator's files to a `Material`: everything is read and checked, and the first mistake is named with its file.
//!
//! The arbiter calls it before it binds, when a file has changed, and at a reload.

use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::libc::O_NONBLOCK;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject as _, SectionKind};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use rustls::server::WebPkiClientVerifier;

use super::certificate_files::{self, Pair};
use super::ciphers;
use super::encrypted_key;
use super::material::{Identity, Material};
use super::tls_error::{FileFault, TlsError};
use super::x509::{check_shape, is_expired, leaf_info, public_key_bits};
use crate::config::{ClientCertificates, HttpProtocol, Password, Tls};

/// What the files hold, and what the operator should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub material: Material,
    pub warnings: Vec<Warning>,
}

/// What can be served, but is hardly meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// Clients will refuse the certificate.
    Expired(PathBuf),
    NotYetValid(PathBuf),
    /// Behind the certificate, in its chain.
    ExpiredIssuer(PathBuf),
    /// There is a password, and neither this key nor another is encrypted.
    NeedlessPassword {
        setting: &'static str,
        key: PathBuf,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(path) => write!(f, "certfile \"{}\" has expired", path.display()),
            Self::NotYetValid(path) => {
                write!(f, "certfile \"{}\" is not valid yet", path.display())
            }
            Self::ExpiredIssuer(path) => {
                let path = path.display();
                write!(
                    f,
                    "certfile \"{path}\" has an expired certificate in its chain"
                )
            }
            Self::NeedlessPassword { setting, key } => write!(
                f,
                "keyfile_password has no effect: {setting} \"{}\" is not encrypted",
                key.display()
            ),
        }
    }
}

/// `now` in Unix seconds.
///
/// # Errors
/// A file or a setting cannot be used.
pub fn load(settings: &Tls, now: i64) -> Result<Loaded, TlsError> {
    let mut warnings = Vec::new();
    let mut identities = Vec::new();
    for pair in certificate_files::pairs(settings)? {
        let identity = identity(settings, &pair, now, &mut warnings)?;
        identities.push(identity);
    }
    let is_needless = |warning: &Warning| matches!(warning, Warning::NeedlessPassword { .. });
    let needless = warnings.iter().filter(|warning| is_needless(warning));
    if needless.count() < identities.len() {
        // One of the keys needs it.
        warnings.retain(|warning| !is_needless(warning));
    }
    let material = Material {
        identities,
        client_certificates: settings.cert_reqs,
        authorities: authorities(settings)?,
        revocations: revocations(settings)?,
        suites: suites(settings)?,
        minimum_version: settings.ssl_minimum_version,
        alpn: settings.http_protocols.iter().map(alpn).collect(),
    };
    check_client_verification(settings, &material)?;
    Ok(Loaded { material, warnings })
}

/// The name of a protocol in ALPN (RFC 7301, RFC 9113 section 3.2).
fn alpn(protocol: &HttpProtocol) -> Vec<u8> {
    match protocol {
        HttpProtocol::H1 => b"http/1.1".to_vec(),
        HttpProtocol::H2 => b"h2".to_vec(),
    }
}

/// All files that `load` reads, for the one that watches them.
#[must_use]
pub fn files(settings: &Tls) -> Vec<PathBuf> {
    let password = match &settings.keyfile_password {
        Some(Password::File(path)) => Some(path),
        _ => None,
    };
    let single = settings.ssl_crl.iter().chain(password);
    let others = settings.ca_certs.iter().chain(single).cloned();
    let mut files = certificate_files::files(settings);
    files.extend(others);
    files
}

fn identity(
    settings: &Tls,
    pair: &Pair,
    now: i64,
    warnings: &mut Vec<Warning>,
) -> Result<Identity, TlsError> {
    let (certificate, key) = (pair.certificate.as_path(), pair.key.as_path());
    let certificate_file = SettingFile("certfile", certificate);
    let chain: Vec<CertificateDer<'static>> = certificate_file.sections()?;
    let leaf = chain
        .first()
        .ok_or_else(|| certificate_file.fault(FileFault::NoCertificate))?;
    let bad = |error| certificate_file.fault(FileFault::BadCertificate(error));
    let leaf = leaf_info(leaf).map_err(bad)?;
    chain[1..].iter().try_for_each(check_shape).map_err(bad)?;
    let key_file = SettingFile(pair.key_setting, key);
    let PrivateKey { der, was_encrypted } =
        private_key(key_file, settings.keyfile_password.as_ref())?;
    let signing_key = any_supported_type(&der).map_err(|_| key_file.fault(FileFault::BadKey))?;
    let public_key = signing_key.public_key();
    let bits = public_key.and_then(|info| public_key_bits(&info));
    if bits.is_some_and(|bits| bits != leaf.public_key) {
        return Err(TlsError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        });
    }
    if settings.keyfile_password.is_some() && !was_encrypted {
        warnings.push(Warning::NeedlessPassword {
            setting: pair.key_setting,
            key: key.to_owned(),
        });
    }
    if leaf.not_after < now {
        warnings.push(Warning::Expired(certificate.to_owned()));
    } else if leaf.not_before > now {
        warnings.push(Warning::NotYetValid(certificate.to_owned()));
    } else if chain[1..].iter().any(|issuer| is_expired(issuer, now)) {
        warnings.push(Warning::ExpiredIssuer(certificate.to_owned()));
    }
    Ok(Identity {
        chain,
        key: der.secret_der().to_vec(),
        names: leaf.names,
        not_after: leaf.not_after,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct PrivateKey {
    der: PrivateKeyDer<'static>,
    was_encrypted: bool,
}

fn private_key(file: SettingFile<'_>, password: Option<&Password>) -> Result<PrivateKey, TlsError> {
    let text = file.read()?;
    if contains(&text, b"Proc-Type: 4,ENCRYPTED") {
        return Err(file.fault(FileFault::Traditional));
    }
    if let Some(encrypted) = encrypted_section(&text) {
        let password = password.ok_or_else(|| file.fault(FileFault::Encrypted))?;
        let password = password_bytes(password)?;
        let key = encrypted_key::decrypt(&encrypted, &password);
        let key = key.map_err(|fault| file.fault(fault))?;
        return Ok(PrivateKey {
            der: PrivatePkcs8KeyDer::from(key).into(),
            was_encrypted: true,
        });
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(der) => Ok(PrivateKey {
            der,
            was_encrypted: false,
        }),
        Err(PemError::NoItemsFound) if !is_pem(&text) => Err(file.fault(FileFault::NotPem)),
        Err(PemError::NoItemsFound) => Err(file.fault(FileFault::NoKey)),
        Err(error) => Err(file.fault(FileFault::BrokenPem(error))),
    }
}

/// The PEM reader does not know the label of encrypted keys; under that of open ones it decodes them all the same.
fn encrypted_section(text: &[u8]) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
    let text = String::from_utf8_lossy(text);
    let section = text[text.find(BEGIN)?..].replace("ENCRYPTED PRIVATE KEY", "PRIVATE KEY");
    match <(SectionKind, Vec<u8>)>::from_pem_slice(section.as_bytes()) {
        Ok((SectionKind::PrivateKey, der)) => Some(der),
        _ => None,
    }
}

/// Read anew at each load, so that it can be rotated with the key.
fn password_bytes(password: &Password) -> Result<Vec<u8>, TlsError> {
    match password {
        Password::Text(text) => Ok(text.as_bytes().to_vec()),
        Password::Variable(name) => match std::env::var_os(name) {
            Some(value) => Ok(value.into_encoded_bytes()),
            None => Err(TlsError::NoVariable(name.clone())),
        },
        Password::File(path) => {
            let bytes = SettingFile("keyfile_password", path).read()?;
            let line = bytes
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        }
    }
}

fn authorities(settings: &Tls) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    if settings.ca_certs.is_empty() && settings.cert_reqs != ClientCertificates::None {
        return Err(TlsError::NoAuthorities);
    }
    let mut authorities = Vec::new();
    for path in &settings.ca_certs {
        let file = SettingFile("ca_certs", path);
        let of_file: Vec<CertificateDer<'static>> = file.sections()?;
        if of_file.is_empty() {
            return Err(file.fault(FileFault::NoCertificate));
        }
        let mut store = RootCertStore::empty();
        for authority in &of_file {
            let added = store.add(authority.clone());
            added.map_err(|error| file.fault(FileFault::BadAuthority(error)))?;
        }
        authorities.extend(of_file);
    }
    Ok(authorities)
}

fn revocations(settings: &Tls) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(path) = &settings.ssl_crl else {
        return Ok(Vec::new());
    };
    if settings.ca_certs.is_empty() || settings.cert_reqs == ClientCertificates::None {
        return Err(TlsError::UnusedRevocations);
    }
    let file = SettingFile("ssl_crl", path);
    let lists: Vec<CertificateRevocationListDer<'static>> = file.sections()?;
    if lists.is_empty() {
        return Err(file.fault(FileFault::NoRevocations));
    }
    Ok(lists)
}

fn suites(settings: &Tls) -> Result<Vec<u16>, TlsError> {
    let Some(list) = &settings.ciphers else {
        return Ok(Vec::new());
    };
    ciphers::select(list).ok_or_else(|| TlsError::NoSuite {
        list: list.clone(),
        known: ciphers::known(),
    })
}

/// The library reads revocation lists only when the verifier is built.
fn check_client_verification(settings: &Tls, material: &Material) -> Result<(), TlsError> {
    let Some(path) = &settings.ssl_crl else {
        return Ok(());
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(material.authorities.iter().cloned());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let built = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.into())
        .with_crls(material.revocations.iter().cloned())
        .build();
    match built {
        Ok(_) => Ok(()),
        Err(_) => Err(SettingFile("ssl_crl", path).fault(FileFault::BadRevocations)),
    }
}

/// Keys and certificates have some KiB; bundles of authorities some hundred. Revocation lists may have several MiB.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A file and the setting that names it.
#[derive(Clone, Copy, Debug)]
struct SettingFile<'a>(&'static str, &'a Path);

impl SettingFile<'_> {
    fn fault(self, fault: FileFault) -> TlsError {
        TlsError::File {
            setting: self.0,
            path: self.1.to_owned(),
            fault,
        }
    }

    /// Without blocking: a pipe is refused, because it could be read once only, and by a master that waits for its writer.
    fn read(self) -> Result<Vec<u8>, TlsError> {
        let unreadable = |error: std::io::Error| {
            self.fault(match error.kind() {
                ErrorKind::NotFound => FileFault::Missing,
                _ => FileFault::Unreadable(error),
            })
        };
        let mut options = std::fs::OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(self.1)
            .map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(self.fault(FileFault::NotRegular));
        }
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(self.fault(FileFault::TooLarge(BYTES_MAX)));
        }
        Ok(bytes)
    }

    /// All PEM sections of one kind.
    fn sections<T: rustls::pki_types::pem::PemObject>(self) -> Result<Vec<T>, TlsError> {
        let text = self.read()?;
        if !is_pem(&text) {
            return Err(self.fault(FileFault::NotPem));
        }
        let sections: Result<Vec<T>, PemError> = T::pem_slice_iter(&text).collect();
        sections.map_err(|error| self.fault(FileFault::BrokenPem(error)))
    }
}

fn is_pem(text: &[u8]) -> bool {
    contains(text, b"-----BEGIN ")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
