//! What `load` makes of good and bad files. Keys of RSA and encrypted ones were made with `openssl`.

use super::super::test_material::{Authority, Client, Files, material, settings};
use super::*;
use crate::config::TlsVersion;

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:secret`
const ENCRYPTED: &str = include_str!("encrypted_key.pem");

struct Bench {
    files: Files,
    authority: Authority,
    settings: Tls,
}

impl Bench {
    fn new() -> Self {
        let (files, authority) = (Files::new(), Authority::new("authority"));
        let signed = authority.sign(&["a.example"]);
        let certificate = files.write("certificate.pem", signed.certificate);
        let key = files.write("key.pem", signed.key);
        let settings = settings(&certificate, &key);
        Self {
            files,
            authority,
            settings,
        }
    }

    /// The complaint, with the directory of the files taken out.
    fn complaint(&self) -> String {
        let complaint = load(&self.settings, NOW).unwrap_err().to_string();
        let directory = self.files.write("x", "");
        let directory = format!("{}/", directory.parent().unwrap().display());
        assert!(!complaint.contains('\n'), "{complaint}");
        complaint.replace(&directory, "")
    }
}

/// rcgen's certificates are valid from 1975 to 4096.
const NOW: i64 = 1_800_000_000;

#[test]
fn a_pair_is_loaded_with_its_names() {
    let bench = Bench::new();
    let loaded = load(&bench.settings, NOW).unwrap();
    assert_eq!(loaded.material.names(), ["a.example"]);
    assert_eq!(loaded.warnings, []);
    assert!(loaded.material.not_after() > NOW);
}

#[test]
fn a_key_may_stand_in_the_file_of_its_certificate() {
    let mut bench = Bench::new();
    let signed = bench.authority.sign(&["b.example"]);
    let both = bench.files.write(
        "both.pem",
        signed.key + &signed.certificate + &bench.authority.pem,
    );
    bench.settings.certfile = vec![both];
    bench.settings.keyfile.clear();
    let material = load(&bench.settings, NOW).unwrap().material;
    assert_eq!(material.names(), ["b.example"]);
    assert_eq!(
        material.identities[0].chain,
        [signed.der, bench.authority.der]
    );
}

#[test]
fn names_each_mistake_with_its_file() {
    for (setting, text, complaint) in [
        (
            "keyfile",
            "",
            "keyfile \"wrong.pem\" is not PEM; `openssl x509 -inform DER` or `openssl pkcs12` converts it",
        ),
        (
            "certfile",
            "words",
            "certfile \"wrong.pem\" is not PEM; `openssl x509 -inform DER` or `openssl pkcs12` converts it",
        ),
        ("keyfile", CSR, "keyfile \"wrong.pem\" holds no private key"),
        (
            "certfile",
            CSR,
            "certfile \"wrong.pem\" holds no certificate",
        ),
        (
            "ca_certs",
            CSR,
            "ca_certs \"wrong.pem\" holds no certificate",
        ),
        (
            "ca_certs",
            BAD_DER,
            "ca_certs \"wrong.pem\" holds a certificate that is no authority's: invalid peer certificate: BadEncoding",
        ),
        (
            "ssl_crl",
            BAD_DER,
            "ssl_crl \"wrong.pem\" holds no revocation list",
        ),
        (
            "ssl_crl",
            BAD_CRL,
            "ssl_crl \"wrong.pem\" holds a revocation list that cannot be used",
        ),
        (
            "keyfile",
            TRADITIONAL,
            "keyfile \"wrong.pem\" is encrypted in the traditional form; `openssl pkey -in KEY -aes256 -out NEW` converts it",
        ),
        (
            "keyfile",
            ENCRYPTED,
            "keyfile \"wrong.pem\" is encrypted: set keyfile_password",
        ),
    ] {
        let mut bench = Bench::new();
        let wrong = bench.files.write("wrong.pem", text);
        let authority = bench.files.write("authority.pem", &bench.authority.pem);
        match setting {
            "keyfile" => bench.settings.keyfile = vec![wrong],
            "certfile" => bench.settings.certfile = vec![wrong],
            "ca_certs" => bench.settings.ca_certs = vec![wrong],
            _ => {
                bench.settings.ca_certs = vec![authority];
                bench.settings.cert_reqs = ClientCertificates::Required;
                bench.settings.ssl_crl = Some(wrong);
            }
        }
        assert_eq!(bench.complaint(), complaint, "{setting} {text}");
    }
}

#[test]
fn names_broken_pem_and_broken_certificates() {
    for (text, start) in [
        (
            BAD_DER,
            "certfile \"wrong.pem\" holds a certificate that cannot be read: ",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMIIB\n",
            "certfile \"wrong.pem\" is broken PEM: ",
        ),
    ] {
        let mut bench = Bench::new();
        bench.settings.certfile = vec![bench.files.write("wrong.pem", text)];
        let complaint = bench.complaint();
        assert!(complaint.starts_with(start), "{complaint}");
    }
}

#[test]
fn names_files_that_cannot_be_read() {
    let mut bench = Bench::new();
    let directory = bench.files.write("x", "").parent().unwrap().to_owned();
    bench.settings.keyfile = vec![directory.join("gone.pem")];
    assert_eq!(bench.complaint(), "keyfile \"gone.pem\" does not exist");
    let pipe = directory.join("pipe.pem");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    bench.settings.keyfile = vec![pipe];
    assert_eq!(
        bench.complaint(),
        "keyfile \"pipe.pem\" is not a regular file"
    );
    bench.settings.keyfile = vec![directory.join("certificate.pem").join("below.pem")];
    let complaint = bench.complaint();
    assert!(
        complaint.starts_with("keyfile \"certificate.pem/below.pem\" cannot be read: "),
        "{complaint}"
    );
}

#[test]
fn names_settings_that_do_not_fit_together() {
    let mut bench = Bench::new();
    let other = bench.authority.sign(&["b.example"]);
    let own_key = std::mem::replace(
        &mut bench.settings.keyfile,
        vec![bench.files.write("other.pem", other.key)],
    );
    assert_eq!(
        bench.complaint(),
        "keyfile \"other.pem\" does not belong to certfile \"certificate.pem\""
    );
    bench.settings.keyfile = [own_key.clone(), own_key.clone()].concat();
    assert_eq!(
        bench.complaint(),
        "certfile names 1 files and keyfile 2; each certificate needs its key"
    );
    bench.settings.keyfile = own_key;
    bench.settings.cert_reqs = ClientCertificates::Required;
    assert_eq!(
        bench.complaint(),
        "cert_reqs needs ca_certs, the authorities that client certificates are checked against"
    );
    bench.settings.cert_reqs = ClientCertificates::None;
    bench.settings.ssl_crl = Some(bench.files.write("list.pem", ""));
    assert_eq!(
        bench.complaint(),
        "ssl_crl needs ca_certs, and cert_reqs other than 0"
    );
    bench.settings.certfile.clear();
    assert_eq!(bench.complaint(), "keyfile is set and certfile is not");
}

#[test]
fn warns_of_certificates_that_clients_refuse() {
    for (not_before, not_after, expected) in [
        (2001, 2002, Some("has expired")),
        (2090, 2091, Some("is not valid yet")),
        (2001, 2091, None),
    ] {
        let mut bench = Bench::new();
        let signed = bench.authority.sign_with(&["a.example"], |params| {
            params.not_before = rcgen::date_time_ymd(not_before, 1, 1);
            params.not_after = rcgen::date_time_ymd(not_after, 1, 1);
        });
        bench.settings.certfile = vec![bench.files.write("certificate.pem", signed.certificate)];
        bench.settings.keyfile = vec![bench.files.write("key.pem", signed.key)];
        let warnings = load(&bench.settings, NOW).unwrap().warnings;
        let warning = warnings.first().map(Warning::to_string);
        assert_eq!(warnings.len(), usize::from(expected.is_some()));
        assert!(
            warning
                .unwrap_or_default()
                .ends_with(expected.unwrap_or_default())
        );
    }
}

#[test]
fn an_encrypted_key_needs_its_password() {
    let bench = Bench::new();
    let path = bench.files.write("encrypted.pem", ENCRYPTED);
    let password = bench.files.write("password", "secret\r\nmore\n");
    let file = SettingFile("keyfile", &path);
    let of_text = |text: &str| private_key(file, Some(&Password::from_setting(text)));
    let of_file = of_text(&format!("file:{}", password.display())).unwrap();
    assert_eq!(of_file, of_text("secret").unwrap());
    any_supported_type(&of_file.der).unwrap();
    for wrong in ["", "Secret", "secret ", "x"] {
        let complaint = of_text(wrong).unwrap_err().to_string();
        assert!(
            complaint.ends_with("is encrypted, and keyfile_password is not its password"),
            "{complaint}"
        );
    }
    assert_eq!(
        of_text("env:FERRICORN_TEST_NO_SUCH_VARIABLE")
            .unwrap_err()
            .to_string(),
        "keyfile_password: the variable FERRICORN_TEST_NO_SUCH_VARIABLE is not set"
    );
}

/// Written by `openssl pkcs8 -topk8` with `-scrypt`, `-v2 des3 -v2prf hmacWithSHA1`, `-v2 des-cbc` and so on.
#[test]
fn encrypted_keys_of_all_forms_are_read_or_refused() {
    let open = PrivateKeyDer::from_pem_slice(include_bytes!("encrypted_open.pem")).unwrap();
    let bench = Bench::new();
    let read = |pem: &str, password: &str| {
        let path = bench.files.write("encrypted.pem", pem);
        private_key(
            SettingFile("keyfile", &path),
            Some(&Password::from_setting(password)),
        )
    };
    for pem in [
        include_str!("encrypted_scrypt.pem"),
        include_str!("encrypted_des3.pem"),
        include_str!("encrypted_aes192.pem"),
    ] {
        assert_eq!(read(pem, "secret").unwrap().der, open);
        let complaint = read(pem, "Secret").unwrap_err().to_string();
        assert!(
            complaint.ends_with("keyfile_password is not its password"),
            "{complaint}"
        );
    }
    for pem in [
        include_str!("encrypted_des.pem"),
        include_str!("encrypted_pbes1.pem"),
    ] {
        let complaint = read(pem, "secret").unwrap_err().to_string();
        assert!(
            complaint.ends_with(
                "is encrypted with an algorithm that is not supported (AES and triple DES are); \
                 `openssl pkey -in KEY -aes256 -out NEW` converts it"
            ),
            "{complaint}"
        );
    }
}

#[test]
fn keys_of_all_forms_are_read() {
    for (name, pem) in [
        ("PKCS#1", include_str!("rsa_pkcs1.pem")),
        ("SEC1 behind its parameters", include_str!("ec_sec1.pem")),
        ("Ed25519", include_str!("ed25519.pem")),
    ] {
        let bench = Bench::new();
        let path = bench.files.write("key.pem", pem);
        let key = private_key(SettingFile("keyfile", &path), None).unwrap();
        any_supported_type(&key.der).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_newest_version_alone_can_be_asked_for() {
    let (mut material, authority) = material("a.example");
    material.minimum_version = TlsVersion::Tls13;
    let server = super::super::tls_server::tests::server(&material);
    Client::new(&authority)
        .shake_hands(&server, "a.example")
        .unwrap();
    let old = Client::of_version(&authority, &rustls::version::TLS12);
    old.shake_hands(&server, "a.example").unwrap_err();
}

const CSR: &str = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n";
const BAD_DER: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const BAD_CRL: &str = "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n";
const TRADITIONAL: &str = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
