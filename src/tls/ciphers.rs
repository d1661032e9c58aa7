//! `ciphers`: OpenSSL's cipher lists, read as OpenSSL reads them, over the suites that there are.
//!
//! A list is a program. Each item acts on the suites it selects: it appends them, removes them (`-`), removes them for good (`!`)
//! or moves them to the end (`+`). Words joined by `+` select what all of them select. A word that is not known here
//! selects nothing, as in OpenSSL: most of its words are about suites that were given up long ago. A list is about TLS 1.2: the
//! suites of TLS 1.3 stay, unless the list names some of them.

use rustls::CipherSuite;

use super::names;

/// Identifiers by preference. `None`: the list selects nothing, or has a command (`@`) that is none.
#[must_use]
pub fn select(list: &str) -> Option<Vec<u16>> {
    let mut selection = Selection::default();
    for item in list
        .split([':', ',', ';', ' '])
        .filter(|item| !item.is_empty())
    {
        match item.strip_prefix('@') {
            Some(command) => selection.command(command)?,
            None => selection.apply(item),
        }
    }
    if selection.active.is_empty() && selection.modern.is_empty() {
        return None;
    }
    let modern: Vec<&str> = if selection.modern.is_empty() {
        MODERN
            .into_iter()
            .filter(|name| !selection.killed.contains(name))
            .collect()
    } else {
        selection.modern
    };
    let names = modern
        .into_iter()
        .chain(selection.active.iter().map(|suite| suite.name));
    Some(names.map(identifier).collect())
}

/// The names of all suites, for messages.
#[must_use]
pub fn known() -> String {
    names::SUITES.map(|(name, _)| name).join(" ")
}

/// The suites of TLS 1.3, by OpenSSL's preference.
const MODERN: [&str; 3] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
];

/// A suite of TLS 1.2. All of them have ephemeral keys on elliptic curves and authenticated encryption.
#[derive(Debug, PartialEq, Eq)]
struct Suite {
    name: &'static str,
    /// IANA's name.
    registered: &'static str,
    signature: Signature,
    encryption: Encryption,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signature {
    Ecdsa,
    Rsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Aes256,
    ChaCha20,
    Aes128,
}

/// By OpenSSL's preference.
static SUITES: [Suite; 6] = [
    Suite {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        registered: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        signature: Signature::Ecdsa,
        encryption: Encryption::Aes256,
    },
    Suite {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        registered: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        signature: Signature::Rsa,
        encryption: Encryption::Aes256,
    },
    Suite {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        registered: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        signature: Signature::Ecdsa,
        encryption: Encryption::ChaCha20,
    },
    Suite {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        registered: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        signature: Signature::Rsa,
        encryption: Encryption::ChaCha20,
    },
    Suite {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        registered: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        signature: Signature::Ecdsa,
        encryption: Encryption::Aes128,
    },
    Suite {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        registered: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        signature: Signature::Rsa,
        encryption: Encryption::Aes128,
    },
];

impl Suite {
    fn bits(&self) -> u32 {
        match self.encryption {
            Encryption::Aes256 | Encryption::ChaCha20 => 256,
            Encryption::Aes128 => 128,
        }
    }

    /// Whether a word of a list selects it. Words are case-sensitive, as in OpenSSL.
    fn is(&self, word: &str) -> bool {
        let is_aes = self.encryption != Encryption::ChaCha20;
        match word {
            "ALL" | "DEFAULT" | "HIGH" | "AEAD" | "TLSv1.2" => true,
            "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "ECDH" => true,
            "ECDSA" | "aECDSA" => self.signature == Signature::Ecdsa,
            "aRSA" => self.signature == Signature::Rsa,
            "AES" | "AESGCM" | "FIPS" => is_aes,
            "AES128" => self.encryption == Encryption::Aes128,
            "AES256" => self.encryption == Encryption::Aes256,
            "CHACHA20" => !is_aes,
            word => word == self.name || word == self.registered,
        }
    }
}

/// What a list has selected so far.
#[derive(Debug, Default)]
struct Selection {
    active: Vec<&'static Suite>,
    /// Of TLS 1.3, where the list names some.
    modern: Vec<&'static str>,
    /// Nothing brings these back.
    killed: Vec<&'static str>,
}

impl Selection {
    fn apply(&mut self, item: &str) {
        let (action, words) = match item.split_at_checked(1) {
            Some((action @ ("!" | "-" | "+"), words)) => (action, words),
            _ => ("", item),
        };
        let named = MODERN.into_iter().filter(|name| words == *name);
        let selected = |suite: &&'static Suite| {
            !words.is_empty() && words.split('+').all(|word| suite.is(word))
        };
        match action {
            "!" => {
                self.killed.extend(named);
                self.killed
                    .extend(SUITES.iter().filter(selected).map(|suite| suite.name));
                self.active.retain(|suite| !selected(suite));
                self.modern.retain(|name| *name != words);
            }
            "-" => {
                self.active.retain(|suite| !selected(suite));
                self.modern.retain(|name| *name != words);
            }
            // False sorts before true, and the sort is stable.
            "+" => self.active.sort_by_key(selected),
            _ => {
                let is_new = |suite: &&Suite| {
                    !self.active.contains(suite) && !self.killed.contains(&suite.name)
                };
                let new: Vec<_> = SUITES.iter().filter(selected).filter(is_new).collect();
                self.active.extend(new);
                let is_new =
                    |name: &&str| !self.modern.contains(name) && !self.killed.contains(name);
                let new: Vec<_> = named.filter(is_new).collect();
                self.modern.extend(new);
            }
        }
    }

    fn command(&mut self, command: &str) -> Option<()> {
        let bits_min = match command {
            "STRENGTH" => {
                self.active
                    .sort_by_key(|suite| std::cmp::Reverse(suite.bits()));
                return Some(());
            }
            // These let all of the suites pass.
            "SECLEVEL=0" | "SECLEVEL=1" | "SECLEVEL=2" | "SECLEVEL=3" => return Some(()),
            "SECLEVEL=4" => 192,
            "SECLEVEL=5" => 256,
            _ => return None,
        };
        for suite in SUITES.iter().filter(|suite| suite.bits() < bits_min) {
            self.killed.push(suite.name);
        }
        self.active.retain(|suite| suite.bits() >= bits_min);
        Some(())
    }
}

fn identifier(name: &str) -> u16 {
    let found = names::SUITES.iter().find(|(known, _)| *known == name);
    found
        .map_or(CipherSuite::TLS_NULL_WITH_NULL_NULL, |(_, suite)| *suite)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The suites of TLS 1.2 in short: which signature, which encryption.
    fn selected(list: &str) -> String {
        let Some(suites) = select(list) else {
            return "none".to_owned();
        };
        let short = suites.iter().filter(|suite| **suite > 0x1400).map(|suite| {
            let name = names::cipher(CipherSuite::from(*suite));
            let signature = if name.contains("ECDSA") { 'e' } else { 'r' };
            let encryption = ["AES256", "AES128", "CHACHA20"]
                .iter()
                .find(|part| name.contains(**part));
            format!(
                "{signature}{}",
                match *encryption.unwrap() {
                    "AES256" => "256",
                    "AES128" => "128",
                    _ => "cc",
                }
            )
        });
        short.collect::<Vec<_>>().join(" ")
    }

    /// As `openssl ciphers -tls1_2 -s LIST` of OpenSSL 3 says, reduced to the suites that there are.
    #[test]
    fn selects_what_openssl_selects() {
        let all = "e256 r256 ecc rcc e128 r128";
        for (list, expected) in [
            ("ALL", all),
            ("DEFAULT", all),
            ("HIGH:!aNULL:!MD5", all),
            ("ECDHE-RSA-AES128-GCM-SHA256", "r128"),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
                "r128 e256",
            ),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "r128"),
            ("ECDHE+AESGCM", "e256 r256 e128 r128"),
            ("ECDHE+AESGCM:ECDHE+CHACHA20", "e256 r256 e128 r128 ecc rcc"),
            ("ECDHE+aRSA", "r256 rcc r128"),
            ("EECDH+AES128+aECDSA", "e128"),
            (
                "ECDH+AESGCM:DH+AESGCM:RSA+AES:!aNULL:!eNULL:!MD5:!DSS",
                "e256 r256 e128 r128",
            ),
            ("ALL:!aRSA", "e256 ecc e128"),
            ("ALL:-aRSA:aRSA", "e256 ecc e128 r256 rcc r128"),
            ("ALL:!aRSA:aRSA", "e256 ecc e128"),
            ("ALL:+AES256", "ecc rcc e128 r128 e256 r256"),
            ("AES128:AES256:@STRENGTH", "e256 r256 e128 r128"),
            ("ALL:@SECLEVEL=2", all),
            ("ALL:@SECLEVEL=4", "e256 r256 ecc rcc"),
            ("ALL, !CHACHA20 ; !AES128", "e256 r256"),
            ("RSA", "none"),
            ("kRSA:DES-CBC3-SHA:AES128-SHA", "none"),
            ("ALL:!ALL", "none"),
            ("no-such-suite", "none"),
            ("high", "none"),
            ("", "none"),
            ("!", "none"),
            ("+:-:::", "none"),
            ("ALL:@", "none"),
            ("ALL:@FOO", "none"),
            ("ALL:@SECLEVEL=9", "none"),
            ("ALL:!:-:+:ECDHE+", all),
        ] {
            assert_eq!(selected(list), expected, "{list}");
        }
    }

    #[test]
    fn the_suites_of_tls_1_3_stay_unless_some_are_named() {
        let modern = |list: &str| {
            let suites = select(list).unwrap().into_iter();
            suites.filter(|suite| *suite < 0x1400).collect::<Vec<_>>()
        };
        assert_eq!(
            modern("ECDHE-RSA-AES128-GCM-SHA256"),
            [0x1302, 0x1303, 0x1301]
        );
        assert_eq!(modern("ALL:TLS_AES_128_GCM_SHA256"), [0x1301]);
        assert_eq!(modern("TLS_AES_128_GCM_SHA256"), [0x1301]);
        assert_eq!(selected("TLS_AES_128_GCM_SHA256"), "");
        assert_eq!(
            modern("ALL:!TLS_CHACHA20_POLY1305_SHA256"),
            [0x1302, 0x1301]
        );
    }

    #[test]
    fn every_suite_has_an_identifier() {
        let names = SUITES.iter().map(|suite| suite.name).chain(MODERN);
        let mut identifiers: Vec<u16> = names.map(identifier).collect();
        identifiers.sort_unstable();
        identifiers.dedup();
        assert_eq!(identifiers.len(), 9);
        assert!(!identifiers.contains(&0));
    }
}
