//! Cutting text to length.

/// Cuts `text` to at most `max` bytes, at a character's boundary.
pub fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let mut at = max;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.truncate(at);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cuts_at_characters() {
        let mut s = String::from("aéb");
        super::truncate(&mut s, 2);
        assert_eq!(s, "a");
    }
}
