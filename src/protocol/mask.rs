//! Unmasking (RFC 6455 section 5.3): XOR with a 4-byte key, in place.

/// The number of bytes that one iteration of the main loop unmasks.
///
/// These are four 64-bit words, which the compiler vectorises.
const STEP: usize = 32;

/// Unmasks a part of the payload of a frame. The part starts at the index `offset` of the payload.
#[inline]
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: u64) {
    // The first byte of the key is the least significant byte, whatever the byte order of the machine.
    let key = u32::from_le_bytes(key).rotate_right((offset % 4) as u32 * 8);
    let word = u64::from(key) << 32 | u64::from(key);

    let (steps, rest) = payload.as_chunks_mut::<STEP>();
    for step in steps {
        for part in step.as_chunks_mut::<8>().0 {
            *part = (u64::from_le_bytes(*part) ^ word).to_le_bytes();
        }
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for part in words {
        *part = (u64::from_le_bytes(*part) ^ word).to_le_bytes();
    }
    let (half, tail) = tail.as_chunks_mut::<4>();
    for part in half {
        *part = (u32::from_le_bytes(*part) ^ key).to_le_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(key.to_le_bytes()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmask_naively(payload: &mut [u8], key: [u8; 4], offset: u64) {
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(index + offset as usize) % 4];
        }
    }

    #[test]
    fn the_result_is_that_of_rfc_6455_for_every_length_and_offset() {
        for len in 0..200 {
            for offset in 0..9 {
                let mut fast: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
                let mut naive = fast.clone();
                unmask(&mut fast, [0xde, 0xad, 0xbe, 0xef], offset);
                unmask_naively(&mut naive, [0xde, 0xad, 0xbe, 0xef], offset);
                assert_eq!(
                    fast, naive,
                    "{len} bytes at offset {offset} must be unmasked as RFC 6455 section 5.3 defines"
                );
            }
        }
    }
}
