//! HDF5, as far as Keras needs it for weights: superblock version 0, groups as B-trees of symbol
//! tables, contiguous data sets of little-endian f32.
//!
//! After the HDF Group's "HDF5 File Format Specification Version 3.0", whose sections the comments
//! name. Everything else that the format knows (chunks, filters, links, other versions) is refused
//! by name. A file is read once into memory; each address in it is checked, and the number of nodes
//! that are followed is bounded, so that loops end.

use std::collections::BTreeMap;

use super::import::Values;

/// Groups, data sets and nodes of trees that are looked at. Keras' files of MesoNet have 150.
const MAX_NODES: usize = 4096;
/// Of groups in groups.
const MAX_DEPTH: usize = 8;
/// Messages of an object's header.
const MAX_MESSAGES: usize = 1024;
/// Bytes of a name.
const MAX_NAME: usize = 255;
/// Sides of a data set; HDF5 itself allows no more.
const MAX_SIDES: usize = 32;

const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
const UNDEFINED: u64 = u64::MAX;

/// A whole file.
pub struct Hdf5 {
    bytes: Vec<u8>,
    /// Addresses of the data sets' object headers, by path: `group/group/name`.
    data_sets: BTreeMap<String, u64>,
}

impl Hdf5 {
    /// Finds all data sets of a file.
    ///
    /// # Errors
    /// What is wrong, without the file's name.
    pub fn open(bytes: Vec<u8>) -> Result<Self, String> {
        let file = File { bytes: &bytes };
        let root = file.root()?;
        let mut walk = Walk { file, nodes: MAX_NODES, found: BTreeMap::new() };
        walk.group(root, "", 0)?;
        let data_sets = walk.found;
        Ok(Self { bytes, data_sets })
    }

    /// Of all data sets.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.data_sets.keys().map(String::as_str)
    }

    /// The values of a data set, row by row; their number is taken from `left`.
    ///
    /// # Errors
    /// No such data set; one that is not of the kind that this reader knows, lies outside the file
    /// or has more than `left` values.
    pub fn values(&self, path: &str, left: &mut usize) -> Result<Values, String> {
        let header = *self.data_sets.get(path).ok_or("is missing")?;
        let file = File { bytes: &self.bytes };
        let header = file.header(header)?;
        if !header.is_plain {
            return Err("is compressed or shares its description; only plain data is read".into());
        }
        let (Some(space), Some(kind), Some(layout)) = (header.space, header.kind, header.layout)
        else {
            return Err("has no shape, no type or no place".to_owned());
        };
        let shape = sides(space)?;
        is_f32(kind)?;
        let count = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        let count = count
            .filter(|n| n <= left)
            .ok_or_else(|| format!("shape {shape:?} is over the limit"))?;
        *left -= count;
        let (address, size) = contiguous(layout)?;
        if size != 4 * count as u64 {
            return Err(format!("has {size} bytes for shape {shape:?}"));
        }
        let data = file.take(address, 4 * count)?;
        let values = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Values { shape, values })
    }
}

/// The bytes, taken by address.
#[derive(Clone, Copy)]
struct File<'a> {
    bytes: &'a [u8],
}

impl<'a> File<'a> {
    fn take(self, address: u64, n: usize) -> Result<&'a [u8], String> {
        let from = usize::try_from(address).ok();
        let range = from.and_then(|from| Some(from..from.checked_add(n)?));
        range
            .and_then(|range| self.bytes.get(range))
            .ok_or_else(|| format!("{n} bytes at {address}: the file ends at {}", self.bytes.len()))
    }

    /// III.A, the superblock: the address of the root group's object header.
    fn root(self) -> Result<u64, String> {
        if !self.bytes.starts_with(SIGNATURE) {
            return Err("not an HDF5 file".to_owned());
        }
        let block = self.take(0, 96)?;
        let version = block[8];
        if version != 0 {
            return Err(format!("superblock version {version}; Keras writes version 0"));
        }
        let (offsets, lengths) = (block[13], block[14]);
        if (offsets, lengths) != (8, 8) {
            return Err(format!("offsets of {offsets} and lengths of {lengths} bytes, not 8"));
        }
        let (base, end) = (u64_at(block, 24)?, u64_at(block, 40)?);
        if base != 0 {
            return Err(format!("data that begins at {base}, not at 0"));
        }
        if end > self.bytes.len() as u64 {
            return Err(format!("truncated: {} of {end} bytes", self.bytes.len()));
        }
        u64_at(block, 64)
    }

    /// IV.A.1.a, an object header of version 1, with the messages that matter here.
    fn header(self, address: u64) -> Result<Header<'a>, String> {
        let prefix = self.take(address, 16)?;
        if prefix[0] != 1 {
            return Err(format!("object header at {address}: version {}, not 1", prefix[0]));
        }
        let mut left = usize::from(u16_at(prefix, 2)?);
        if left > MAX_MESSAGES {
            return Err(format!("object header at {address}: over {MAX_MESSAGES} messages"));
        }
        let mut blocks = vec![(address + 16, u64::from(u32_at(prefix, 8)?))];
        let mut header = Header { is_plain: true, ..Header::default() };
        // Each message is counted, so that continuations which lead back end.
        while let Some((mut at, size)) = blocks.pop() {
            let end = at.saturating_add(size);
            while left > 0 && at.saturating_add(8) <= end {
                left -= 1;
                let head = self.take(at, 8)?;
                let (kind, size) = (u16_at(head, 0)?, usize::from(u16_at(head, 2)?));
                let is_shared = head[4] & 2 != 0;
                let data = self.take(at + 8, size)?;
                at += 8 + size as u64;
                match kind {
                    0x01 => header.space = Some(data),
                    0x03 => header.kind = Some(data),
                    0x08 => header.layout = Some(data),
                    // Link info, link, group info: groups as newer versions write them.
                    0x02 | 0x06 | 0x0a => header.is_new_group = true,
                    0x0b => header.is_plain = false,
                    0x10 => blocks.push((u64_at(data, 0)?, u64_at(data, 8)?)),
                    0x11 => header.group = Some((u64_at(data, 0)?, u64_at(data, 8)?)),
                    // Fill values, attributes, times.
                    _ => {}
                }
                header.is_plain &= !(is_shared && matches!(kind, 0x01 | 0x03 | 0x08));
            }
        }
        Ok(header)
    }

    /// III.D, a local heap: the name that begins at `offset`.
    fn name(self, heap: u64, offset: u64) -> Result<&'a str, String> {
        let head = self.take(heap, 32)?;
        if !head.starts_with(b"HEAP") {
            return Err(format!("no heap of names at {heap}"));
        }
        let (size, data) = (u64_at(head, 8)?, u64_at(head, 24)?);
        let room = size.checked_sub(offset).ok_or_else(|| format!("no name at {offset}"))?;
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(MAX_NAME + 1);
        let bytes = self.take(data.saturating_add(offset), room)?;
        let name = memchr::memchr(0, bytes).and_then(|n| std::str::from_utf8(&bytes[..n]).ok());
        let plain = |name: &&str| {
            !name.is_empty() && !name.contains('/') && !name.contains(char::is_control)
        };
        name.filter(plain).ok_or_else(|| format!("no plain name at {offset} of heap {heap}"))
    }
}

/// Of an object's header.
#[derive(Default)]
struct Header<'a> {
    /// B-tree and heap.
    group: Option<(u64, u64)>,
    space: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    layout: Option<&'a [u8]>,
    /// Neither filtered nor with parts of its description elsewhere.
    is_plain: bool,
    is_new_group: bool,
}

struct Walk<'a> {
    file: File<'a>,
    /// That may still be looked at.
    nodes: usize,
    found: BTreeMap<String, u64>,
}

impl Walk<'_> {
    fn count(&mut self) -> Result<(), String> {
        self.nodes = self.nodes.checked_sub(1).ok_or_else(|| format!("over {MAX_NODES} nodes"))?;
        Ok(())
    }

    /// All that lies in the group whose object header is at `address`.
    fn group(&mut self, address: u64, path: &str, depth: usize) -> Result<(), String> {
        self.count()?;
        let header = self.file.header(address)?;
        match header.group {
            Some((tree, heap)) if depth < MAX_DEPTH => self.tree(tree, heap, None, path, depth),
            Some(_) => Err(format!("/{path}: groups in groups, over {MAX_DEPTH}")),
            None if header.is_new_group => {
                Err(format!("/{path}: a group as HDF5 writes it since 1.8; Keras does not"))
            }
            None if header.layout.is_some() && !path.is_empty() => {
                match self.found.insert(path.to_owned(), address) {
                    None => Ok(()),
                    Some(_) => Err(format!("/{path}: is there twice")),
                }
            }
            None => Err(format!("/{path}: neither a group nor a data set")),
        }
    }

    /// III.A.1, a node of a B-tree of version 1. `level`: what its parent says it must be.
    fn tree(
        &mut self,
        address: u64,
        heap: u64,
        level: Option<u8>,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        self.count()?;
        let head = self.file.take(address, 24)?;
        if !head.starts_with(b"TREE") || head[4] != 0 {
            return Err(format!("/{path}: no tree of names at {address}"));
        }
        if level.is_some_and(|level| level != head[5]) {
            return Err(format!("/{path}: a node of level {} at {address}", head[5]));
        }
        let children = usize::from(u16_at(head, 6)?);
        // Key, child, key, child, …, key.
        let body = self.file.take(address + 24, children * 16 + 8)?;
        for i in 0..children {
            let child = u64_at(body, i * 16 + 8)?;
            match head[5].checked_sub(1) {
                Some(level) => self.tree(child, heap, Some(level), path, depth)?,
                None => self.symbols(child, heap, path, depth)?,
            }
        }
        Ok(())
    }

    /// III.B and III.C, a symbol table node and its entries.
    fn symbols(&mut self, address: u64, heap: u64, path: &str, depth: usize) -> Result<(), String> {
        self.count()?;
        let head = self.file.take(address, 8)?;
        if !head.starts_with(b"SNOD") {
            return Err(format!("/{path}: no table of names at {address}"));
        }
        let entries = usize::from(u16_at(head, 6)?);
        let body = self.file.take(address + 8, entries * 40)?;
        for entry in body.chunks_exact(40) {
            let name = self.file.name(heap, u64_at(entry, 0)?)?;
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            if u32_at(entry, 16)? == 2 {
                return Err(format!("/{path}: a symbolic link"));
            }
            self.group(u64_at(entry, 8)?, &path, depth + 1)?;
        }
        Ok(())
    }
}

/// IV.A.2.b, the dataspace message.
fn sides(space: &[u8]) -> Result<Vec<usize>, String> {
    let (version, rank) = (byte_at(space, 0)?, usize::from(byte_at(space, 1)?));
    let first = match version {
        1 => 8,
        2 if byte_at(space, 3)? != 2 => 4,
        _ => return Err(format!("a shape of version {version}, or none")),
    };
    if rank > MAX_SIDES {
        return Err(format!("a shape with {rank} sides"));
    }
    let side = |i: usize| {
        let side = u64_at(space, first + 8 * i)?;
        usize::try_from(side).map_err(|_| format!("a side of {side}"))
    };
    (0..rank).map(side).collect()
}

/// IV.A.2.d, the datatype message: IEEE 754, 32 bit, little-endian.
fn is_f32(kind: &[u8]) -> Result<(), String> {
    let class = byte_at(kind, 0)? & 15;
    let size = u32_at(kind, 4)?;
    // Order of bytes, place of the sign; then offset, precision, and the fields' places and sizes.
    let float = class == 1
        && size == 4
        && byte_at(kind, 1)? & 0x41 == 0
        && byte_at(kind, 2)? == 31
        && kind.get(8..20) == Some(&[0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]);
    match float {
        true => Ok(()),
        false => Err(format!("values of class {class} and {size} bytes, not little-endian f32")),
    }
}

/// IV.A.2.i, the data layout message: address and number of bytes.
fn contiguous(layout: &[u8]) -> Result<(u64, u64), String> {
    match (byte_at(layout, 0)?, byte_at(layout, 1)?) {
        (3, 1) => match (u64_at(layout, 2)?, u64_at(layout, 10)?) {
            (UNDEFINED, _) => Err("was never written".to_owned()),
            place => Ok(place),
        },
        (version, class) => {
            Err(format!("a layout of version {version} and class {class}, not 3 and contiguous"))
        }
    }
}

fn byte_at(bytes: &[u8], at: usize) -> Result<u8, String> {
    bytes.get(at).copied().ok_or_else(|| "a message ends too early".to_owned())
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], String> {
    let part = bytes.get(at..at + N).and_then(|part| part.try_into().ok());
    part.ok_or_else(|| "a message ends too early".to_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, String> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    array_at(bytes, at).map(u64::from_le_bytes)
}
