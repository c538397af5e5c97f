//! Published detectors' own checkpoints, made into weights of this program.

use std::collections::BTreeMap;
use std::path::Path;

use super::weights::{WeightEntry, WeightStore, WeightsError};
use super::{aasist, pth};
use crate::nn::Precision;

/// Whose checkpoint it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// AASIST or AASIST-L; which of them, the shapes tell.
    Aasist,
}

impl Family {
    pub const ALL: [Self; 1] = [Self::Aasist];

    pub fn name(self) -> &'static str {
        match self {
            Self::Aasist => "aasist",
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

/// Reads a checkpoint and puts its weights, with an entry in the manifest, into `folder`. Names in
/// `taken` are refused.
///
/// # Errors
/// A file that is no PyTorch checkpoint (see the message), a network that is not of the family, a
/// tensor that is missing, has another shape, or holds a value that is no finite number; a name
/// that is taken or unfit for a file; a folder that cannot be written to.
pub fn import(
    family: Family,
    file: &Path,
    described: &Described,
    folder: &Path,
    taken: &[&str],
) -> Result<WeightEntry, WeightsError> {
    let Family::Aasist = family;
    let wrong = |detail: String| WeightsError::Checkpoint { file: file.to_path_buf(), detail };
    let pth::Checkpoint { sha256, tensors: mut found } = pth::read(file)?;
    found.retain(|name, _| !aasist::is_without_effect(name));
    let network = {
        let tensor = found.get("pos_S").ok_or_else(|| WeightsError::MissingTensor {
            file: file.to_path_buf(),
            tensor: "pos_S".to_owned(),
        })?;
        aasist::recognise(&tensor.shape).ok_or_else(|| WeightsError::Tensor {
            file: file.to_path_buf(),
            tensor: "pos_S".to_owned(),
            detail: format!(
                "{:?} is neither AASIST's, [1, 23, 64], nor AASIST-L's, [1, 23, 24]",
                tensor.shape
            ),
        })?
    };
    let mut tensors = BTreeMap::new();
    for (name, shape) in aasist::shapes(network).unwrap_or_default() {
        let Some(tensor) = found.remove(&name) else {
            return Err(WeightsError::MissingTensor { file: file.to_path_buf(), tensor: name });
        };
        if tensor.shape != shape {
            return Err(WeightsError::Shape {
                file: file.to_path_buf(),
                tensor: name,
                expected: shape,
                found: tensor.shape,
            });
        }
        let bad = |v: &f32| !v.is_finite() || (*v < 0.0 && name.ends_with("running_var"));
        if let Some(i) = tensor.values.iter().position(bad) {
            let detail = format!("value {i} is {}", tensor.values[i]);
            return Err(WeightsError::Tensor { file: file.to_path_buf(), tensor: name, detail });
        }
        tensors.insert(name, (shape, tensor.values));
    }
    if let Some(tensor) = found.into_keys().next() {
        return Err(WeightsError::UnexpectedTensor { file: file.to_path_buf(), tensor });
    }

    let name = described.name.clone().unwrap_or_else(|| network.to_owned());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !begins || !name.chars().all(plain) || name.len() > 64 || name == "schema" {
        return Err(wrong(format!(
            "the name {name:?}: at most 64 of a-z, 0-9, `-`, `_`, `.`, the first a letter or digit"
        )));
    }
    if taken.contains(&name.as_str()) {
        return Err(wrong(format!("there are weights of the name `{name}` already; --name")));
    }
    let origin = described.origin.as_deref().unwrap_or("imported");
    let file_name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entry = WeightEntry {
        name,
        folder: folder.to_path_buf(),
        file: String::new(),
        sha256: String::new(),
        bytes: 0,
        network: network.to_owned(),
        input: "16 kHz mono f32, 64,600 samples".to_owned(),
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
