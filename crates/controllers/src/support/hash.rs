//! Hashes in object names, in the alphabet that cannot spell words.

/// FNV-1a, 32 bits.
#[must_use]
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Each character replaced by one of the safe alphabet.
#[must_use]
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// Hash of a value and how often its name collided before.
#[must_use]
pub fn of_value(json: &[u8], collisions: Option<i32>) -> String {
    let mut bytes = json.to_vec();
    if let Some(n) = collisions {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    safe_encode(&fnv32a(&bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes() {
        assert_eq!(fnv32a(b""), 0x811c_9dc5);
        assert_eq!(fnv32a(b"a"), 0xe40c_292c);
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
        assert_ne!(of_value(b"{}", None), of_value(b"{}", Some(1)));
        assert_ne!(of_value(b"{}", Some(2)), of_value(b"{}", Some(1)));
    }
}
