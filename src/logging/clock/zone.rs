//! The process's time zone, as the C library has it: an application that calls `time.tzset()` changes it.
#![expect(unsafe_code, reason = "the time zone is the C library's")]

use std::mem::MaybeUninit;

use nix::libc;

/// Seconds east of Greenwich at a moment. The call reads no environment variable but the first time in a process, so
/// Python threads may write to the environment meanwhile.
pub(super) fn offset_at(unix_seconds: i64) -> i32 {
    // On some platforms the type is narrower. Its name is deprecated on others, so it is inferred from the call.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_truncation)]
    let time = unix_seconds as _;
    let mut fields = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call, which writes to the second alone and keeps neither.
    let converted = unsafe { libc::localtime_r(&raw const time, fields.as_mut_ptr()) };
    if converted.is_null() {
        return 0;
    }
    // SAFETY: zeros are a valid `tm`, and the call has filled it.
    let fields = unsafe { fields.assume_init() };
    i32::try_from(fields.tm_gmtoff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_less_than_a_day_and_the_same_within_a_second() {
        let offset = offset_at(1_795_170_148);
        assert!(offset.abs() < 24 * 3600);
        assert_eq!(offset, offset_at(1_795_170_148));
    }
}
