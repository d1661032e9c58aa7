//! Frames, as gunicornc sends and expects them: a length in four bytes, big-endian, then as many bytes of JSON.

use serde_json::Value;

/// Bytes that have arrived, until they are whole frames.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    payload_max: usize,
}

/// A frame longer than its reader allows; where the next one starts is not worth knowing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    pub length: usize,
}

impl Inbox {
    #[must_use]
    pub fn new(payload_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            payload_max,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// There is something to `take`, be it a mistake.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let head = self.bytes.first_chunk::<HEAD_BYTES>();
        head.is_some_and(|head| {
            let length = u32::from_be_bytes(*head) as usize;
            length > self.payload_max || self.bytes.len() - HEAD_BYTES >= length
        })
    }

    /// The next frame's payload, when it is whole.
    ///
    /// # Errors
    /// When its length is over the limit.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > self.payload_max {
            return Err(TooLong { length });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let payload = rest[..length].to_vec();
        self.bytes.drain(..HEAD_BYTES + length);
        Ok(Some(payload))
    }
}

/// `message` as a frame.
#[must_use]
pub fn encode(message: &Value) -> Vec<u8> {
    let payload = message.to_string();
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload.as_bytes());
    frame
}

const HEAD_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_arrive_in_any_pieces() {
        let messages = [json!({"id": 1}), json!([]), json!("é")];
        let bytes: Vec<u8> = messages.iter().flat_map(encode).collect();
        for size in 1..bytes.len() {
            let mut inbox = Inbox::new(100);
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                inbox.push(piece);
                while let Some(payload) = inbox.take().unwrap() {
                    seen.push(serde_json::from_slice::<Value>(&payload).unwrap());
                }
            }
            assert_eq!(seen, messages);
            assert!(!inbox.is_whole());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
        let mut inbox = Inbox::new(10);
        inbox.push(&[0, 0, 0, 10]);
        assert_eq!(inbox.take(), Ok(None));
        let mut inbox = Inbox::new(10);
        inbox.push(&[0xff, 0xff, 0xff, 0xff]);
        assert!(inbox.is_whole());
        assert_eq!(
            inbox.take(),
            Err(TooLong {
                length: 0xffff_ffff
            })
        );
    }
}
