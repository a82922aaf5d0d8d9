//! Frames of the journal: length, checksum, payload. A damaged frame ends the reading.

use sha2::{Digest, Sha256};

const LENGTH: usize = 4;
const CHECKSUM: usize = 8;

/// A frame around a payload of less than 4 GiB.
pub(super) fn encode(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length[..], &checksum(payload), payload].concat()
}

/// The payloads of whole, undamaged frames, up to the first one that is not.
pub(super) fn decode(bytes: &[u8]) -> Frames<'_> {
    Frames { rest: bytes }
}

pub(super) struct Frames<'a> {
    rest: &'a [u8],
}

impl Frames<'_> {
    /// Once all frames were read: whether there is more that is none.
    pub(super) fn damaged(&self) -> bool {
        !self.rest.is_empty()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<LENGTH>()?;
        let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        if checksum(payload) != *sum {
            return None;
        }
        self.rest = rest;
        Some(payload)
    }
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::digest(payload);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&digest[..CHECKSUM]);
    sum
}
