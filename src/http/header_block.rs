//! Header blocks of HTTP/2 (RFC 7541): whether one can be decoded, and whether its fields may be in a request.
//!
//! The library that decodes them ends the connection for both, with PROTOCOL_ERROR. RFC 9113 section 4.3 has COMPRESSION_ERROR for
//! the former, and section 8.1.1 an error of the stream alone for the latter. So a block is looked through before, with a
//! table of what the connection's dynamic table holds, without the texts. Fields that the library would choke on are
//! replaced by some of the same size ([`HeaderTable::replaced`]), so that its table stays the client's. So are those that may not be
//! in a request, and those that may not stand in that place of a block of several frames: the library forgets such fields of a
//! frame that ends within another, and ends the connection for those of a frame that does not.
//!
//! The library also refuses characters in a path that HTTP/1 takes, and cuts it at a `#`. Such a path is replaced too, and kept
//! ([`HeaderTable::take_path`]).
//!
//! Pure, and without memory of its own once the table has grown.

use std::collections::VecDeque;
use std::ops::Range;

use self::flaws::Flaws;
use self::name::{Kind, NAME_BYTES_MAX, Name, Order, STATIC_MAX};
pub use self::rest::BrokenBlock;
use self::rest::Rest;

mod flaws;
mod name;
mod rest;

/// SETTINGS_HEADER_TABLE_SIZE, which we leave at its initial value (RFC 9113 section 6.5.2).
const TABLE_BYTES_MAX: usize = 4096;
/// What an entry counts besides its texts (RFC 7541 section 4.1).
const ENTRY_BYTES: usize = 32;

/// A shorter block is passed on in one frame, also with what replaces its fields, which may be longer where they came compressed.
/// There the library minds itself which field no request has, or not in that place.
const SHORT_BLOCK_BYTES: usize = 8 * 1024;

/// What stays allocated for texts: more than most have.
const SCRATCH_BYTES: usize = 512;

/// What is in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderBlock {
    /// A pseudo-field, or spaces around a value, for which a request is refused elsewhere.
    pub is_bad_in_trailers: bool,
    /// A name or value with forbidden bytes, or a field that no request has, or not in that place.
    pub is_malformed: bool,
    /// [`HeaderTable::replaced`] is to be decoded instead.
    pub is_to_replace: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTable {
    /// The youngest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    scratch: Vec<u8>,
    replacements: Vec<Replacement>,
    /// Of the block that was read last, if it is replaced.
    path: Option<Box<[u8]>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    name: Name,
    bytes: usize,
    flaws: Flaws,
    /// One that is replaced.
    path: Option<Box<[u8]>>,
}

/// A field that the library would choke on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Replacement {
    /// Where it is.
    field: Range<usize>,
    /// Where its value begins, if its name can stay.
    value: Option<usize>,
    name_length: usize,
    value_length: usize,
    substitute: Substitute,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Substitute {
    LeftOut,
    /// It enters the table.
    Padded,
    /// The request has a path.
    PaddedPath,
}

impl Default for HeaderTable {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES_MAX,
            scratch: Vec::new(),
            replacements: Vec::new(),
            path: None,
        }
    }
}

impl HeaderTable {
    /// Read the next block of the connection.
    ///
    /// # Errors
    /// It cannot be decoded.
    pub fn read(&mut self, block: &[u8]) -> Result<HeaderBlock, BrokenBlock> {
        self.replacements.clear();
        self.path = None;
        let (mut found, mut flaws, mut has_field) =
            (HeaderBlock::default(), Flaws::default(), false);
        let (mut rest, mut order) = (Rest(block), Order::default());
        while let Some(first) = rest.0.first() {
            let (name, its) = match first {
                0x80.. => self.read_indexed(block, &mut rest, &mut order)?,
                0x40.. => self.read_literal(block, &mut rest, 6, &mut order)?,
                // Section 4.2: only at the beginning of a block.
                0x20.. if has_field => return Err(BrokenBlock),
                0x20.. => {
                    self.resize(rest.integer(5)?)?;
                    continue;
                }
                _ => self.read_literal(block, &mut rest, 4, &mut order)?,
            };
            has_field = true;
            found.is_bad_in_trailers |= name.kind.is_pseudo();
            flaws |= its;
        }
        found.is_bad_in_trailers |= flaws.has_outer_space;
        found.is_malformed = flaws.is_bad;
        found.is_to_replace = !self.replacements.is_empty();
        if self.scratch.capacity() > SCRATCH_BYTES {
            self.scratch = Vec::new();
        }
        Ok(found)
    }

    fn read_indexed(
        &mut self,
        block: &[u8],
        rest: &mut Rest<'_>,
        order: &mut Order,
    ) -> Result<(Name, Flaws), BrokenBlock> {
        let begin = block.len() - rest.0.len();
        let index = rest.integer(7)?;
        let (name, mut flaws) = self.entry(index)?;
        let is_in_place = order.take(name.kind);
        flaws.is_bad |= !is_in_place;
        if flaws.is_bad && block.len() > SHORT_BLOCK_BYTES {
            self.replacements.push(Replacement {
                field: begin..block.len() - rest.0.len(),
                value: None,
                name_length: 0,
                value_length: 0,
                substitute: Substitute::LeftOut,
            });
        } else if name.kind == Kind::Path && is_in_place {
            self.path = self.path_of(index);
        }
        Ok((name, flaws))
    }

    fn read_literal<'a>(
        &mut self,
        block: &'a [u8],
        rest: &mut Rest<'a>,
        prefix_bits: u32,
        order: &mut Order,
    ) -> Result<(Name, Flaws), BrokenBlock> {
        let begin = block.len() - rest.0.len();
        let is_indexed = prefix_bits == 6;
        let index = rest.integer(prefix_bits)?;
        let name = match index {
            0 => Name::of(rest.string(&mut self.scratch)?),
            index => self.entry(index)?.0,
        };
        let value_begin = block.len() - rest.0.len();
        let value = rest.string(&mut self.scratch)?;
        let is_in_place = order.take(name.kind);
        let is_of_request = name.kind.is_of_request(value);
        let is_to_go = !(is_in_place && is_of_request) && block.len() > SHORT_BLOCK_BYTES;
        let (value_length, is_allowed) = (value.len(), name.kind.allows(value));
        let is_path = name.kind == Kind::Path && !is_to_go && is_path_to_replace(value);
        let path = is_path.then(|| value.into());
        let is_bad = name.is_bad || !is_allowed || !is_of_request || is_to_go;
        let mut flaws = Flaws::of_value(value, is_bad);
        // A bad name of the dynamic table is a good one in the library's, of the same length if it has one.
        let is_known_good = index > STATIC_MAX && name.length > 0;
        let mut kept = name;
        if path.is_some() && is_in_place {
            self.path.clone_from(&path);
        }
        if path.is_some() || !is_allowed || is_to_go || name.is_bad && !is_known_good {
            let needs_value = matches!(name.kind, Kind::Method | Kind::Scheme);
            let keeps_name = !(name.is_bad || is_to_go || needs_value && value_length == 0);
            if !keeps_name {
                kept = Name::lost(name.length);
            }
            self.replacements.push(Replacement {
                field: begin..block.len() - rest.0.len(),
                value: keeps_name.then_some(value_begin),
                name_length: name.length,
                value_length,
                substitute: match is_indexed {
                    _ if path.is_some() => Substitute::PaddedPath,
                    true => Substitute::Padded,
                    false => Substitute::LeftOut,
                },
            });
        }
        if is_indexed {
            self.insert(Entry {
                name: kept,
                bytes: ENTRY_BYTES + name.length + value_length,
                flaws,
                path,
            });
        }
        flaws.is_bad |= !is_in_place;
        Ok((name, flaws))
    }

    /// The name of an entry, and what is wrong with the entry.
    fn entry(&self, index: usize) -> Result<(Name, Flaws), BrokenBlock> {
        if let Some(name) = Name::of_static(index) {
            let is_bad = name.is_bad || !name.kind.is_of_request(b"");
            return Ok((name, Flaws::of_value(b"", is_bad)));
        }
        let index = index.checked_sub(1 + STATIC_MAX);
        let entry = index.and_then(|index| self.entries.get(index));
        let entry = entry.ok_or(BrokenBlock)?;
        Ok((entry.name, entry.flaws))
    }

    fn path_of(&self, index: usize) -> Option<Box<[u8]>> {
        let index = index.checked_sub(1 + STATIC_MAX)?;
        self.entries.get(index)?.path.clone()
    }

    /// The path in the block that was read last, if something else stands in its place in [`HeaderTable::replaced`].
    pub fn take_path(&mut self) -> Option<Box<[u8]>> {
        self.path.take()
    }

    fn insert(&mut self, entry: Entry) {
        self.evict(self.bytes_max.saturating_sub(entry.bytes));
        if entry.bytes <= self.bytes_max {
            self.bytes += entry.bytes;
            self.entries.push_front(entry);
        }
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.bytes -= oldest.bytes;
        }
    }

    fn resize(&mut self, bytes_max: usize) -> Result<(), BrokenBlock> {
        if bytes_max > TABLE_BYTES_MAX {
            return Err(BrokenBlock);
        }
        self.bytes_max = bytes_max;
        self.evict(bytes_max);
        Ok(())
    }

    /// The block that was read last, without what the library would choke on: fields that enter the table are replaced by
    /// others of their size, the rest is left out. `None`: a field that has no text cannot be replaced.
    pub fn replaced(&self, block: &[u8]) -> Option<Vec<u8>> {
        let (mut replaced, mut at) = (Vec::with_capacity(block.len()), 0);
        for replacement in &self.replacements {
            replaced.extend_from_slice(&block[at..replacement.field.start]);
            at = replacement.field.end;
            if replacement.substitute == Substitute::LeftOut {
                continue;
            }
            let mut value_length = replacement.value_length;
            if let Some(value) = replacement.value {
                replaced.extend_from_slice(&block[replacement.field.start..value]);
            } else {
                let name_length = replacement.name_length.clamp(1, NAME_BYTES_MAX);
                value_length = (replacement.name_length + value_length).checked_sub(name_length)?;
                replaced.push(0x40);
                put_text(name_length, &mut replaced);
            }
            put_text(value_length, &mut replaced);
            if replacement.substitute == Substitute::PaddedPath {
                // It has this byte at least.
                let begin = replaced.len() - value_length;
                replaced[begin] = b'/';
            }
        }
        replaced.extend_from_slice(&block[at..]);
        Some(replaced)
    }
}

/// Append a field that does not enter the table.
pub fn write_header_field(name: &[u8], value: &[u8], into: &mut Vec<u8>) {
    into.push(0);
    for text in [name, value] {
        put_length(text.len(), into);
        into.extend_from_slice(text);
    }
}

/// A string of this length.
fn put_text(length: usize, into: &mut Vec<u8>) {
    put_length(length, into);
    into.resize(into.len() + length, b'x');
}

fn put_length(length: usize, into: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(short @ 0..0x7f) => into.push(short),
        _ => {
            into.push(0x7f);
            let mut left = length - 0x7f;
            while left >= 0x80 {
                into.push((left & 0x7f) as u8 | 0x80);
                left >>= 7;
            }
            into.push(left as u8);
        }
    }
}

/// Whether the library would refuse this path or cut it, and HTTP/1 takes it.
fn is_path_to_replace(value: &[u8]) -> bool {
    let is_refused = |byte: &u8| matches!(byte, b'"' | b'#' | b'<' | b'>' | b'`');
    value.first() == Some(&b'/')
        && value.iter().any(is_refused)
        && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests;
