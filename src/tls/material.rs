//! `Material`: everything a worker needs to serve TLS, loaded and checked. It travels from the arbiter to workers as bytes.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use x509_cert::der::DateTime;

use super::byte_format::{ByteReader, ByteWriter};
use crate::config::{ClientCertificates, TlsVersion};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The first is served to clients that ask for a name of none.
    pub(super) identities: Vec<Identity>,
    pub(super) client_certificates: ClientCertificates,
    pub(super) authorities: Vec<CertificateDer<'static>>,
    pub(super) revocations: Vec<CertificateRevocationListDer<'static>>,
    /// Identifiers by preference; empty: all.
    pub(super) suites: Vec<u16>,
    pub(super) minimum_version: TlsVersion,
    /// By preference.
    pub(super) alpn: Vec<Vec<u8>>,
}

/// A certificate with its chain and key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// DER, of PKCS#8, PKCS#1 or SEC1.
    pub(super) key: Vec<u8>,
    /// Lower case; a wildcard begins with `*.`.
    pub(super) names: Vec<String>,
    /// Unix seconds.
    pub(super) not_after: i64,
}

impl Material {
    /// When the first of the certificates expires: Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        let ends = self.identities.iter().map(|identity| identity.not_after);
        ends.min().unwrap_or(0)
    }

    /// The names that the certificates are for, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.identities.iter().flat_map(|identity| &identity.names) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// For the log: the names and the end.
    #[must_use]
    pub fn describe(&self) -> String {
        let end = Duration::from_secs(u64::try_from(self.not_after()).unwrap_or(0));
        let end =
            DateTime::from_unix_duration(end).map_or_else(|_| "?".into(), |end| end.to_string());
        format!("{}, valid until {end}", self.names().join(", "))
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = ByteWriter::default();
        out.list(&self.identities, |out, identity| {
            out.list(&identity.chain, |out, der| out.bytes(der));
            out.bytes(&identity.key);
            out.list(&identity.names, |out, name| out.bytes(name.as_bytes()));
            out.number(identity.not_after);
        });
        out.number(self.client_certificates as i64);
        out.list(&self.authorities, |out, der| out.bytes(der));
        out.list(&self.revocations, |out, der| out.bytes(der));
        out.list(&self.suites, |out, suite| out.number(i64::from(*suite)));
        out.number(self.minimum_version as i64);
        out.list(&self.alpn, |out, name| out.bytes(name));
        out.finish()
    }

    /// `None`: the bytes are not those of a `Material`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut input = ByteReader::new(bytes);
        let certificate =
            |input: &mut ByteReader<'_>| Some(CertificateDer::from(input.bytes()?.to_vec()));
        let material = Self {
            identities: input.list(|input| {
                Some(Identity {
                    chain: input.list(certificate)?,
                    key: input.bytes()?.to_vec(),
                    names: input.list(ByteReader::text)?,
                    not_after: input.number()?,
                })
            })?,
            client_certificates: ClientCertificates::from_number(input.number()?)?,
            authorities: input.list(certificate)?,
            revocations: input
                .list(|input| Some(CertificateRevocationListDer::from(input.bytes()?.to_vec())))?,
            suites: input.list(|input| u16::try_from(input.number()?).ok())?,
            minimum_version: match input.number()? {
                number if number == TlsVersion::Tls12 as i64 => TlsVersion::Tls12,
                number if number == TlsVersion::Tls13 as i64 => TlsVersion::Tls13,
                _ => return None,
            },
            alpn: input.list(|input| Some(input.bytes()?.to_vec()))?,
        };
        input.is_at_end().then_some(material)
    }

    /// What a session must not outlive: who may have been let in with which certificate.
    pub(super) fn session_binding(&self) -> Vec<u8> {
        let mut out = ByteWriter::default();
        out.number(self.client_certificates as i64);
        out.list(&self.authorities, |out, der| out.bytes(der));
        out.list(&self.revocations, |out, der| out.bytes(der));
        out.finish()
    }
}

impl Identity {
    /// `None`: it was checked when it was loaded, and the bytes have changed since.
    pub(super) fn private_key(&self) -> Option<PrivateKeyDer<'_>> {
        PrivateKeyDer::try_from(self.key.as_slice()).ok()
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> Material {
        Material {
            identities: vec![Identity {
                chain: vec![
                    CertificateDer::from(vec![1, 2, 3]),
                    CertificateDer::from(vec![4]),
                ],
                key: vec![5, 6],
                names: vec!["a.example".to_owned(), "*.b.example".to_owned()],
                not_after: 1_800_000_000,
            }],
            client_certificates: ClientCertificates::Optional,
            authorities: vec![CertificateDer::from(vec![7])],
            revocations: vec![CertificateRevocationListDer::from(vec![8])],
            suites: vec![0x1301],
            minimum_version: TlsVersion::Tls13,
            alpn: vec![b"http/1.1".to_vec()],
        }
    }

    #[test]
    fn is_the_same_after_its_way_to_a_worker() {
        let bytes = sample().to_bytes();
        assert_eq!(Material::from_bytes(&bytes), Some(sample()));
    }

    #[test]
    fn refuses_bytes_that_were_cut_or_lengthened() {
        let bytes = sample().to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(Material::from_bytes(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Material::from_bytes(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn is_described_by_names_and_end() {
        assert_eq!(
            sample().describe(),
            "a.example, *.b.example, valid until 2027-01-15T08:00:00Z"
        );
    }

    #[test]
    fn does_not_show_its_keys() {
        let shown = format!("{:?}", sample());
        assert!(
            shown.contains("a.example") && !shown.contains("key"),
            "{shown}"
        );
    }
}
