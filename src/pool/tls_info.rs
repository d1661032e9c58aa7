//! What TLS has agreed on for a connection, and who its client is: for the environ, `gunicorn.socket` and the access log.
//!
//! Made once per connection, shared by its requests. The names of the variables are those of Apache's `mod_ssl`.

use crate::tls::PeerCertificate;

/// See the module.
#[derive(Debug)]
pub struct TlsInfo {
    /// OpenSSL's name of the version: `TLSv1.3`.
    pub protocol: &'static str,
    /// OpenSSL's name of the suite.
    pub cipher: &'static str,
    /// The protocol that ALPN has chosen.
    pub alpn: Option<String>,
    /// The client's certificate, verified.
    pub client: Option<ClientCertificate>,
    /// `SSL_CLIENT_VERIFY` and what follows from it. Empty when clients are not asked for a certificate.
    pub variables: Vec<(String, String)>,
}

/// A certificate that a client has shown, and that its authority has signed.
#[derive(Debug)]
pub struct ClientCertificate {
    /// As it came.
    pub der: Vec<u8>,
    /// What it says; `None` when only the library that has verified it can read it.
    pub parsed: Option<PeerCertificate>,
}

impl TlsInfo {
    /// `asks_for_certificate`: a client without one is reported as such.
    pub fn new(
        (protocol, cipher): (&'static str, &'static str),
        alpn: Option<&[u8]>,
        asks_for_certificate: bool,
        client: Option<ClientCertificate>,
    ) -> Self {
        let variables = match (&client, asks_for_certificate) {
            (Some(client), _) => client.variables(),
            (None, true) => vec![("SSL_CLIENT_VERIFY".to_owned(), "NONE".to_owned())],
            (None, false) => Vec::new(),
        };
        Self {
            protocol,
            cipher,
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
            client,
            variables,
        }
    }

    /// How many bits the cipher's keys have.
    pub fn cipher_bits(&self) -> u16 {
        let is_long = ["AES256", "AES_256", "CHACHA20"];
        match is_long.iter().any(|name| self.cipher.contains(name)) {
            true => 256,
            false => 128,
        }
    }
}

impl ClientCertificate {
    fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("VERIFY".to_owned(), "SUCCESS".to_owned()),
            ("CERT".to_owned(), pem(&self.der)),
        ];
        if let Some(parsed) = &self.parsed {
            variables.extend([
                ("S_DN".to_owned(), parsed.subject.text()),
                ("I_DN".to_owned(), parsed.issuer.text()),
                ("M_SERIAL".to_owned(), parsed.serial_number.clone()),
                ("V_START".to_owned(), openssl_date(parsed.not_before)),
                ("V_END".to_owned(), openssl_date(parsed.not_after)),
            ]);
            for (name, of) in [("S_DN_CN", &parsed.subject), ("I_DN_CN", &parsed.issuer)] {
                variables.extend(
                    of.common_name()
                        .map(|text| (name.to_owned(), text.to_owned())),
                );
            }
            for (kind, name) in [("DNS", "DNS"), ("email", "Email"), ("URI", "URI")] {
                let names = parsed.alternative_names.iter();
                let of_kind = names.filter(|(found, _)| *found == kind).enumerate();
                variables.extend(
                    of_kind.map(|(place, (_, text))| (format!("SAN_{name}_{place}"), text.clone())),
                );
            }
        }
        variables
            .into_iter()
            .map(|(name, text)| (format!("SSL_CLIENT_{name}"), text))
            .collect()
    }
}

/// A certificate as text (RFC 7468).
fn pem(der: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // A line of 64 letters is 48 bytes.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for place in 0..4 {
                let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() {
                    char::from(letter)
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// `Jan  5 09:34:43 2018 GMT`, as OpenSSL and Python's `ssl` write it.
pub fn openssl_date(unix_seconds: i64) -> String {
    let mut date = crate::http::HttpDate::new();
    // `Fri, 05 Jan 2018 09:34:43 GMT`
    let text = String::from_utf8_lossy(date.at(unix_seconds)).into_owned();
    let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
    let day = match day.strip_prefix('0') {
        Some(digit) => format!(" {digit}"),
        None => day.to_owned(),
    };
    format!("{month} {day} {time} {year} GMT")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn dates_and_certificates_are_written_as_openssl_does() {
        assert_eq!(openssl_date(1_515_144_883), "Jan  5 09:34:43 2018 GMT");
        assert_eq!(openssl_date(1_734_567_890), "Dec 19 00:24:50 2024 GMT");
        for (der, expected) in [
            (&b"f"[..], "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
        ] {
            let text = pem(der);
            assert_eq!(text.lines().nth(1).unwrap(), expected);
        }
        assert_eq!(pem(&[0; 49]).lines().nth(1).unwrap().len(), 64);
    }

    #[test]
    fn a_client_that_was_not_asked_has_no_variables() {
        let names = ("TLSv1.3", "TLS_AES_128_GCM_SHA256");
        let info = TlsInfo::new(names, Some(b"http/1.1"), false, None);
        assert!(info.variables.is_empty() && info.cipher_bits() == 128);
        assert_eq!(info.alpn.as_deref(), Some("http/1.1"));
        let info = TlsInfo::new(names, None, true, None);
        assert_eq!(
            info.variables,
            [("SSL_CLIENT_VERIFY".to_owned(), "NONE".to_owned())]
        );
    }

    #[test]
    fn what_a_client_has_shown_becomes_variables() {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["a.test".to_owned(), "b.test".to_owned()]).unwrap();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "client");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let client = ClientCertificate {
            der: certificate.der().to_vec(),
            parsed: PeerCertificate::parse(certificate.der()),
        };
        let info = TlsInfo::new(
            ("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
            None,
            true,
            Some(client),
        );
        let value = |name: &str| {
            let mut variables = info.variables.iter();
            variables
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("SSL_CLIENT_VERIFY"), Some("SUCCESS"));
        assert_eq!(value("SSL_CLIENT_S_DN_CN"), Some("client"));
        assert_eq!(value("SSL_CLIENT_S_DN"), Some("CN=client"));
        assert_eq!(value("SSL_CLIENT_SAN_DNS_1"), Some("b.test"));
        assert!(
            value("SSL_CLIENT_CERT")
                .unwrap()
                .starts_with("-----BEGIN CERTIFICATE-----\n")
        );
        assert!(value("SSL_CLIENT_V_END").unwrap().ends_with(" GMT"));
    }
}
