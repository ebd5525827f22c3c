//! LEB128 varints, as the record layout uses them (little-endian base 128, at most 10 bytes for a `u64`).

/// Appends `n` to `out`.
pub fn put_u64(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes one varint off the front of `input`. `None` when it is cut short, over-long or above `u64::MAX`.
#[inline]
pub fn take_u64(input: &mut &[u8]) -> Option<u64> {
    // Most are lengths and flags of one byte.
    match **input {
        [byte, ref rest @ ..] if byte < 0x80 => {
            *input = rest;
            Some(u64::from(byte))
        }
        _ => take_long(input),
    }
}

fn take_long(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a varint that must fit a `u32`.
pub fn take_u32(input: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_u64(input)?).ok()
}

/// Takes a length-prefixed byte string.
pub fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_u64(input)?).ok()?;
    if len > input.len() {
        return None;
    }
    let (bytes, rest) = input.split_at(len);
    *input = rest;
    Some(bytes)
}

/// Appends a length-prefixed byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_at_every_length_come_back() {
        for n in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_u64(&mut out, n);
            let mut input = out.as_slice();
            assert_eq!(take_u64(&mut input), Some(n));
            assert!(input.is_empty());
        }
    }

    #[test]
    fn a_varint_above_64_bits_or_cut_short_is_refused() {
        assert_eq!(take_u64(&mut &[0xff; 10][..]), None);
        assert_eq!(take_u64(&mut &[0x80][..]), None);
        assert_eq!(take_bytes(&mut &[5, 1, 2][..]), None);
    }
}
