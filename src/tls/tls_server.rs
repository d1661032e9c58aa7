//! `Server`: a configuration of the TLS library, built from a `Material`. Connections that began with one keep it.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
    danger::ClientCertVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

use super::material::{Identity, Material};
use super::suites;
use super::tls_error::TlsError;
use crate::config::{ClientCertificates, TlsVersion};

/// See the module.
#[derive(Clone, Debug)]
pub struct Server {
    /// In the order of suites that is right for most.
    config: ByAlpn,
    /// In the client's order.
    for_slow_aes: ByAlpn,
    client_certificates: ClientCertificates,
    not_after: i64,
}

/// One configuration twice.
#[derive(Clone, Debug)]
struct ByAlpn {
    with: Arc<ServerConfig>,
    without: Arc<ServerConfig>,
}

impl ByAlpn {
    fn new(mut config: ServerConfig, protocols: &[Vec<u8>]) -> Self {
        let without = Arc::new(config.clone());
        config.alpn_protocols = protocols.to_vec();
        Self {
            with: Arc::new(config),
            without,
        }
    }
}

impl Server {
    /// # Errors
    /// The material is not what `load` has checked.
    pub(super) fn new(
        material: &Material,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(suites::provider(&material.suites));
        let versions: &[_] = match material.minimum_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(verifier(material, &provider)?)
            .with_cert_resolver(Arc::new(CertificatesByName::new(material, &provider)?));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        // One is what a client uses; the second would cost each handshake 250 bytes.
        config.send_tls13_tickets = 1;
        config.ignore_client_order = true;
        let ours = ByAlpn::new(config.clone(), &material.alpn);
        let for_slow_aes = match &material.suites[..] {
            [] => {
                config.ignore_client_order = false;
                ByAlpn::new(config, &material.alpn)
            }
            // An operator who names suites means their order.
            _ => ours.clone(),
        };
        Ok(Self {
            config: ours,
            for_slow_aes,
            client_certificates: material.client_certificates,
            not_after: material.not_after(),
        })
    }

    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config.with
    }

    /// The one for a client. In the client's order of suites when ChaCha20 is its first: it has no instructions for AES.
    /// Without ALPN when it offers only protocols that are not known here: gunicorn goes on without ALPN too, and the
    /// library would refuse the client.
    #[must_use]
    pub fn config_for(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        let known = &self.config.with;
        let by_alpn = match suites::is_slow_at_aes(hello, known.crypto_provider()) {
            true => &self.for_slow_aes,
            false => &self.config,
        };
        let is_known = |offered: &[u8]| known.alpn_protocols.iter().any(|known| known == offered);
        let is_foreign = hello
            .alpn()
            .is_some_and(|mut offered| !offered.any(is_known));
        if is_foreign {
            &by_alpn.without
        } else {
            &by_alpn.with
        }
    }

    #[must_use]
    pub fn client_certificates(&self) -> ClientCertificates {
        self.client_certificates
    }

    /// When the first of its certificates expires: Unix seconds.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

fn verifier(
    material: &Material,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let is_optional = match material.client_certificates {
        ClientCertificates::None => return Ok(WebPkiClientVerifier::no_client_auth()),
        ClientCertificates::Optional => true,
        ClientCertificates::Required => false,
    };
    let mut roots = RootCertStore::empty();
    for authority in &material.authorities {
        roots.add(authority.clone())?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(material.revocations.iter().cloned())
            // As OpenSSL with its flag for leaf certificates: each authority needs a list, which has not expired.
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    let builder = if is_optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    Ok(builder.build()?)
}

/// Chooses the certificate by the name that the client asks for.
#[derive(Debug)]
struct CertificatesByName {
    all: Vec<Arc<CertifiedKey>>,
    /// Places in `all`, by a certificate's name; a wildcard's begins with `*.`.
    by_name: HashMap<String, Vec<usize>>,
}

impl CertificatesByName {
    fn new(material: &Material, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, identity) in material.identities.iter().enumerate() {
            for name in &identity.names {
                by_name.entry(name.clone()).or_default().push(place);
            }
        }
        let identities = material.identities.iter();
        let all = identities.map(|identity| certified_key(identity, provider));
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
            by_name,
        })
    }

    /// Those for a name: the exact ones, then a wildcard's.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let wildcard = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let wildcard = wildcard.and_then(|wildcard| self.by_name.get(&wildcard));
        let places = self.by_name.get(name).into_iter().chain(wildcard).flatten();
        places.filter_map(|place| self.all.get(*place))
    }
}

fn certified_key(
    identity: &Identity,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let key = identity
        .private_key()
        .ok_or(TlsError::Unreadable)?
        .clone_key();
    // That key and certificate belong together was checked by `load`.
    let key = provider.key_provider.load_private_key(key)?;
    Ok(Arc::new(CertifiedKey::new(identity.chain.clone(), key)))
}

impl ResolvesServerCert for CertificatesByName {
    /// The first whose key the client can verify; the first of all for a name that is not known, as in gunicorn.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().unwrap_or_default();
        let mut candidates = self.named(name).chain(&self.all);
        let usable =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates
            .find(usable)
            .or_else(|| self.all.first())
            .cloned()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::test_material::{Authority, Client, Files, material, settings};
    use super::*;
    use crate::tls::load;

    pub(in crate::tls) fn server(material: &Material) -> Server {
        #[derive(Debug)]
        struct NoTickets;
        impl ProducesTickets for NoTickets {
            fn enabled(&self) -> bool {
                false
            }
            fn lifetime(&self) -> u32 {
                0
            }
            fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
                None
            }
            fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
                None
            }
        }
        Server::new(material, Arc::new(NoTickets)).unwrap()
    }

    #[test]
    fn alpn_is_left_out_for_clients_that_know_no_protocol_of_the_list() {
        let (material, authority) = material("a.example");
        let server = server(&material);
        for (offered, chosen) in [
            (vec![], None),
            (vec!["http/1.1"], Some("http/1.1")),
            (vec!["acme", "http/1.1"], Some("http/1.1")),
            (vec!["acme", "h2"], None),
        ] {
            let client = Client::new(&authority).with(|config| {
                let offered = offered.iter().map(|name| name.as_bytes().to_vec());
                config.alpn_protocols = offered.collect();
            });
            let alpn = client.shake_hands(&server, "a.example").unwrap().alpn;
            assert_eq!(alpn.as_deref(), chosen.map(str::as_bytes), "{offered:?}");
        }
    }

    #[test]
    fn the_certificate_is_chosen_by_the_name_asked_for() {
        let (files, authority) = (Files::new(), Authority::new("authority"));
        let mut all = settings(&files.write("x", ""), &files.write("y", ""));
        (all.certfile, all.keyfile) = (Vec::new(), Vec::new());
        let mut ders = Vec::new();
        for (at, names) in [
            &["first.example"][..],
            &["second.example", "third.example"],
            &["*.wild.example"],
            &["exact.wild.example"],
        ]
        .iter()
        .enumerate()
        {
            let signed = authority.sign(names);
            all.certfile
                .push(files.write(&format!("{at}.pem"), signed.certificate));
            all.keyfile
                .push(files.write(&format!("{at}.key"), signed.key));
            ders.push(signed.der);
        }
        let server = server(&load(&all, 0).unwrap().material);
        for (name, place) in [
            ("first.example", 0),
            ("THIRD.example", 1),
            ("any.wild.example", 2),
            ("exact.wild.example", 3),
            ("unknown.example", 0),
            ("two.levels.wild.example", 0),
        ] {
            // A client that would refuse the certificate is not what is tested.
            let client = Client::new(&authority).with(trust_any_name);
            let served = client.shake_hands(&server, name).unwrap().certificate;
            assert_eq!(served, ders[place], "{name}");
        }
    }

    fn trust_any_name(config: &mut rustls::ClientConfig) {
        use rustls::client::danger::{
            HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
        };
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        use rustls::{DigitallySignedStruct, Error, SignatureScheme};

        #[derive(Debug)]
        struct AnyName;
        impl ServerCertVerifier for AnyName {
            fn verify_server_cert(
                &self,
                _: &CertificateDer<'_>,
                _: &[CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                _: UnixTime,
            ) -> Result<ServerCertVerified, Error> {
                Ok(ServerCertVerified::assertion())
            }
            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                Ok(HandshakeSignatureValid::assertion())
            }
            fn verify_tls13_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                Ok(HandshakeSignatureValid::assertion())
            }
            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                vec![SignatureScheme::ECDSA_NISTP256_SHA256]
            }
        }
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(AnyName));
    }

    #[test]
    fn clients_are_let_in_as_cert_reqs_says() {
        let (mut material, authority) = material("a.example");
        let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
        material.authorities = vec![trusted.der.clone()];
        for (mode, without, with_other) in [
            (ClientCertificates::None, true, true),
            (ClientCertificates::Optional, true, false),
            (ClientCertificates::Required, false, false),
        ] {
            material.client_certificates = mode;
            let server = server(&material);
            let shakes = |signer: Option<&Authority>| {
                let client = Client::new(&authority).with(|config| {
                    if let Some(signer) = signer {
                        let signed = signer.sign(&["client"]);
                        let key = config.crypto_provider().key_provider;
                        let key = key.load_private_key(signed.key_der).unwrap();
                        let identity = CertifiedKey::new(vec![signed.der], key);
                        let resolver = rustls::sign::SingleCertAndKey::from(identity);
                        config.client_auth_cert_resolver = Arc::new(resolver);
                    }
                });
                client.shake_hands(&server, "a.example").is_ok()
            };
            assert_eq!(server.client_certificates(), mode);
            assert_eq!(shakes(None), without, "{mode:?}");
            assert!(shakes(Some(&trusted)), "{mode:?}");
            assert_eq!(shakes(Some(&other)), with_other, "{mode:?}");
        }
    }
}
