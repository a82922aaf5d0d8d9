//! Owns the decoding of strings by the Huffman code of HPACK. Source: RFC 7541 section 5.2, appendix B.
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, so that the
//! lengths are all there is to know.

/// The shortest and the longest code.
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The length of the code of each byte.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

struct Code {
    /// The bytes in the order of their codes.
    symbols: [u8; 256],
    /// Of the codes of each length: the first, how many there are, and the place of the first in `symbols`.
    lengths: [(u32, u32, usize); LONGEST + 1],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut code = Code { symbols: [0; 256], lengths: [(0, 0, 0); LONGEST + 1] };
    let (mut next, mut place, mut length) = (0_u32, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        let (first, start) = (next, place);
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                code.symbols[place] = symbol as u8;
                place += 1;
                next += 1;
            }
            symbol += 1;
        }
        code.lengths[length] = (first, next - first, start);
        length += 1;
    }
    code
}

/// Appends what a string decodes to; `None` where it is malformed.
pub(super) fn decode(string: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut bits, mut count) = (0_u64, 0);
    let mut bytes = string.iter();
    loop {
        while count <= 56
            && let Some(byte) = bytes.next()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
        }
        match symbol(bits) {
            Some((symbol, length)) if length <= count => {
                out.push(symbol);
                bits <<= length;
                count -= length;
            }
            // What is left is padding: fewer than 8 bits, all of them 1.
            _ => return (count < 8 && bits == !(u64::MAX >> count)).then_some(()),
        }
    }
}

/// The symbol whose code stands at the top, and the code's length.
fn symbol(bits: u64) -> Option<(u8, usize)> {
    (SHORTEST..=LONGEST).find_map(|length| {
        let (first, count, place) = CODE.lengths[length];
        let at = u32::try_from(bits >> (64 - length)).ok()?.checked_sub(first)?;
        (at < count).then(|| (CODE.symbols[place + at as usize], length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc() {
        for (code, length, byte) in [
            (0x0, 5, b'0'),
            (0x14, 6, b' '),
            (0x18, 6, b'/'),
            (0xffa, 12, b'#'),
            (0x7ffc, 15, b'<'),
            (0x7fff0, 19, b'\\'),
            (0x3ffc, 14, b'^'),
            (0x3ff_ffee, 26, 255),
            (0x3fff_fffe, 30, 22),
        ] {
            assert_eq!(symbol(code << (64 - length)), Some((byte, length)), "{byte}");
        }
    }

    #[test]
    fn padding_is_short_and_of_ones() {
        let decoded = |string: &[u8]| {
            let mut out = Vec::new();
            decode(string, &mut out).map(|()| out)
        };
        assert_eq!(decoded(b""), Some(Vec::new()));
        assert_eq!(decoded(b"\x07"), Some(b"0".to_vec()));
        assert_eq!(decoded(b"\x06"), None, "padding with a 0");
        assert_eq!(decoded(b"\x07\xff"), None, "more than 7 bits");
        assert_eq!(decoded(&[0xff; 4]), None, "the end of strings");
    }
}
