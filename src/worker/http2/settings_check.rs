//! Settings as they pass in: an initial window that is too large, which the h2 crate answers with a code for other errors.

use super::violation::Violation;

/// An identifier of two octets, a value of four (RFC 9113 section 6.5.1).
const SETTING_BYTES: u32 = 6;
const INITIAL_WINDOW_SIZE: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SettingsCheck {
    /// The setting that is passing, and how much of it has passed.
    setting: u64,
    bytes: u32,
}

impl SettingsCheck {
    /// A part of a SETTINGS frame.
    ///
    /// # Errors
    /// RFC 9113 section 6.5.2: FLOW_CONTROL_ERROR.
    pub(super) fn check(&mut self, part: &[u8]) -> Result<(), Violation> {
        for byte in part {
            self.setting = (self.setting << 8 | u64::from(*byte)) & 0xffff_ffff_ffff;
            self.bytes = (self.bytes + 1) % SETTING_BYTES;
            let is_window = self.setting >> 32 == INITIAL_WINDOW_SIZE;
            if self.bytes == 0 && is_window && self.setting & 0x8000_0000 != 0 {
                return Err(Violation::WindowSize);
            }
        }
        Ok(())
    }
}
