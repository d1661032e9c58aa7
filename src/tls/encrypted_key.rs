//! Private keys that a password protects: PKCS#8 with PBES2, as `openssl` writes them.
//!
//! The structure is read by `pkcs8`, and the algorithms are those of the TLS library, so that no second set of ciphers is
//! linked. That leaves out scrypt and DES, which `openssl` writes only when asked to.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Kdf, Pbkdf2Params, Pbkdf2Prf};

use super::tls_error::FileFault;

/// The key inside, as PKCS#8. A wrong password is found out by the padding and the structure inside.
pub(super) fn decrypt(der: &[u8], password: &[u8]) -> Result<Vec<u8>, FileFault> {
    let unknown = |_| FileFault::UnknownEncryption;
    let info = EncryptedPrivateKeyInfo::try_from(der).map_err(unknown)?;
    let EncryptionScheme::Pbes2(parameters) = &info.encryption_algorithm else {
        return Err(FileFault::UnknownEncryption);
    };
    let (algorithm, iv): (&'static Algorithm, [u8; 16]) = match parameters.encryption {
        Cipher::Aes128Cbc { iv } => (&AES_128, *iv),
        Cipher::Aes256Cbc { iv } => (&AES_256, *iv),
        _ => return Err(FileFault::UnknownEncryption),
    };
    let Kdf::Pbkdf2(derivation) = &parameters.kdf else {
        return Err(FileFault::UnknownEncryption);
    };
    let mut key = vec![0; parameters.encryption.key_size()];
    derive(derivation, password, &mut key)?;
    let wrong = |_| FileFault::WrongPassword;
    let key = UnboundCipherKey::new(algorithm, &key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(wrong)?;
    let mut bytes = info.encrypted_data.to_vec();
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let length = key.decrypt(&mut bytes, context).map_err(wrong)?.len();
    bytes.truncate(length);
    // One wrong password in 256 leaves a valid padding.
    match bytes.first() {
        Some(&SEQUENCE) => Ok(bytes),
        _ => Err(FileFault::WrongPassword),
    }
}

/// The tag that PKCS#8 begins with.
const SEQUENCE: u8 = 0x30;

/// The more rounds, the longer a start takes; `openssl` uses 2048, and ten million take seconds.
const ROUNDS_MAX: u32 = 10_000_000;

fn derive(parameters: &Pbkdf2Params<'_>, password: &[u8], key: &mut [u8]) -> Result<(), FileFault> {
    let algorithm = match parameters.prf {
        Pbkdf2Prf::HmacWithSha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        Pbkdf2Prf::HmacWithSha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        Pbkdf2Prf::HmacWithSha384 => pbkdf2::PBKDF2_HMAC_SHA384,
        Pbkdf2Prf::HmacWithSha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return Err(FileFault::UnknownEncryption),
    };
    let rounds = NonZeroU32::new(parameters.iteration_count)
        .filter(|rounds| rounds.get() <= ROUNDS_MAX)
        .ok_or(FileFault::UnknownEncryption)?;
    pbkdf2::derive(algorithm, rounds, parameters.salt, password, key);
    Ok(())
}
