//! Owns one question about the head of a request: whether its `:path` has a fragment.
//!
//! The `h2` crate gives the path as a URI, less what stands behind `#`, so that what was asked for can't be
//! told from what was not. Here as much of a block is read as that takes: which representation names
//! `:path`, and how large the entries of the dynamic table are, to know what an index means. A block that is
//! malformed is left to the crate, which ends the connection. Source: RFC 7541.

use std::collections::VecDeque;

mod huffman;

/// The size of the table that a client may fill: what RFC 9113 section 6.5.2 has it assume, and what we
/// leave it at.
const TABLE_SIZE: usize = 4096;
/// What an entry takes besides its name and its value (section 4.1).
const OVERHEAD: usize = 32;
/// Where the dynamic table begins (appendix A).
const DYNAMIC: usize = 62;
/// The entries of the static table that name `:path`.
const STATIC_PATHS: std::ops::RangeInclusive<usize> = 4..=5;
/// The length of the names in the static table.
const STATIC_NAMES: [u8; DYNAMIC] = [
    0, 10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16,
    13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4,
    3, 16,
];

/// What a field means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Other,
    Path { has_fragment: bool },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    field: Field,
    name: usize,
    value: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.name + self.value + OVERHEAD
    }
}

/// The client's dynamic table, as far as it matters.
#[derive(Debug)]
pub(super) struct Paths {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// A string, decoded.
    text: Vec<u8>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: TABLE_SIZE, text: Vec::new() }
    }
}

impl Paths {
    /// Reads the block of a head; each one of a connection, in order.
    pub(super) fn has_fragment(&mut self, mut block: &[u8]) -> bool {
        let mut found = false;
        while !block.is_empty() {
            let Some(field) = self.field(&mut block) else { return found };
            found |= field == Field::Path { has_fragment: true };
        }
        found
    }

    /// Reads one representation (section 6); `None` where it is malformed.
    fn field(&mut self, block: &mut &[u8]) -> Option<Field> {
        let first = *block.first()?;
        if first & 0x80 != 0 {
            let index = integer(block, 7)?;
            return self.entry(index).map(|entry| entry.field);
        }
        if first & 0xe0 == 0x20 {
            self.limit = integer(block, 5)?.min(TABLE_SIZE);
            self.evict();
            return Some(Field::Other);
        }
        let is_kept = first & 0x40 != 0;
        let index = integer(block, if is_kept { 6 } else { 4 })?;
        let named = if index == 0 { self.name(block)? } else { self.entry(index)? };
        self.string(block)?;
        let field = match named.field {
            Field::Other => Field::Other,
            Field::Path { .. } => Field::Path { has_fragment: self.text.contains(&b'#') },
        };
        if is_kept {
            let entry = Entry { field, name: named.name, value: self.text.len() };
            self.size += entry.size();
            self.entries.push_front(entry);
            self.evict();
        }
        Some(field)
    }

    fn evict(&mut self) {
        while self.size > self.limit
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }

    /// What an index stands for; of the static table, the value does not matter.
    fn entry(&self, index: usize) -> Option<Entry> {
        if let Some(place) = index.checked_sub(DYNAMIC) {
            return self.entries.get(place).copied();
        }
        let is_path = STATIC_PATHS.contains(&index);
        let field = if is_path { Field::Path { has_fragment: false } } else { Field::Other };
        Some(Entry { field, name: usize::from(STATIC_NAMES[index]), value: 0 })
    }

    fn name(&mut self, block: &mut &[u8]) -> Option<Entry> {
        self.string(block)?;
        let is_path = self.text == b":path";
        let field = if is_path { Field::Path { has_fragment: false } } else { Field::Other };
        Some(Entry { field, name: self.text.len(), value: 0 })
    }

    /// Reads a string into `text` (section 5.2).
    fn string(&mut self, block: &mut &[u8]) -> Option<()> {
        let is_encoded = block.first()? & 0x80 != 0;
        let length = integer(block, 7)?;
        let (string, rest) = block.split_at_checked(length)?;
        *block = rest;
        self.text.clear();
        if is_encoded {
            return huffman::decode(string, &mut self.text);
        }
        self.text.extend_from_slice(string);
        Some(())
    }
}

/// Reads an integer with a prefix of so many bits (section 5.1).
fn integer(block: &mut &[u8], prefix: u8) -> Option<usize> {
    let (first, mut rest) = block.split_first()?;
    let full = (1_usize << prefix) - 1;
    let mut number = usize::from(*first) & full;
    if number == full {
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            number += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return Some(number);
            }
        }
        return None;
    }
    *block = rest;
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// Reads blocks one after the other; what the table's size is after each.
    fn sizes(paths: &mut Paths, blocks: &[&str]) -> Vec<usize> {
        let after = |block: &&str| {
            assert!(!paths.has_fragment(&bytes(block)), "{block}");
            paths.size
        };
        blocks.iter().map(after).collect()
    }

    #[test]
    fn the_table_is_filled_and_emptied_as_the_examples_of_the_rfc_have_it() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        assert_eq!(sizes(&mut Paths::default(), &plain), [57, 110, 164], "C.3");
        let encoded = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        assert_eq!(sizes(&mut Paths::default(), &encoded), [57, 110, 164], "C.4");
        let evicting = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad \
             1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 \
             e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        ];
        let mut small = Paths { limit: 256, ..Paths::default() };
        assert_eq!(sizes(&mut small, &evicting), [222, 222, 215], "C.6");
    }

    #[test]
    fn a_fragment_is_found_however_the_path_is_written() {
        let mut paths = Paths::default();
        let mut has_fragment = |block: &[u8]| paths.has_fragment(block);
        assert!(has_fragment(b"\x04\x04/a#b"), "name from the static table");
        assert!(has_fragment(b"\x10\x05:path\x02#a"), "name in full, never indexed");
        assert!(has_fragment(b"\x00\x84\xb9\x58\xd3\x3f\x83\x63\xfe\xbf"), "Huffman: :path, /#");
        assert!(!has_fragment(b"\x00\x05:patx\x02#a\x44\x02/a"), "another field");
        assert!(has_fragment(b"\x7e\x02#b"), "name from the dynamic table, kept");
        assert!(has_fragment(b"\xbe"), "the entry that was kept");
        assert!(!has_fragment(b"\xbf"), "the one before it");
        assert!(!has_fragment(b"\x20\xbe"), "a table that was emptied");
    }

    #[test]
    fn what_is_malformed_is_no_fragment() {
        for block in
            [&b"\xff\xff\xff\xff\xff\xff"[..], b"\x04\x05/#", b"\x80\x04", b"\x04", b"\x7f", b"\x04\x81\x00"]
        {
            assert!(!Paths::default().has_fragment(block), "{block:?}");
        }
    }
}
