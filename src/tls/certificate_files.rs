//! Where certificates and keys stand: the files that the settings name, and those of a directory.
//!
//! The arbiter calls it whenever it loads or looks for changes. A directory is listed each time, so that a certificate that
//! is put there is served without a signal.

use std::io;
use std::path::{Path, PathBuf};

use super::tls_error::{FileFault, TlsError};
use crate::config::Tls;

/// A certificate's file, the file of its key, which may be the same, and the setting that has named the latter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) key_setting: &'static str,
}

/// # Errors
/// The settings do not fit together, or a directory cannot be used.
pub(super) fn pairs(settings: &Tls) -> Result<Vec<Pair>, TlsError> {
    let (certificates, keys) = (&settings.certfile, &settings.keyfile);
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    if certificates.iter().any(|path| path.is_dir()) {
        return match (keys.first(), certificates.as_slice()) {
            (None, [directory]) => of_directory(directory),
            (None, _) => Err(TlsError::DirectoryInList),
            (Some(_), _) => Err(TlsError::KeysBesideDirectory),
        };
    }
    // A key that stands in the certificate's file is not another file's fault.
    let (keys, key_setting) = match keys.is_empty() {
        true => (certificates, "certfile"),
        false => (keys, "keyfile"),
    };
    if keys.len() != certificates.len() {
        return Err(TlsError::Unpaired {
            certificates: certificates.len(),
            keys: keys.len(),
        });
    }
    let pairs = certificates.iter().zip(keys);
    Ok(pairs
        .map(|(certificate, key)| Pair {
            certificate: certificate.clone(),
            key: key.clone(),
            key_setting,
        })
        .collect())
}

/// All files of certificates and keys. A directory that cannot be used stands for its files.
pub(super) fn files(settings: &Tls) -> Vec<PathBuf> {
    match pairs(settings) {
        Ok(pairs) => pairs
            .into_iter()
            .flat_map(|pair| [pair.certificate, pair.key])
            .collect(),
        Err(_) => [settings.certfile.as_slice(), &settings.keyfile].concat(),
    }
}

/// What certbot calls a certificate with its chain, and its key.
const CERTBOT: [&str; 2] = ["fullchain.pem", "privkey.pem"];

/// In the order of the names, so that the first one is always the same.
fn of_directory(directory: &Path) -> Result<Vec<Pair>, TlsError> {
    let fault = |fault| TlsError::File {
        setting: "certfile",
        path: directory.to_owned(),
        fault,
    };
    if let Some(pair) = of_certbot(directory) {
        return Ok(vec![pair]);
    }
    let entries = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(|error| fault(FileFault::Unreadable(error)))?;
    let mut pairs: Vec<Pair> = entries.iter().filter_map(|path| of_entry(path)).collect();
    pairs.sort_by(|a, b| a.certificate.cmp(&b.certificate));
    match pairs.is_empty() {
        true => Err(fault(FileFault::EmptyDirectory)),
        false => Ok(pairs),
    }
}

fn of_certbot(directory: &Path) -> Option<Pair> {
    let [certificate, key] = CERTBOT.map(|name| directory.join(name));
    certificate.is_file().then_some(Pair {
        certificate,
        key,
        key_setting: "certfile",
    })
}

/// `NAME.pem` or `NAME.crt` with its key in `NAME.key` or in the same file, or a directory of certbot's.
fn of_entry(path: &Path) -> Option<Pair> {
    // Kubernetes and editors keep what is not meant in hidden entries.
    if path.file_name()?.as_encoded_bytes().starts_with(b".") {
        return None;
    }
    if path.is_dir() {
        return of_certbot(path);
    }
    let extension = path.extension()?;
    if extension != "pem" && extension != "crt" {
        return None;
    }
    let key = path.with_extension("key");
    Some(Pair {
        certificate: path.to_owned(),
        key: if key.exists() { key } else { path.to_owned() },
        key_setting: "certfile",
    })
}

#[cfg(test)]
mod tests {
    use super::super::test_material::{Files, settings};
    use super::*;

    /// The pairs of a directory with these files, as names.
    fn listed(names: &[&str]) -> Result<Vec<(String, String)>, String> {
        let files = Files::new();
        let mut directory = PathBuf::new();
        for name in names {
            directory = files.write(name, "").parent().unwrap().to_owned();
        }
        let mut all = settings(&directory, &directory);
        all.keyfile.clear();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        match pairs(&all) {
            Ok(pairs) => Ok(pairs
                .iter()
                .map(|pair| (name(&pair.certificate), name(&pair.key)))
                .collect()),
            Err(error) => Err(error.to_string().replace(directory.to_str().unwrap(), "D")),
        }
    }

    fn named(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let owned = pairs
            .iter()
            .map(|(certificate, key)| ((*certificate).to_owned(), (*key).to_owned()));
        Ok(owned.collect())
    }

    #[test]
    fn a_directory_has_pairs_in_the_order_of_their_names() {
        let all = [
            "b.pem",
            "b.key",
            "a.crt",
            "notes.txt",
            ".c.pem",
            "stray.key",
        ];
        assert_eq!(
            listed(&all),
            named(&[("a.crt", "a.crt"), ("b.pem", "b.key")])
        );
        assert_eq!(
            listed(&["tls.crt", "tls.key"]),
            named(&[("tls.crt", "tls.key")])
        );
    }

    #[test]
    fn a_directory_of_certbots_is_one_pair() {
        let all = ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"];
        assert_eq!(listed(&all), named(&[("fullchain.pem", "privkey.pem")]));
    }

    #[test]
    fn a_directory_without_certificates_is_refused() {
        let complaint = "certfile \"D\" is a directory without a file that ends with .pem or .crt";
        assert_eq!(listed(&["a.txt"]), Err(complaint.to_owned()));
    }

    #[test]
    fn a_directory_stands_alone() {
        let files = Files::new();
        let file = files.write("a.pem", "");
        let directory = file.parent().unwrap();
        let mut all = settings(directory, &file);
        assert_eq!(
            pairs(&all).unwrap_err().to_string(),
            "certfile is a directory, so keyfile cannot be set: NAME.key there belongs to NAME.pem"
        );
        all.keyfile.clear();
        all.certfile.push(file);
        assert_eq!(
            pairs(&all).unwrap_err().to_string(),
            "certfile is a list with a directory in it: name either one directory or files"
        );
    }
}
