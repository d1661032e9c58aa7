//! `Version`: the version of HTTP in a request line.

/// The version of HTTP in a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u8,
    minor: u8,
}

impl Version {
    pub const HTTP_10: Self = Self { major: 1, minor: 0 };
    pub const HTTP_11: Self = Self { major: 1, minor: 1 };
    pub const HTTP_2: Self = Self { major: 2, minor: 0 };

    /// Both numbers are one digit (RFC 9112 section 2.3).
    pub(super) fn new(major: u8, minor: u8) -> Self {
        debug_assert!(major < 10 && minor < 10);
        Self { major, minor }
    }

    pub fn major(self) -> u8 {
        self.major
    }

    pub fn minor(self) -> u8 {
        self.minor
    }

    /// As in a request line: `HTTP/1.1`.
    pub fn as_str(self) -> &'static str {
        std::str::from_utf8(&VERSION_NAMES[usize::from(self.major) * 10 + usize::from(self.minor)])
            .unwrap_or("HTTP/1.1")
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::HTTP_11
    }
}

/// `HTTP/0.0` to `HTTP/9.9`.
static VERSION_NAMES: [[u8; 8]; 100] = {
    let mut names = [*b"HTTP/0.0"; 100];
    let mut at = 0;
    while at < 100 {
        names[at][5] += (at / 10) as u8;
        names[at][7] += (at % 10) as u8;
        at += 1;
    }
    names
};
