//! `admin_token`: whose requests at `admin_bind` may change the server.
//!
//! A request that acts must bring the token, in a field or a form: a browser never adds it by itself, so no page of strangers
//! can have one sent (CSRF). What says that such a page has sent the request is refused all the same, before the token
//! is looked at. The token is compared in a time that depends on lengths only, and never shown.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::admin_response::{Asked, Response};
use crate::config::{Config, Password};

/// See the module. Without a setting nothing is permitted.
#[derive(Default)]
pub(super) struct AdminToken {
    token: Option<Vec<u8>>,
    /// Whose settings it follows.
    followed: Option<Arc<Config>>,
    /// Requests with a wrong token since the last line in the log, and when that was.
    refused: u64,
    logged_at: u64,
}

/// Why there is no usable token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("admin_token: the environment variable {0} is not set")]
    NoVariable(String),
    #[error("admin_token: {}: {error}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("admin_token has {0} bytes; it needs at least {BYTES_MIN}: try `openssl rand -hex 16`")]
    Short(usize),
    #[error("admin_token has more than {BYTES_MAX} bytes")]
    Long,
    #[error("admin_token may contain only printable ASCII characters, and no spaces")]
    Characters,
}

/// Whether the setting, if there is one, names a usable token.
///
/// # Errors
/// It does not.
pub fn check_token(config: &Config) -> Result<(), TokenError> {
    read(config).map(drop)
}

fn read(config: &Config) -> Result<Option<Vec<u8>>, TokenError> {
    let Some(setting) = &config.control.admin_token else {
        return Ok(None);
    };
    let token = match setting {
        Password::Text(text) => text.as_bytes().to_vec(),
        Password::Variable(name) => match std::env::var_os(name) {
            Some(value) => value.into_encoded_bytes(),
            None => return Err(TokenError::NoVariable(name.clone())),
        },
        Password::File(path) => {
            let mut bytes = Vec::new();
            let file = File::open(path);
            let read = file.and_then(|file| file.take(4096).read_to_end(&mut bytes));
            read.map_err(|error| TokenError::File {
                path: path.clone(),
                error,
            })?;
            bytes.trim_ascii_end().to_vec()
        }
    };
    match token.len() {
        len if len < BYTES_MIN => Err(TokenError::Short(len)),
        len if len > BYTES_MAX => Err(TokenError::Long),
        _ if !token.iter().all(u8::is_ascii_graphic) => Err(TokenError::Characters),
        _ => Ok(Some(token)),
    }
}

impl AdminToken {
    /// Follows the settings, which a reload may change. A reload with an unusable token is refused; one that is taken back may
    /// find such a file, and then the token is as before.
    pub(super) fn follow(&mut self, config: &Arc<Config>) {
        let followed = self.followed.as_ref();
        if followed.is_some_and(|followed| Arc::ptr_eq(followed, config)) {
            return;
        }
        self.followed = Some(Arc::clone(config));
        match read(config) {
            Ok(token) => self.token = token,
            Err(error) => log::error!("{error}; keeping the previous token"),
        }
    }

    pub(super) fn is_set(&self) -> bool {
        self.token.is_some()
    }

    /// # Errors
    /// With the answer to a request that may not act.
    pub(super) fn permit(&mut self, asked: &Asked) -> Result<(), Response> {
        let Some(token) = &self.token else {
            return Err(Response::forbidden(
                "Actions need the setting admin_token\n",
            ));
        };
        if !asked.is_from_here() {
            let why = "Only a page of this address may act, and programs\n";
            return Err(Response::forbidden(why));
        }
        if !asked.has_known_form() {
            return Err(Response::unknown_form());
        }
        let is_right = asked
            .token()
            .is_some_and(|given| bool::from(given.as_slice().ct_eq(token)));
        if !is_right {
            self.refused += 1;
            return Err(Response::unauthorized());
        }
        Ok(())
    }

    /// Says in the log that wrong tokens come, a line a second at most.
    pub(super) fn report(&mut self, now: u64) {
        if now >= self.logged_at + LOG_MS && self.report_rest() {
            self.logged_at = now;
        }
    }

    /// As [`AdminToken::report`], at the end. Returns whether there was something to say.
    pub(super) fn report_rest(&mut self) -> bool {
        let count = std::mem::take(&mut self.refused);
        if count > 0 {
            log::warn!("admin_bind: refused {count} requests with a wrong admin_token");
        }
        count > 0
    }
}

impl std::fmt::Debug for AdminToken {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_set = self.is_set();
        f.debug_struct("AdminToken")
            .field("is_set", &is_set)
            .finish_non_exhaustive()
    }
}

/// 64 bits as hexadecimal digits, which cannot be found by asking.
const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 512;
const LOG_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(token: &str) -> Arc<Config> {
        let mut config = Config::default();
        config.control.admin_token = Some(Password::from_setting(token));
        Arc::new(config)
    }

    #[test]
    fn tokens_are_read_from_where_the_setting_says() {
        let path = std::env::temp_dir().join(format!("ferricorn-token-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef\r\n").unwrap();
        let token = read(&config(&format!("file:{}", path.display()))).unwrap();
        assert_eq!(token.unwrap(), b"0123456789abcdef");
        std::fs::remove_file(&path).unwrap();
        let error = read(&config(&format!("file:{}", path.display()))).unwrap_err();
        assert!(matches!(error, TokenError::File { .. }));
        assert!(read(&Config::default()).unwrap().is_none());
        for (token, part) in [
            ("env:FERRICORN_NO_SUCH_VARIABLE", "is not set"),
            ("short", "5 bytes"),
            ("with spaces in the midst", "printable"),
            (&"x".repeat(513), "more than"),
        ] {
            let error = read(&config(token)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn only_the_token_permits() {
        let mut one = AdminToken::default();
        let asked = |token: &str| Asked::post("/", &[("authorization", token)], b"");
        assert!(one.permit(&asked("Bearer ")).is_err(), "there is none");
        one.follow(&config("0123456789abcdef"));
        assert!(one.permit(&asked("Bearer 0123456789abcdef")).is_ok());
        assert!(one.permit(&asked("bearer 0123456789abcdef")).is_ok());
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let in_form = Asked::post("/", &form, b"pid=1&token=0123456789abcde%66");
        assert!(one.permit(&in_form).is_ok());
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(one.permit(&asked(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(one.refused, 8);
        one.follow(&config("another-token-0000"));
        assert!(one.permit(&asked("Bearer 0123456789abcdef")).is_err());
        one.follow(&config("short"));
        let after = one.permit(&asked("Bearer another-token-0000"));
        assert!(after.is_ok(), "the token is as before");
        one.follow(&Arc::default());
        assert!(one.permit(&asked("Bearer another-token-0000")).is_err());
        assert!(!format!("{one:?}").contains("another"));
    }

    #[test]
    fn pages_of_strangers_are_refused_before_the_token_is_looked_at() {
        let mut one = AdminToken::default();
        one.follow(&config("0123456789abcdef"));
        let token = ("authorization", "Bearer 0123456789abcdef");
        let host = ("host", "127.0.0.1:9000");
        for (name, value, is_permitted) in [
            ("origin", "http://127.0.0.1:9000", true),
            ("origin", "https://127.0.0.1:9000", true),
            ("origin", "http://127.0.0.1:8000", false),
            ("origin", "http://evil.example", false),
            ("origin", "null", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
            ("content-type", "text/plain", false),
            ("content-type", "multipart/form-data; boundary=x", false),
        ] {
            let body: &[u8] = if name == "content-type" { b"a=b" } else { b"" };
            let asked = Asked::post("/", &[host, token, (name, value)], body);
            assert_eq!(one.permit(&asked).is_ok(), is_permitted, "{name}: {value}");
        }
        assert_eq!(one.refused, 0);
    }
}
