//! The `ssl_context` hook: what it does to a recorded context becomes settings of TLS.
//!
//! Called by the launcher when the settings are read, at the start and at a reload. The other half is
//! `ferricorn/_ssl_context.py`.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;

use super::fork_guard::end_child;
use super::hooks::{Hooks, cfg};
use crate::config::{ClientCertificates, Config, HttpProtocol, Password, Tls, TlsVersion};

type Recorded = (
    Vec<(PathBuf, PathBuf)>,
    Option<String>,
    Vec<PathBuf>,
    i64,
    Option<String>,
    bool,
    Option<Vec<String>>,
);

/// Calls the hook, if it is set and there is TLS.
///
/// # Errors
/// It raised, or has asked for something that cannot be carried over.
pub fn apply(py: Python<'_>, config: &mut Config, hooks: &Hooks) -> PyResult<()> {
    let Some(hook) = hooks.object(HOOK).filter(|_| config.tls.is_some()) else {
        return Ok(());
    };
    let conf = cfg(py, config, hooks)?;
    let recorded = py
        .import("ferricorn._ssl_context")
        .and_then(|module| module.call_method1("record", (hook, conf)));
    end_child(py, recorded.as_ref().err());
    let recorded: Recorded = recorded?.extract()?;
    if let Some(tls) = &mut config.tls {
        carry_over(tls, recorded, &config.app.chdir);
        config.http2.http_protocols.clone_from(&tls.http_protocols);
    }
    Ok(())
}

const HOOK: &str = "ssl_context";

fn carry_over(tls: &mut Tls, recorded: Recorded, chdir: &Path) {
    let (chains, password, authorities, verify_mode, ciphers, is_newest, protocols) = recorded;
    let absolute = |path: PathBuf| chdir.join(path);
    (tls.certfile, tls.keyfile) = chains
        .into_iter()
        .map(|(certificate, key)| (absolute(certificate), absolute(key)))
        .unzip();
    if let Some(password) = password {
        tls.keyfile_password = Some(Password::Text(password));
    }
    tls.ca_certs = authorities.into_iter().map(absolute).collect();
    tls.cert_reqs =
        ClientCertificates::from_number(verify_mode).unwrap_or(ClientCertificates::Required);
    tls.ciphers = ciphers.filter(|list| !list.is_empty());
    tls.ssl_minimum_version = match is_newest {
        true => TlsVersion::Tls13,
        false => TlsVersion::Tls12,
    };
    if let Some(protocols) = protocols {
        let protocols = protocols.iter().map(|name| match name.as_str() {
            "h2" => HttpProtocol::H2,
            _ => HttpProtocol::H1,
        });
        tls.http_protocols = protocols.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_becomes_absolute_settings() {
        let mut config = Config::default();
        let mut tls = crate::config::Tls {
            certfile: vec!["/a".into()],
            keyfile: Vec::new(),
            keyfile_password: None,
            ca_certs: Vec::new(),
            cert_reqs: ClientCertificates::None,
            ssl_crl: Some("/crl".into()),
            ciphers: None,
            ssl_minimum_version: TlsVersion::Tls12,
            http_protocols: vec![HttpProtocol::H1],
        };
        config.app.chdir = "/srv".into();
        let recorded = (
            vec![("c.pem".into(), "/k.pem".into())],
            Some("secret".to_owned()),
            vec!["ca.pem".into()],
            2,
            Some("HIGH".to_owned()),
            true,
            Some(vec!["h2".to_owned(), "h1".to_owned()]),
        );
        carry_over(&mut tls, recorded, &config.app.chdir);
        assert_eq!(tls.certfile, [PathBuf::from("/srv/c.pem")]);
        assert_eq!(tls.keyfile, [PathBuf::from("/k.pem")]);
        assert_eq!(tls.ca_certs, [PathBuf::from("/srv/ca.pem")]);
        assert_eq!(tls.cert_reqs, ClientCertificates::Required);
        assert_eq!(tls.ssl_minimum_version, TlsVersion::Tls13);
        assert_eq!(tls.http_protocols, [HttpProtocol::H2, HttpProtocol::H1]);
        assert_eq!(tls.ssl_crl, Some("/crl".into()), "no context has them");
    }
}
