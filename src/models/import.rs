//! Published detectors' own checkpoints, made into weights of this program.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::hdf5::Hdf5;
use super::weights::{WeightEntry, WeightStore, WeightsError};
use super::{Shapes, aasist, mesonet, pth, rawgat_st};
use crate::digest;
use crate::nn::Precision;

/// Of a whole checkpoint. AASIST's is 1.3 MB, RawGAT-ST's 1.9 MB, those of MesoNet 0.2 MB.
const MAX_BYTES: u64 = 16 << 20;
/// Values of all tensors together; strides let a small storage become a large tensor.
pub(super) const MAX_VALUES: usize = 8 << 20;

/// Whose checkpoint it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AASIST or AASIST-L; which of them, the shapes tell.
    Aasist,
    RawGatSt,
    Meso4,
    MesoInception4,
}

impl Family {
    pub const ALL: [Self; 4] = [Self::Aasist, Self::RawGatSt, Self::Meso4, Self::MesoInception4];

    pub fn name(self) -> &'static str {
        match self {
            Self::Aasist => "aasist",
            Self::RawGatSt => rawgat_st::NETWORK,
            Self::Meso4 => mesonet::MESO4,
            Self::MesoInception4 => mesonet::MESO_INCEPTION4,
        }
    }
}

/// What the manifest is to say of imported weights.
#[derive(Debug, Clone, Default)]
pub struct Described {
    /// The network's own where it is `None`.
    pub name: Option<String>,
    pub licence: Option<String>,
    pub origin: Option<String>,
}

/// A tensor of a checkpoint, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A checkpoint, read whole.
pub(super) struct Whole {
    pub(super) file: PathBuf,
    pub(super) bytes: Vec<u8>,
}

impl Whole {
    fn read(file: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { file: file.to_path_buf(), source };
        let wrong = |detail| WeightsError::Checkpoint { file: file.to_path_buf(), detail };
        // Before it is opened: a FIFO would have to be waited for.
        if !std::fs::metadata(file).map_err(io)?.is_file() {
            return Err(wrong("not a regular file".to_owned()));
        }
        let mut bytes = Vec::new();
        let mut reader = File::open(file).map_err(io)?.take(MAX_BYTES + 1);
        reader.read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(wrong(format!("over {} MiB", MAX_BYTES >> 20)));
        }
        Ok(Self { file: file.to_path_buf(), bytes })
    }
}

/// The errors of one file.
struct Blame<'a>(&'a Path);

impl Blame<'_> {
    fn wrong(&self, detail: String) -> WeightsError {
        WeightsError::Checkpoint { file: self.0.to_path_buf(), detail }
    }

    fn tensor(&self, tensor: &str, detail: String) -> WeightsError {
        WeightsError::Tensor { file: self.0.to_path_buf(), tensor: tensor.to_owned(), detail }
    }

    fn missing(&self, tensor: String) -> WeightsError {
        WeightsError::MissingTensor { file: self.0.to_path_buf(), tensor }
    }

    fn unexpected(&self, tensor: String) -> WeightsError {
        WeightsError::UnexpectedTensor { file: self.0.to_path_buf(), tensor }
    }

    /// Whether a tensor, by its name in the file, has the shape and values that a network can have.
    fn fits(&self, tensor: &str, found: &Values, expected: &[usize]) -> Result<(), WeightsError> {
        if found.shape != expected {
            return Err(WeightsError::Shape {
                file: self.0.to_path_buf(),
                tensor: tensor.to_owned(),
                expected: expected.to_vec(),
                found: found.shape.clone(),
            });
        }
        let variance = tensor.ends_with("running_var") || tensor.contains("moving_variance");
        let bad = |v: &f32| !v.is_finite() || (variance && *v < 0.0);
        match found.values.iter().position(bad) {
            None => Ok(()),
            Some(i) => Err(self.tensor(tensor, format!("value {i} is {}", found.values[i]))),
        }
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Reads a checkpoint and puts its weights, with an entry in the manifest, into `folder`. Names in
/// `taken` are refused.
///
/// # Errors
/// A file that is no checkpoint of the family's kind (see the message): a state dict of PyTorch's, or
/// weights as Keras writes them; a network that is not of the family, a tensor that is missing, has
/// another shape, or holds a value that is no finite number; a name that is taken or unfit for a
/// file; a folder that cannot be written to.
pub fn import(
    family: Family,
    file: &Path,
    described: &Described,
    folder: &Path,
    taken: &[&str],
) -> Result<WeightEntry, WeightsError> {
    let blame = Blame(file);
    let whole = Whole::read(file)?;
    let sha256 = digest::sha256(&whole.bytes);
    let (network, tensors) = match family {
        Family::Aasist | Family::RawGatSt => from_pytorch(family, whole)?,
        Family::Meso4 => (mesonet::MESO4, from_keras(mesonet::MESO4, whole)?),
        Family::MesoInception4 => {
            (mesonet::MESO_INCEPTION4, from_keras(mesonet::MESO_INCEPTION4, whole)?)
        }
    };

    let name = described.name.clone().unwrap_or_else(|| network.to_owned());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !begins || !name.chars().all(plain) || name.len() > 64 || name == "schema" {
        return Err(blame.wrong(format!(
            "the name {name:?}: at most 64 of a-z, 0-9, `-`, `_`, `.`, the first a letter or digit"
        )));
    }
    if taken.contains(&name.as_str()) {
        return Err(blame.wrong(format!("there are weights of the name `{name}` already; --name")));
    }
    let origin = described.origin.as_deref().unwrap_or("imported");
    let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let input = match family {
        Family::Aasist | Family::RawGatSt => "16 kHz mono f32, 64,600 samples",
        Family::Meso4 | Family::MesoInception4 => "RGB face f32, 256x256x3, 0..1",
    };
    let entry = WeightEntry {
        name,
        folder: folder.to_path_buf(),
        file: String::new(),
        sha256: String::new(),
        bytes: 0,
        network: network.to_owned(),
        input: input.to_owned(),
        licence: described.licence.clone().unwrap_or_else(|| "not stated".to_owned()),
        licence_file: None,
        origin: format!("{origin}; {file_name}, sha256 {sha256}"),
        training_data: Vec::new(),
        metrics: BTreeMap::new(),
        calibration: None,
        domain: None,
        precision: Precision::F32,
        base: None,
        installed_by: Some(format!("veriscope weights import --as {} FILE", family.name())),
    };
    WeightStore::add(folder, entry, &tensors)
}

/// The network that a state dict is for, and its tensors.
fn from_pytorch(family: Family, whole: Whole) -> Result<(&'static str, Tensors), WeightsError> {
    let file = whole.file.clone();
    let blame = Blame(&file);
    let mut found = pth::read(whole)?;
    let (network, shapes): (_, Shapes) = if family == Family::RawGatSt {
        found.retain(|name, _| !rawgat_st::is_without_effect(name));
        (rawgat_st::NETWORK, rawgat_st::shapes())
    } else {
        found.retain(|name, _| !aasist::is_without_effect(name));
        let tensor = found.get("pos_S").ok_or_else(|| blame.missing("pos_S".to_owned()))?;
        let network = aasist::recognise(&tensor.shape).ok_or_else(|| {
            let neither = format!(
                "{:?} is neither AASIST's, [1, 23, 64], nor AASIST-L's, [1, 23, 24]",
                tensor.shape
            );
            blame.tensor("pos_S", neither)
        })?;
        (network, aasist::shapes(network).unwrap_or_default())
    };
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let tensor = found.remove(&name).ok_or_else(|| blame.missing(name.clone()))?;
        blame.fits(&name, &tensor, &shape)?;
        tensors.insert(name, (shape, tensor.values));
    }
    match found.into_keys().next() {
        Some(tensor) => Err(blame.unexpected(tensor)),
        None => Ok((network, tensors)),
    }
}

/// Keras' kinds of layers, what ours are called, and their tensors likewise.
type Kind = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const KINDS: [Kind; 3] = [
    ("conv2d", "conv", &[("kernel", "weight"), ("bias", "bias")]),
    (
        "batch_normalization",
        "bn",
        &[
            ("gamma", "weight"),
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ],
    ),
    ("dense", "dense", &[("kernel", "weight"), ("bias", "bias")]),
];

/// In a file of a whole model the weights lie in here, beside the optimizer's.
const OF_A_MODEL: &str = "model_weights/";

/// The tensors of MesoNet out of weights as Keras writes them: `layer/…/part:0`, where a layer's name
/// ends in the number of its kind, counted in the order in which the layers were made. Other models
/// may have been made before, so only the order counts.
fn from_keras(network: &str, whole: Whole) -> Result<Tensors, WeightsError> {
    let Whole { file, bytes } = whole;
    let blame = Blame(&file);
    let checkpoint = Hdf5::open(bytes).map_err(|e| blame.wrong(e))?;
    let is_model = checkpoint.paths().any(|path| path.starts_with(OF_A_MODEL));
    let paths = checkpoint.paths().filter(|path| !is_model || path.starts_with(OF_A_MODEL));
    // By kind and number of the layer: paths by what the tensor is called here.
    let mut layers: [BTreeMap<u32, BTreeMap<&str, &str>>; 3] = Default::default();
    for path in paths {
        let unexpected = || blame.unexpected(path.to_owned());
        let inner = path.strip_prefix(OF_A_MODEL).unwrap_or(path);
        let (layer, rest) = inner.split_once('/').ok_or_else(unexpected)?;
        let part = rest.rsplit('/').next().unwrap_or_default();
        let part = part.strip_suffix(":0").unwrap_or(part);
        let numbered = layer.rsplit_once('_').and_then(|(kind, n)| Some((kind, n.parse().ok()?)));
        let (kind, number) = numbered.unwrap_or((layer, 0));
        let place = KINDS.iter().position(|(keras, ..)| *keras == kind).ok_or_else(unexpected)?;
        let parts = KINDS[place].2;
        let (_, ours) = parts.iter().find(|(keras, _)| *keras == part).ok_or_else(unexpected)?;
        if layers[place].entry(number).or_default().insert(ours, path).is_some() {
            return Err(unexpected());
        }
    }
    let shapes = mesonet::shapes(network).unwrap_or_default();
    let mut by_name = BTreeMap::new();
    for ((keras, ours, parts), layers) in KINDS.iter().zip(&layers) {
        let expected = (1..).take_while(|n| {
            let first = format!("{ours}{n}.weight");
            shapes.iter().any(|(name, _)| *name == first)
        });
        let expected = expected.count();
        if layers.len() != expected {
            let found = layers.len();
            return Err(blame.wrong(format!(
                "{found} layers `{keras}` with weights, {network} has {expected}"
            )));
        }
        for (i, (number, found)) in layers.iter().enumerate() {
            for (theirs, part) in parts.iter() {
                let missing = || blame.missing(format!("{keras}_{number}/{theirs}"));
                let path = found.get(part).ok_or_else(missing)?;
                by_name.insert(format!("{ours}{}.{part}", i + 1), *path);
            }
        }
    }
    let mut left = MAX_VALUES;
    let mut tensors = BTreeMap::new();
    for (name, shape) in shapes {
        let path = *by_name.get(&name).ok_or_else(|| blame.missing(name.clone()))?;
        let found = checkpoint.values(path, &mut left).map_err(|e| blame.tensor(path, e))?;
        blame.fits(path, &found, &as_keras(&shape))?;
        tensors.insert(name, (shape.clone(), as_pytorch(&found.values, &shape)));
    }
    Ok(tensors)
}

/// The shape that Keras gives a tensor: [out, in, …] is […, in, out] there.
fn as_keras(shape: &[usize]) -> Vec<usize> {
    match shape {
        [outputs, inputs, rest @ ..] => [rest, &[*inputs, *outputs]].concat(),
        other => other.to_vec(),
    }
}

/// Values in Keras' order brought to the order of `shape`.
fn as_pytorch(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let [outputs, inputs, rest @ ..] = shape else { return values.to_vec() };
    let taps: usize = rest.iter().product();
    let mut made = Vec::with_capacity(values.len());
    for output in 0..*outputs {
        for input in 0..*inputs {
            made.extend((0..taps).map(|tap| values[(tap * inputs + input) * outputs + output]));
        }
    }
    made
}
