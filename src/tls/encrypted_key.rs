//! Private keys that a password protects: PKCS#8 with PBES2, as `openssl` writes them.
//!
//! AES and triple DES, with keys of PBKDF2 or scrypt. DES alone, RC2 and PBES1 are refused: a file that anybody can decrypt
//! in a day gives its operator a wrong idea of what protects the key.

use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::pkcs5::{EncryptionScheme, Error};

use super::tls_error::FileFault;

/// The key inside, as PKCS#8. A wrong password is found out by the padding and the structure inside.
pub(super) fn decrypt(der: &[u8], password: &[u8]) -> Result<Vec<u8>, FileFault> {
    let unknown = |_| FileFault::UnknownEncryption;
    let info = EncryptedPrivateKeyInfo::try_from(der).map_err(unknown)?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(FileFault::UnknownEncryption);
    };
    if !is_affordable(&parameters.kdf) {
        return Err(FileFault::CostlyEncryption);
    }
    match parameters.decrypt(password, info.encrypted_data) {
        // One wrong password in 256 leaves a valid padding.
        Ok(key) if key.first() == Some(&SEQUENCE) => Ok(key),
        // The library's word for a padding that is wrong.
        Ok(_) | Err(Error::EncryptFailed) => Err(FileFault::WrongPassword),
        Err(_) => Err(FileFault::UnknownEncryption),
    }
}

/// The tag that PKCS#8 begins with.
const SEQUENCE: u8 = 0x30;

/// The more rounds, the longer a start takes; `openssl` uses 2048, and ten million take seconds.
const ROUNDS_MAX: u32 = 10_000_000;
/// `openssl` writes keys of scrypt that take 16 MiB, and reads none that take more than 32.
const SCRYPT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How often that memory is gone through; `openssl` writes 1.
const SCRYPT_PASSES_MAX: u16 = 16;

/// Whether the derivation of the key ends soon, in memory that can be had.
fn is_affordable(derivation: &Kdf<'_>) -> bool {
    match derivation {
        Kdf::Pbkdf2(parameters) => (1..=ROUNDS_MAX).contains(&parameters.iteration_count),
        // RFC 7914 section 2: 128 * r * N bytes.
        Kdf::Scrypt(parameters) => {
            let block_bytes = 128 * u64::from(parameters.block_size);
            let bytes = parameters.cost_parameter.saturating_mul(block_bytes);
            bytes <= SCRYPT_BYTES_MAX && parameters.parallelization <= SCRYPT_PASSES_MAX
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pkcs8::pkcs5::pbes2::{Pbkdf2Params, ScryptParams};

    #[test]
    fn a_password_that_takes_too_long_to_try_is_not_tried() {
        let scrypt = |cost_parameter, parallelization| {
            is_affordable(&Kdf::Scrypt(ScryptParams {
                salt: b"salt",
                cost_parameter,
                block_size: 8,
                parallelization,
                key_length: None,
            }))
        };
        assert!(scrypt(1 << 14, 1) && scrypt(1 << 18, 16));
        assert!(!scrypt(1 << 19, 1) && !scrypt(1 << 14, 17) && !scrypt(u64::MAX, 1));
        let rounds = |count| {
            let parameters = Pbkdf2Params::hmac_with_sha256(count, b"salt").unwrap();
            is_affordable(&Kdf::Pbkdf2(parameters))
        };
        assert!(rounds(2048) && rounds(ROUNDS_MAX));
        assert!(!rounds(ROUNDS_MAX + 1));
    }
}
