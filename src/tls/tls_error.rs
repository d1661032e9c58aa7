//! `TlsError`: why TLS cannot be served as configured, in one line with the file and the reason.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem::Error as PemError;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{setting} \"{}\" {fault}", .path.display())]
    File {
        setting: &'static str,
        path: PathBuf,
        fault: FileFault,
    },
    #[error("keyfile \"{}\" does not belong to certfile \"{}\"", .key.display(), .certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("keyfile is set and certfile is not")]
    NoCertificate,
    #[error(
        "certfile names {certificates} files and keyfile {keys}; each certificate needs its key"
    )]
    Unpaired { certificates: usize, keys: usize },
    #[error("certfile is a list with a directory in it: name either one directory or files")]
    DirectoryInList,
    #[error(
        "certfile is a directory, so keyfile cannot be set: NAME.key there belongs to NAME.pem"
    )]
    KeysBesideDirectory,
    #[error(
        "cert_reqs needs ca_certs, the authorities that client certificates are checked against"
    )]
    NoAuthorities,
    #[error("ssl_crl needs ca_certs, and cert_reqs other than 0")]
    UnusedRevocations,
    #[error("keyfile_password: the variable {0} is not set")]
    NoVariable(String),
    #[error("ciphers '{list}' selects none of the suites that ferricorn has: {known}")]
    NoSuite { list: String, known: String },
    #[error(
        "certificates, authorities and revocation lists are {0} bytes, more than can be given to workers"
    )]
    TooLarge(usize),
    #[error("TLS cannot be configured: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("client certificates cannot be checked: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("what the arbiter has published cannot be read")]
    Unreadable,
}

/// What is wrong with one file.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    #[error("does not exist")]
    Missing,
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is a directory without a file that ends with .pem or .crt")]
    EmptyDirectory,
    #[error("is not a regular file")]
    NotRegular,
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    #[error("is not PEM; `openssl x509 -inform DER` or `openssl pkcs12` converts it")]
    NotPem,
    #[error("is broken PEM: {}", what_is_broken(.0))]
    BrokenPem(PemError),
    #[error("holds no certificate")]
    NoCertificate,
    #[error("holds a certificate that cannot be read: {0}")]
    BadCertificate(x509_cert::der::Error),
    #[error("holds no private key")]
    NoKey,
    #[error(
        "holds a private key that cannot be used: RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 and P-521, and Ed25519 can"
    )]
    BadKey,
    #[error("is encrypted: set keyfile_password")]
    Encrypted,
    #[error("is encrypted, and keyfile_password is not its password")]
    WrongPassword,
    #[error(
        "is encrypted in the traditional form; `openssl pkey -in KEY -aes256 -out NEW` converts it"
    )]
    Traditional,
    #[error(
        "is encrypted with an algorithm that is not supported (AES and triple DES are); `openssl pkey -in KEY -aes256 -out NEW` converts it"
    )]
    UnknownEncryption,
    #[error(
        "is encrypted so that its password takes too long to try; `openssl pkey -in KEY -aes256 -out NEW` converts it"
    )]
    CostlyEncryption,
    #[error("holds a certificate that is no authority's: {0}")]
    BadAuthority(rustls::Error),
    #[error("holds no revocation list")]
    NoRevocations,
    #[error("holds a revocation list that cannot be used")]
    BadRevocations,
}

/// The library's words have the bytes of the file as numbers.
fn what_is_broken(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { end_marker } => {
            let label = end_marker.escape_ascii();
            format!("\"-----END {label}-----\" is missing")
        }
        PemError::IllegalSectionStart { .. } => {
            r#"a line "-----BEGIN ..." does not end with "-----""#.to_owned()
        }
        PemError::Base64Decode(_) => "a section is not base64".to_owned(),
        error => error.to_string(),
    }
}
