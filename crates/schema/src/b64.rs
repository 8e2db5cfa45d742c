//! Base64 as Go reads it: bits after the last byte may be anything, and what is wrong is told by its place.

use base64::DecodeError;
use base64::alphabet::{STANDARD as PLAIN, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LOOSE: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);

/// Go's `StdEncoding`.
pub const STANDARD: GeneralPurpose = GeneralPurpose::new(&PLAIN, LOOSE);
/// Go's `RawURLEncoding`.
pub const RAW_URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    LOOSE.with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// What Go says of a text that is none, `padded` or raw.
#[must_use]
pub fn complaint(text: &str, padded: bool, wrong: &DecodeError) -> String {
    let at = match wrong {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => *at,
        // There is padding where none should be, it breaks off, or the last four are not all there.
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding if text.ends_with('=') => {
            if padded {
                text.len()
            } else {
                text.find('=').unwrap_or(0)
            }
        }
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() - text.len() % 4,
    };
    format!("illegal base64 data at input byte {at}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::Config;

    #[test]
    fn as_go_reads_it() {
        let check = |engine: &GeneralPurpose, text: &str, expect: Result<&[u8], usize>| {
            let padded = engine.config().encode_padding();
            let found = engine.decode(text).map_err(|e| complaint(text, padded, &e));
            let expect = expect.map(<[u8]>::to_vec).map_err(|at| format!("illegal base64 data at input byte {at}"));
            assert_eq!(found, expect, "{text}");
        };
        check(&STANDARD, "YQ==", Ok(b"a"));
        check(&STANDARD, "YR==", Ok(b"a"));
        check(&STANDARD, "ab*=", Err(2));
        check(&STANDARD, "YWJjYQ", Err(4));
        check(&STANDARD, "YWJjY", Err(4));
        check(&STANDARD, "YQ=", Err(3));
        check(&RAW_URL, "YQ", Ok(b"a"));
        check(&RAW_URL, "YR", Ok(b"a"));
        check(&RAW_URL, "!", Err(0));
        check(&RAW_URL, "YWJjY", Err(4));
        check(&RAW_URL, "YQ==", Err(2));
        check(&RAW_URL, "YQ=", Err(2));
    }
}
