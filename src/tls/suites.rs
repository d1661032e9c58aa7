//! Which cipher suites there are, and in which order: the operator's, or AES-128 first but for clients without instructions
//! for AES.

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ClientHello;
use rustls::{CipherSuite, SupportedCipherSuite};

/// The library's, with the suites of the list only. TLS 1.3 keeps all of its suites unless some are named, as in OpenSSL.
/// Without a list AES-128 is first, as in browsers: the library prefers AES-256, whose records cost a quarter more, and whose
/// hash, SHA-384, few processors have instructions for: it took a twentieth of a full handshake.
pub(super) fn provider(suites: &[u16]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if suites.is_empty() {
        provider
            .cipher_suites
            .sort_by_key(|suite| !is_aes_128(suite));
    } else {
        let place = |suite: u16| suites.iter().position(|known| *known == suite);
        provider
            .cipher_suites
            .retain(|suite| place(suite.suite().into()).is_some());
        provider
            .cipher_suites
            .sort_by_key(|suite| place(suite.suite().into()));
    }
    provider
}

/// Whether a client wants ChaCha20 before AES: its processor has no instructions for AES.
pub(super) fn is_slow_at_aes(hello: &ClientHello<'_>, provider: &CryptoProvider) -> bool {
    let suites = &provider.cipher_suites;
    let mut offered = hello.cipher_suites().iter();
    let first = offered.find_map(|id| suites.iter().find(|suite| suite.suite() == *id));
    first.is_some_and(is_chacha)
}

fn is_aes_128(suite: &SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

fn is_chacha(suite: &SupportedCipherSuite) -> bool {
    matches!(
        suite.suite(),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::version::TLS13;

    use super::super::test_material::{Client, material};
    use super::super::tls_server::tests::server;
    use super::*;

    #[test]
    fn aes_128_is_first_but_for_clients_that_prefer_chacha() {
        let (material, authority) = material("a.example");
        let server = server(&material);
        for (offered, chosen) in [
            (&[0x1302, 0x1301, 0x1303][..], 0x1301),
            (&[0x1302, 0x1303], 0x1302),
            (&[0x1303, 0x1301], 0x1303),
        ] {
            let client = Client::new(&authority).with(|config| {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                *config = rustls::ClientConfig::builder_with_provider(Arc::new(provider(offered)))
                    .with_protocol_versions(&[&TLS13])
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
            });
            let suite = client.shake_hands(&server, "a.example").unwrap().suite;
            assert_eq!(u16::from(suite), chosen, "{offered:?}");
        }
    }

    #[test]
    fn only_the_named_suites_are_used_and_in_their_order() {
        let (mut material, authority) = material("a.example");
        material.suites = vec![0x1303, 0x1301];
        let suite = Client::new(&authority).shake_hands(&server(&material), "a.example");
        assert_eq!(u16::from(suite.unwrap().suite), 0x1303);
    }
}
