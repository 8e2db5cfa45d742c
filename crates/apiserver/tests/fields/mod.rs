//! Protobuf messages as a reader without their description sees them.

/// The fields of a message: number and content, which of a number is the varint as it was written.
pub(crate) fn fields(mut data: &[u8]) -> Vec<(u64, &[u8])> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let tag = varint(&mut data).0;
        let content = match tag & 7 {
            0 => varint(&mut data).1,
            1 => data.split_off(..8).unwrap(),
            2 => {
                let len = usize::try_from(varint(&mut data).0).unwrap();
                data.split_off(..len).unwrap()
            }
            other => panic!("wire type {other}"),
        };
        out.push((tag >> 3, content));
    }
    out
}

/// The content of the first field of this number.
pub(crate) fn within(data: &[u8], number: u64) -> &[u8] {
    fields(data).into_iter().find(|(n, _)| *n == number).unwrap_or_else(|| panic!("no field {number}")).1
}

/// A number, and its bytes.
fn varint<'a>(data: &mut &'a [u8]) -> (u64, &'a [u8]) {
    let len = data.iter().position(|b| *b < 0x80).unwrap() + 1;
    let bytes = data.split_off(..len).unwrap();
    (bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f)), bytes)
}
