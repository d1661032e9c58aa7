//! The `Date` field's text (IMF-fixdate, RFC 9110 section 5.6.7) for a given second.
//!
//! The caller owns the clock. The text is made once a second at most.

/// Caches the text of the last second.
#[derive(Clone, Debug)]
pub struct HttpDate {
    second: i64,
    text: [u8; 29],
}

impl HttpDate {
    pub fn new() -> Self {
        let mut date = Self {
            second: 0,
            text: *b"Thu, 01 Jan 1970 00:00:00 GMT",
        };
        date.format();
        date
    }

    /// The text for `unix_seconds`. Seconds outside the years 0 to 9999 show the nearest that is inside.
    pub fn at(&mut self, unix_seconds: i64) -> &[u8] {
        if unix_seconds != self.second {
            self.second = unix_seconds;
            self.format();
        }
        &self.text
    }

    fn format(&mut self) {
        let second = self.second.clamp(SECOND_MIN, SECOND_MAX);
        let days = second.div_euclid(86_400);
        let of_day = second.rem_euclid(86_400);
        let (year, month, day) = civil_from_days(days);
        // 1970-01-01 was a Thursday, the fourth name of the table.
        let weekday = (days + 3).rem_euclid(7);
        self.text[..3].copy_from_slice(name(b"MonTueWedThuFriSatSun", weekday));
        self.two_digits(5, day);
        self.text[8..11].copy_from_slice(name(b"JanFebMarAprMayJunJulAugSepOctNovDec", month - 1));
        self.two_digits(12, year / 100);
        self.two_digits(14, year % 100);
        self.two_digits(17, of_day / 3600);
        self.two_digits(20, of_day / 60 % 60);
        self.two_digits(23, of_day % 60);
    }

    fn two_digits(&mut self, at: usize, value: i64) {
        debug_assert!((0..100).contains(&value));
        self.text[at] = b'0' + (value / 10) as u8;
        self.text[at + 1] = b'0' + (value % 10) as u8;
    }
}

impl Default for HttpDate {
    fn default() -> Self {
        Self::new()
    }
}

/// The proleptic Gregorian date of a day number. Works in years that begin in March, so that the leap day is the
/// last of its year, and in eras of 400 years, which all have the same length.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn name(table: &[u8], index: i64) -> &[u8] {
    let start = index as usize * 3;
    &table[start..start + 3]
}

/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z: the text has room for four digits of year.
const SECOND_MIN: i64 = -62_167_219_200;
const SECOND_MAX: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_seconds_have_known_texts() {
        let cases: [(i64, &[u8]); 8] = [
            (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, b"Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, b"Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, b"Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_399, b"Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, b"Mon, 01 Mar 2100 00:00:00 GMT"),
            (-1, b"Wed, 31 Dec 1969 23:59:59 GMT"),
            (i64::MAX, b"Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        let mut date = HttpDate::new();
        for (second, text) in cases {
            assert_eq!(date.at(second), text, "{second}");
            assert_eq!(date.at(second), text, "the kept text of {second}");
        }
    }
}
