//! Certificates and clients for tests of this module.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{Acceptor, ServerConnection};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

use super::load::load;
use super::material::Material;
use super::tls_server::Server;
use crate::config::{ClientCertificates, HttpProtocol, Tls, TlsVersion};

/// An authority that signs what tests need.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
}

/// A certificate and its key, as PEM.
pub(super) struct Signed {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) der: CertificateDer<'static>,
    pub(super) key_der: PrivateKeyDer<'static>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(super) fn sign(&self, names: &[&str]) -> Signed {
        self.sign_with(names, |_| ())
    }

    pub(super) fn sign_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Signed {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

/// Files of a test, and settings that name them.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::File::create(&path)
            .unwrap()
            .write_all(text.as_ref())
            .unwrap();
        path
    }
}

/// Of a server with one certificate.
pub fn settings(certificate: &Path, key: &Path) -> Tls {
    Tls {
        certfile: vec![certificate.to_owned()],
        keyfile: vec![key.to_owned()],
        keyfile_password: None,
        ca_certs: Vec::new(),
        cert_reqs: ClientCertificates::None,
        ssl_crl: None,
        ciphers: None,
        ssl_minimum_version: TlsVersion::Tls12,
        http_protocols: vec![HttpProtocol::H1],
    }
}

/// Loaded from files, with the authority that has signed the certificate.
pub(super) fn material(name: &str) -> (Material, Authority) {
    let (files, authority) = (Files::new(), Authority::new("authority"));
    let signed = authority.sign(&[name]);
    let certificate = files.write("certificate.pem", signed.certificate);
    let key = files.write("key.pem", signed.key);
    (
        load(&settings(&certificate, &key), 0).unwrap().material,
        authority,
    )
}

/// A client that remembers its sessions.
pub(super) struct Client(Arc<ClientConfig>);

/// What a handshake has come to.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) is_resumed: bool,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) suite: rustls::CipherSuite,
    pub(super) certificate: CertificateDer<'static>,
}

impl Client {
    pub(super) fn new(authority: &Authority) -> Self {
        Self::of_version(authority, &rustls::version::TLS13)
    }

    pub(super) fn of_version(
        authority: &Authority,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(8);
        Self(Arc::new(config))
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        change(Arc::get_mut(&mut self.0).unwrap());
        self
    }

    /// Through the acceptor, as the event loop does it.
    pub(super) fn shake_hands(
        &self,
        server: &Server,
        name: &str,
    ) -> Result<Handshake, rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.0), name)?;
        let mut server = accept(&mut client, server)?;
        for _ in 0..10 {
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut bytes.as_slice()).unwrap();
            client.process_new_packets()?;
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut bytes.as_slice()).unwrap();
            server.process_new_packets()?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(Handshake {
            is_resumed: server.handshake_kind() == Some(HandshakeKind::Resumed),
            alpn: client.alpn_protocol().map(<[u8]>::to_vec),
            suite: server.negotiated_cipher_suite().unwrap().suite(),
            certificate: client.peer_certificates().unwrap()[0].clone().into_owned(),
        })
    }
}

fn accept(
    client: &mut ClientConnection,
    server: &Server,
) -> Result<ServerConnection, rustls::Error> {
    let (mut acceptor, mut hello) = (Acceptor::default(), Vec::new());
    client.write_tls(&mut hello).unwrap();
    let mut rest = hello.as_slice();
    loop {
        acceptor.read_tls(&mut rest).unwrap();
        if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error)? {
            let config = Arc::clone(server.config_for(&accepted.client_hello()));
            return accepted.into_connection(config).map_err(|(error, _)| error);
        }
    }
}
