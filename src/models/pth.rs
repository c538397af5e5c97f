//! PyTorch checkpoints: a zip archive with the pickle of a state dict and one file a storage, as
//! `torch.save(model.state_dict(), FILE)` has written it since PyTorch 1.6.
//!
//! A pickle is a program. This reader knows the few operations that a state dict takes, calls
//! nothing, and keeps objects in one flat list, so that neither depth nor repetition can make it
//! take more memory than a fixed multiple of the pickle's bytes. (candle's reader copies an object
//! each time it is mentioned, recurses over its depth, and indexes arguments unchecked; it is made
//! for files that one trusts.)

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::import::{MAX_VALUES, Values, Whole};
use super::weights::{WeightsError, one_line};

/// Of all storages together; a zip archive may hold more than its own size.
const MAX_BYTES: u64 = 16 << 20;
/// Of the pickle. AASIST's is 37 kB.
const MAX_PICKLE: u64 = 1 << 20;
/// The tensors of a whole checkpoint by name, f16 and bf16 turned into f32. Tensors of whole numbers
/// (counters of training) are left out.
///
/// # Errors
/// A file that is no zip archive, is truncated or holds anything but a state dict. The message names
/// the file and, where one is to blame, the tensor.
pub fn read(whole: Whole) -> Result<BTreeMap<String, Values>, WeightsError> {
    let Whole { file, bytes } = whole;
    let wrong = |detail| WeightsError::Checkpoint { file: file.clone(), detail };
    let mut archive = Archive::open(bytes).map_err(wrong)?;
    let pickle = archive.pickle().map_err(wrong)?;
    let described = described(&pickle).map_err(wrong)?;
    let mut left = MAX_VALUES;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in described {
        let unfit =
            |detail| WeightsError::Tensor { file: file.clone(), tensor: name.clone(), detail };
        let Some(element) = Element::of(&tensor.storage).map_err(unfit)? else { continue };
        let values = archive.values(&tensor, element, &mut left).map_err(unfit)?;
        let made = Values { shape: tensor.shape, values };
        if tensors.insert(name.clone(), made).is_some() {
            return Err(unfit("is there twice".to_owned()));
        }
    }
    Ok(tensors)
}

/// What a storage is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32,
    F16,
    Bf16,
}

impl Element {
    /// `None`: whole numbers.
    fn of(storage: &str) -> Result<Option<Self>, String> {
        match storage {
            "torch.FloatStorage" => Ok(Some(Self::F32)),
            "torch.HalfStorage" => Ok(Some(Self::F16)),
            "torch.BFloat16Storage" => Ok(Some(Self::Bf16)),
            "torch.LongStorage" | "torch.IntStorage" => Ok(None),
            other => Err(format!("{} is none of float, half, bfloat16", brief(other))),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The value at `index` of a storage.
    fn at(self, storage: &[u8], index: usize) -> Option<f32> {
        match self {
            Self::F32 => storage.as_chunks::<4>().0.get(index).map(|b| f32::from_le_bytes(*b)),
            Self::F16 => {
                storage.as_chunks::<2>().0.get(index).map(|b| half::f16::from_le_bytes(*b).to_f32())
            }
            Self::Bf16 => storage
                .as_chunks::<2>()
                .0
                .get(index)
                .map(|b| half::bf16::from_le_bytes(*b).to_f32()),
        }
    }
}

struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    /// The folder that everything lies in, with its slash.
    folder: String,
    storages: HashMap<String, Vec<u8>>,
    /// Bytes of storages that may still be read.
    left: u64,
}

impl Archive {
    fn open(bytes: Vec<u8>) -> Result<Self, String> {
        const PICKLE: &str = "data.pkl";
        if !bytes.starts_with(b"PK") {
            return Err("not a zip archive, as which PyTorch since 1.6 saves".to_owned());
        }
        let zip = ZipArchive::new(Cursor::new(bytes))
            .map_err(|e| format!("not a whole zip archive: {}", one_line(&e.to_string())))?;
        let mut folders = Vec::new();
        for name in zip.file_names() {
            let name = name.map_err(|e| one_line(&e.to_string()))?;
            if let Some(folder) = name.strip_suffix(PICKLE)
                && (folder.is_empty() || folder.ends_with('/'))
            {
                folders.push(folder.to_owned());
            }
        }
        match (folders.pop(), folders.is_empty()) {
            (Some(folder), true) => {
                Ok(Self { zip, folder, storages: HashMap::new(), left: MAX_BYTES })
            }
            (None, _) => Err(format!("a zip archive without {PICKLE}")),
            (Some(_), false) => Err(format!("a zip archive with several {PICKLE}")),
        }
    }

    fn entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let path = format!("{}{name}", self.folder);
        let said = |e: &dyn std::fmt::Display| format!("{path}: {}", one_line(&e.to_string()));
        let mut entry = self.zip.by_name(&path).map_err(|e| said(&e))?;
        let mut bytes = Vec::new();
        entry.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(|e| said(&e))?;
        if bytes.len() as u64 > limit {
            return Err(format!("{path}: over {limit} bytes"));
        }
        Ok(bytes)
    }

    fn pickle(&mut self) -> Result<Vec<u8>, String> {
        // Older versions do not say; all machines they ran on were little-endian.
        if self.zip.index_for_name(&format!("{}byteorder", self.folder)).is_some() {
            let order = self.entry("byteorder", 16)?;
            if order != b"little" {
                return Err("not little-endian".to_owned());
            }
        }
        self.entry("data.pkl", MAX_PICKLE)
    }

    /// The values of a tensor; their number is taken from `left`.
    fn values(
        &mut self,
        tensor: &Described,
        element: Element,
        left: &mut usize,
    ) -> Result<Vec<f32>, String> {
        let Described { key, numel, offset, shape, strides, .. } = tensor;
        let too_large = || format!("shape {shape:?} is over the limit");
        let count = shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side));
        let count = count.filter(|n| *n <= *left).ok_or_else(too_large)?;
        *left -= count;
        let expected = numel.checked_mul(element.bytes()).ok_or_else(too_large)?;
        if !self.storages.contains_key(key) {
            let bytes = self.entry(&format!("data/{key}"), self.left)?;
            self.left -= bytes.len() as u64;
            self.storages.insert(key.clone(), bytes);
        }
        let storage = self.storages.get(key).map_or(&[][..], Vec::as_slice);
        if storage.len() != expected {
            let found = storage.len();
            return Err(format!("its storage {key} has {found} of {expected} bytes"));
        }
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0usize; shape.len()];
        for _ in 0..count {
            let place = index
                .iter()
                .zip(strides)
                .try_fold(*offset, |place, (i, stride)| place.checked_add(i.checked_mul(*stride)?));
            let value = place.and_then(|place| element.at(storage, place));
            values.push(value.ok_or_else(|| format!("reaches over the end of storage {key}"))?);
            for (i, side) in index.iter_mut().zip(shape).rev() {
                *i += 1;
                if *i < *side {
                    break;
                }
                *i = 0;
            }
        }
        Ok(values)
    }
}

/// A tensor as the pickle describes it.
struct Described {
    /// Such as `torch.FloatStorage`.
    storage: String,
    /// The storage's name in the archive.
    key: String,
    /// Values in the storage.
    numel: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// An object's place in [`Machine::objects`].
type Id = usize;

enum Object {
    /// None, a truth value, a float: what no tensor's description needs.
    Other,
    Int(i64),
    Text(String),
    /// A name that the pickle would have Python import: `module.name`.
    Global(String),
    Tuple(Vec<Id>),
    List,
    Dict(Vec<(Id, Id)>),
    /// A storage, by the tuple that tells which.
    Storage(Id),
    /// A tensor, by the tuple of its rebuilding.
    Tensor(Id),
}

#[derive(Clone, Copy)]
enum Slot {
    Mark,
    Object(Id),
}

#[derive(Default)]
struct Machine {
    objects: Vec<Object>,
    stack: Vec<Slot>,
    memo: HashMap<u32, Id>,
}

/// The tensors of the state dict that a pickle holds.
fn described(pickle: &[u8]) -> Result<Vec<(String, Described)>, String> {
    let mut machine = Machine::default();
    let top = machine.run(pickle)?;
    let Some(Object::Dict(items)) = machine.objects.get(top) else {
        return Err("holds no dict of tensors".to_owned());
    };
    let mut tensors = Vec::with_capacity(items.len());
    for (key, value) in items {
        let Some(Object::Text(name)) = machine.objects.get(*key) else {
            return Err("holds a key that is no text".to_owned());
        };
        let Some(Object::Tensor(arguments)) = machine.objects.get(*value) else {
            return Err(format!("`{}` is no tensor; a state dict is expected", brief(name)));
        };
        let made = machine
            .tensor(*arguments)
            .ok_or_else(|| format!("`{}` is no tensor as PyTorch describes it", brief(name)))?;
        tensors.push((name.clone(), made));
    }
    Ok(tensors)
}

impl Machine {
    /// Runs to the end; the object that is left.
    fn run(&mut self, pickle: &[u8]) -> Result<Id, String> {
        let mut reader = Reader { bytes: pickle, at: 0 };
        loop {
            let at = reader.at;
            let told = |e: String| format!("pickle, byte {at}: {e}");
            match self.step(&mut reader).map_err(told)? {
                true => return self.pop().map_err(told),
                false => continue,
            }
        }
    }

    /// One operation; true: the last. Names and codes: Lib/pickletools.py of CPython.
    fn step(&mut self, reader: &mut Reader) -> Result<bool, String> {
        match reader.byte()? {
            // PROTO
            0x80 => drop(reader.byte()?),
            // STOP
            b'.' => return Ok(true),
            // MARK
            b'(' => self.stack.push(Slot::Mark),
            // NONE, NEWTRUE, NEWFALSE
            b'N' | 0x88 | 0x89 => self.push(Object::Other),
            // BINFLOAT
            b'G' => {
                reader.take(8)?;
                self.push(Object::Other);
            }
            // BININT, BININT1, BININT2, LONG1
            b'J' => {
                let value = i32::from_le_bytes(reader.array()?);
                self.push(Object::Int(i64::from(value)));
            }
            b'K' => {
                let value = reader.byte()?;
                self.push(Object::Int(i64::from(value)));
            }
            b'M' => {
                let value = u16::from_le_bytes(reader.array()?);
                self.push(Object::Int(i64::from(value)));
            }
            0x8a => {
                let n = usize::from(reader.byte()?);
                let digits = reader.take(n)?;
                if n > 8 {
                    return Err(format!("a number of {n} bytes"));
                }
                let negative = digits.last().is_some_and(|d| d & 0x80 != 0);
                let mut all = [if negative { 0xff } else { 0 }; 8];
                all[..n].copy_from_slice(digits);
                self.push(Object::Int(i64::from_le_bytes(all)));
            }
            // BINUNICODE, SHORT_BINUNICODE
            b'X' => {
                let n = u32::from_le_bytes(reader.array()?);
                self.text(reader, n as usize)?;
            }
            0x8c => {
                let n = reader.byte()?;
                self.text(reader, usize::from(n))?;
            }
            // GLOBAL
            b'c' => {
                let (module, name) = (reader.line()?, reader.line()?);
                self.push(Object::Global(format!("{module}.{name}")));
            }
            // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE
            b')' => self.push(Object::Tuple(Vec::new())),
            n @ 0x85..=0x87 => {
                let from = self.stack.len().checked_sub(usize::from(n - 0x84));
                let items = self.objects_since(from.ok_or("an empty stack")?)?;
                self.push(Object::Tuple(items));
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Object::Tuple(items));
            }
            // EMPTY_LIST, APPEND, APPENDS: no tensor is described by one.
            b']' => self.push(Object::List),
            b'a' => {
                self.pop()?;
                self.list()?;
            }
            b'e' => {
                self.since_mark()?;
                self.list()?;
            }
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => self.push(Object::Dict(Vec::new())),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.dict()?.push((key, value));
            }
            b'u' => {
                let items = self.since_mark()?;
                let (pairs, []) = items.as_chunks::<2>() else {
                    return Err("a key without a value".to_owned());
                };
                self.dict()?.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            // BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
            b'q' => {
                let n = reader.byte()?;
                self.put(u32::from(n))?;
            }
            b'r' => {
                let n = u32::from_le_bytes(reader.array()?);
                self.put(n)?;
            }
            b'h' => {
                let n = reader.byte()?;
                self.get(u32::from(n))?;
            }
            b'j' => {
                let n = u32::from_le_bytes(reader.array()?);
                self.get(n)?;
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Storage(id));
            }
            // BUILD: attributes such as a state dict's `_metadata`.
            b'b' => {
                self.pop()?;
                let of = self.top()?;
                if !matches!(self.objects.get(of), Some(Object::Dict(_))) {
                    return Err("an object with attributes that is no dict".to_owned());
                }
            }
            // REDUCE
            b'R' => self.reduce()?,
            // NEWOBJ
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                return Err(match self.objects.get(class) {
                    Some(Object::Global(name)) => {
                        format!("an object of class {}; a state dict has none", brief(name))
                    }
                    _ => "an object of a class; a state dict has none".to_owned(),
                });
            }
            other => return Err(format!("operation 0x{other:02x}, which no state dict needs")),
        }
        Ok(false)
    }

    /// A call, of which three are known by what they give.
    fn reduce(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Some(Object::Global(name)) = self.objects.get(callee) else {
            return Err("a call of what is no name".to_owned());
        };
        match name.as_str() {
            "collections.OrderedDict" => self.push(Object::Dict(Vec::new())),
            "torch._utils._rebuild_tensor_v2" => self.push(Object::Tensor(arguments)),
            "torch._utils._rebuild_parameter" => {
                // Its tensor, whether it takes a gradient, hooks.
                let tensor = self.tuple(arguments).and_then(|items| items.first().copied());
                self.stack.push(Slot::Object(tensor.ok_or("a parameter without a tensor")?));
            }
            other => return Err(format!("a call of {}; nothing is called here", brief(other))),
        }
        Ok(())
    }

    fn push(&mut self, object: Object) {
        self.stack.push(Slot::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Id, String> {
        match self.stack.pop() {
            Some(Slot::Object(id)) => Ok(id),
            Some(Slot::Mark) => Err("a mark where an object is expected".to_owned()),
            None => Err("an empty stack".to_owned()),
        }
    }

    fn top(&self) -> Result<Id, String> {
        match self.stack.last() {
            Some(Slot::Object(id)) => Ok(*id),
            _ => Err("no object where one is expected".to_owned()),
        }
    }

    fn objects_since(&mut self, from: usize) -> Result<Vec<Id>, String> {
        let items = self.stack.split_off(from).into_iter().map(|slot| match slot {
            Slot::Object(id) => Ok(id),
            Slot::Mark => Err("a mark where an object is expected".to_owned()),
        });
        items.collect()
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark));
        let mark = mark.ok_or("no mark")?;
        let items = self.objects_since(mark + 1)?;
        self.stack.pop();
        Ok(items)
    }

    fn text(&mut self, reader: &mut Reader, n: usize) -> Result<(), String> {
        let text = std::str::from_utf8(reader.take(n)?).map_err(|_| "text that is not UTF-8")?;
        self.push(Object::Text(text.to_owned()));
        Ok(())
    }

    fn list(&self) -> Result<(), String> {
        match self.objects.get(self.top()?) {
            Some(Object::List) => Ok(()),
            _ => Err("what is appended to is no list".to_owned()),
        }
    }

    fn dict(&mut self) -> Result<&mut Vec<(Id, Id)>, String> {
        let top = self.top()?;
        match self.objects.get_mut(top) {
            Some(Object::Dict(items)) => Ok(items),
            _ => Err("what items are set of is no dict".to_owned()),
        }
    }

    fn put(&mut self, n: u32) -> Result<(), String> {
        self.memo.insert(n, self.top()?);
        Ok(())
    }

    fn get(&mut self, n: u32) -> Result<(), String> {
        let id = self.memo.get(&n).ok_or_else(|| format!("no object {n} was kept"))?;
        self.stack.push(Slot::Object(*id));
        Ok(())
    }

    fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.objects.get(id)? {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    fn size(&self, id: Id) -> Option<usize> {
        match self.objects.get(id)? {
            Object::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        self.tuple(id)?.iter().map(|id| self.size(*id)).collect()
    }

    /// From (storage, offset, shape, strides, …); the storage from (`"storage"`, type, key,
    /// device, number of values).
    fn tensor(&self, arguments: Id) -> Option<Described> {
        let [storage, offset, shape, strides, ..] = self.tuple(arguments)? else { return None };
        let Object::Storage(storage) = self.objects.get(*storage)? else { return None };
        let [_, kind, key, _, numel] = self.tuple(*storage)? else { return None };
        let Object::Global(kind) = self.objects.get(*kind)? else { return None };
        let Object::Text(key) = self.objects.get(*key)? else { return None };
        let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
        (shape.len() == strides.len()).then_some(())?;
        Some(Described {
            storage: kind.clone(),
            key: key.clone(),
            numel: self.size(*numel)?,
            offset: self.size(*offset)?,
            shape,
            strides,
        })
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..n).ok_or("ends too early")?;
        self.at += n;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N)?.try_into().map_err(|_| "ends too early".to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let n = memchr::memchr(b'\n', rest).ok_or("ends too early")?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| "a name that is not UTF-8".to_owned())
    }
}

/// A name from the file, fit for a message.
fn brief(name: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    name.chars().take(80).map(plain).collect()
}
