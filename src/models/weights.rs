//! Where weights are found, what the manifest says of them, and whether they are whole.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::digest::sha256;
use crate::nn::Precision;

/// The manifest's format that this program reads.
const SCHEMA: i64 = 1;
const MANIFEST: &str = "manifest.toml";
/// Names the folder with the weights, for a program that was moved away from them.
pub const WEIGHTS_VARIABLE: &str = "VERISCOPE_WEIGHTS";

/// The weights that came with the program and those that the user imported, or those of one folder
/// that was named.
#[derive(Debug, Clone)]
pub struct WeightStore {
    folder: PathBuf,
    entries: Vec<WeightEntry>,
    precision: PrecisionChoice,
}

/// In what numbers the networks of a store calculate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PrecisionChoice {
    /// What the manifest allows each of them, where the machine has instructions for it, and f32
    /// otherwise.
    #[default]
    Auto,
    /// f32 for all.
    F32,
    /// bf16 for all that have layers for it, whatever the manifest says; for measuring what it does
    /// to a network.
    Bf16,
}

/// What the manifest says of one weights file.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightEntry {
    /// The manifest's name for it, such as `face-swap-fast`.
    #[serde(skip_deserializing)]
    pub name: String,
    /// The folder with its file and its manifest.
    #[serde(skip_deserializing)]
    pub folder: PathBuf,
    /// File name inside the folder.
    pub file: String,
    /// Of the whole file, 64 small hexadecimal digits.
    pub sha256: String,
    pub bytes: u64,
    /// Which network the weights are for, such as `efficientnet-lite0`.
    pub network: String,
    pub input: String,
    pub licence: String,
    /// The licence's text inside the folder, for weights that are not ours.
    pub licence_file: Option<String>,
    pub origin: String,
    #[serde(default)]
    pub training_data: Vec<String>,
    #[serde(default)]
    pub metrics: BTreeMap<String, Metric>,
    pub calibration: Option<Calibration>,
    pub domain: Option<DomainLimit>,
    /// The lowest precision that moves its AUC by less than 0.001, as measured in its model card.
    #[serde(default)]
    pub precision: Precision,
    /// The entry that these weights are a difference to.
    pub base: Option<String>,
    /// The command that installs the file, for one that does not ship.
    pub installed_by: Option<String>,
}

impl WeightEntry {
    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.file)
    }
}

/// The folder that the environment variable `VERISCOPE_WEIGHTS` names.
pub fn named_by_environment() -> Option<PathBuf> {
    std::env::var_os(WEIGHTS_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// Where imported weights go: `veriscope/weights` in the user's folder for data (`XDG_DATA_HOME`,
/// else `~/.local/share`). `None` where the environment names no home.
pub fn user_folder() -> Option<PathBuf> {
    // By the XDG base directory specification a path that is not absolute does not count.
    let var = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = var("XDG_DATA_HOME").or_else(|| Some(var("HOME")?.join(".local/share")))?;
    Some(data.join("veriscope/weights"))
}

/// A measured figure.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Metric {
    Value(f64),
    /// Value, lower and upper end of its 95 % confidence interval.
    Interval([f64; 3]),
}

/// How a score becomes a probability: `sigmoid(a * score + b)`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    pub method: String,
    pub a: f64,
    pub b: f64,
    /// The probability from which a window counts as fake.
    pub threshold: f64,
    pub fitted_on: String,
}

/// From where on an input is unlike what the network was trained on.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainLimit {
    /// The distance that [`crate::models::domain::Domain`] measures.
    pub threshold: f64,
    pub fitted_on: String,
}

/// Why weights cannot be used. Every message is one line and names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    #[error(
        "no weights found: no {MANIFEST} in {}; name the folder in {WEIGHTS_VARIABLE}",
        .looked_in.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotFound { looked_in: Vec<PathBuf> },
    #[error("{}: {detail}", .manifest.display())]
    Manifest { manifest: PathBuf, detail: String },
    #[error("{}: no entry `{name}`", .manifest.display())]
    NoEntry { manifest: PathBuf, name: String },
    #[error("{}: entry `{name}` has no calibration, so its scores mean nothing", .manifest.display())]
    NoCalibration { manifest: PathBuf, name: String },
    #[error("{}: missing, although the manifest lists it as `{name}`", .file.display())]
    Missing { file: PathBuf, name: String },
    #[error("{}: not installed; it does not ship, `{command}` installs it", .file.display())]
    NotInstalled { file: PathBuf, command: String },
    #[error("{}: entry `{name}` lacks {what} under its metrics", .manifest.display())]
    NoThreshold { manifest: PathBuf, name: String, what: &'static str },
    #[error("{}: entry `{name}` has no domain", .manifest.display())]
    NoDomain { manifest: PathBuf, name: String },
    #[error("{}: cannot be read: {source}", .file.display())]
    Io { file: PathBuf, source: std::io::Error },
    #[error("{}: truncated: {found} of {expected} bytes", .file.display())]
    Truncated { file: PathBuf, expected: u64, found: u64 },
    #[error("{}: altered: sha256 expected {expected}, found {found}", .file.display())]
    Altered { file: PathBuf, expected: String, found: String },
    #[error("{}: not a safetensors file: {detail}", .file.display())]
    Format { file: PathBuf, detail: String },
    #[error("{}: not a checkpoint that can be imported: {detail}", .file.display())]
    Checkpoint { file: PathBuf, detail: String },
    #[error("{}: weights for `{network}`, a network that this program does not know", .file.display())]
    UnknownNetwork { file: PathBuf, network: String },
    #[error("{}: tensor `{tensor}` is missing", .file.display())]
    MissingTensor { file: PathBuf, tensor: String },
    #[error("{}: tensor `{tensor}` is not part of the network", .file.display())]
    UnexpectedTensor { file: PathBuf, tensor: String },
    #[error("{}: tensor `{tensor}` is {found:?}, expected {expected:?}", .file.display())]
    Shape { file: PathBuf, tensor: String, expected: Vec<usize>, found: Vec<usize> },
    #[error("{}: tensor `{tensor}`: {detail}", .file.display())]
    Tensor { file: PathBuf, tensor: String, detail: String },
}

impl WeightStore {
    /// Opens the folder `explicit`, else the one that the environment variable
    /// `VERISCOPE_WEIGHTS` names, else the first of these that holds a manifest: `weights` beside
    /// the program, `../share/veriscope/weights` from there, and `weights` in the source tree that
    /// the program was built from. To that last, unnamed one come the imported weights of the
    /// [`user_folder`], where it has a manifest.
    ///
    /// # Errors
    /// No manifest there, or one that cannot be read or understood; an imported entry with the name
    /// of one that came with the program. A folder that was named is never replaced by another one.
    pub fn open(explicit: Option<&Path>) -> Result<Self, WeightsError> {
        let named = explicit.map(Path::to_path_buf).or_else(named_by_environment);
        let is_named = named.is_some();
        let folders = match named {
            Some(folder) => vec![folder],
            None => Self::usual_folders(),
        };
        let Some(folder) = folders.iter().find(|folder| folder.join(MANIFEST).is_file()) else {
            return Err(WeightsError::NotFound { looked_in: folders });
        };
        let store = Self::read(folder)?;
        match user_folder() {
            Some(user) if !is_named && user.join(MANIFEST).is_file() => store.with(&user),
            _ => Ok(store),
        }
    }

    /// Adds another folder's entries.
    fn with(mut self, folder: &Path) -> Result<Self, WeightsError> {
        for entry in Self::read(folder)?.entries {
            if self.entries.iter().any(|other| other.name == entry.name) {
                let detail = format!("`{}` is the name of weights that ship", entry.name);
                return Err(WeightsError::Manifest { manifest: folder.join(MANIFEST), detail });
            }
            self.entries.push(entry);
        }
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(self)
    }

    fn usual_folders() -> Vec<PathBuf> {
        let mut folders = Vec::new();
        if let Ok(program) = std::env::current_exe()
            && let Some(beside) = program.parent()
        {
            folders.push(beside.join("weights"));
            folders.push(beside.join("../share/veriscope/weights"));
        }
        folders.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights"));
        folders
    }

    fn read(folder: &Path) -> Result<Self, WeightsError> {
        let manifest = folder.join(MANIFEST);
        let wrong = |detail: String| WeightsError::Manifest { manifest: manifest.clone(), detail };
        let text = std::fs::read_to_string(&manifest)
            .map_err(|source| WeightsError::Io { file: manifest.clone(), source })?;
        let mut table: toml::Table =
            toml::from_str(&text).map_err(|e| wrong(one_line(&e.to_string())))?;
        match table.remove("schema").and_then(|v| v.as_integer()) {
            Some(SCHEMA) => {}
            Some(other) => return Err(wrong(format!("schema {other}, expected {SCHEMA}"))),
            None => return Err(wrong("`schema` is missing".to_owned())),
        }
        let mut entries = Vec::with_capacity(table.len());
        for (name, value) in table {
            let mut entry: WeightEntry = value.try_into().map_err(|e: toml::de::Error| {
                wrong(format!("`{name}`: {}", one_line(e.message())))
            })?;
            let mut parts = Path::new(&entry.file).components();
            let plain = matches!(parts.next(), Some(std::path::Component::Normal(_)))
                && parts.next().is_none();
            if !plain {
                return Err(wrong(format!("`{name}`: `file` is not a plain file name")));
            }
            entry.name = name;
            entry.folder = folder.to_path_buf();
            entries.push(entry);
        }
        for entry in &entries {
            let Some(base) = &entry.base else { continue };
            if !entries.iter().any(|other| other.name == *base && other.base.is_none()) {
                let name = &entry.name;
                return Err(wrong(format!("`{name}`: no entry `{base}` that it could stand on")));
            }
        }
        let precision = PrecisionChoice::default();
        Ok(Self { folder: folder.to_path_buf(), entries, precision })
    }

    /// Puts new weights into `folder`, which is made where it is missing: the file first, then the
    /// manifest, each in one step. What `entry` says of folder, file, sha256 and size is replaced.
    ///
    /// # Errors
    /// A manifest there that cannot be understood or has an entry of that name already; a folder
    /// that cannot be written to.
    pub fn add(
        folder: &Path,
        mut entry: WeightEntry,
        tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    ) -> Result<WeightEntry, WeightsError> {
        let manifest = folder.join(MANIFEST);
        let mut text = format!("schema = {SCHEMA}\n");
        if manifest.exists() {
            if Self::read(folder)?.entries.iter().any(|other| other.name == entry.name) {
                let detail = format!("there is an entry `{}` already", entry.name);
                return Err(WeightsError::Manifest { manifest, detail });
            }
            text = std::fs::read_to_string(&manifest)
                .map_err(|source| WeightsError::Io { file: manifest.clone(), source })?;
        }
        entry.folder = folder.to_path_buf();
        entry.file = format!("{}.safetensors", entry.name);
        let file = entry.path();
        let bytes: BTreeMap<&str, Vec<u8>> = tensors
            .iter()
            .map(|(name, (_, values))| {
                (name.as_str(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let unfit = |e: safetensors::SafeTensorError| WeightsError::Format {
            file: file.clone(),
            detail: one_line(&e.to_string()),
        };
        let mut views = Vec::with_capacity(tensors.len());
        for (name, (shape, _)) in tensors {
            let data = bytes.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            views.push((name, TensorView::new(Dtype::F32, shape.clone(), data).map_err(unfit)?));
        }
        let data = safetensors::serialize(views, None).map_err(unfit)?;
        entry.sha256 = sha256(&data);
        entry.bytes = data.len() as u64;
        let described = |e: &dyn std::fmt::Display| WeightsError::Manifest {
            manifest: manifest.clone(),
            detail: one_line(&e.to_string()),
        };
        let mut table = toml::Table::try_from(&entry).map_err(|e| described(&e))?;
        // Not part of a manifest: the key of the table, and where it lies.
        table.remove("name");
        table.remove("folder");
        let table = toml::Table::from_iter([(entry.name.clone(), toml::Value::Table(table))]);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("\n{}", toml::to_string(&table).map_err(|e| described(&e))?);
        let io = |file: &Path| {
            let file = file.to_path_buf();
            move |source| WeightsError::Io { file, source }
        };
        std::fs::create_dir_all(folder).map_err(io(folder))?;
        replace(&file, &data).map_err(io(&file))?;
        replace(&manifest, text.as_bytes()).map_err(io(&manifest))?;
        Ok(entry)
    }

    /// The same store, whose networks calculate in other numbers.
    pub fn with_precision(self, precision: PrecisionChoice) -> Self {
        Self { precision, ..self }
    }

    /// In what numbers a network calculates on `device`.
    ///
    /// # Errors
    /// No entry of that name.
    pub fn precision(&self, name: &str, device: &Device) -> Result<Precision, WeightsError> {
        let wanted = match self.precision {
            PrecisionChoice::Auto => self.entry(name)?.precision,
            PrecisionChoice::F32 => Precision::F32,
            PrecisionChoice::Bf16 => super::lowest_precision(&self.entry(name)?.network),
        };
        Ok(if device.is_cpu() { wanted.here() } else { Precision::F32 })
    }

    /// That of the weights that came with the program, or the one that was named.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All entries, sorted by name.
    pub fn entries(&self) -> &[WeightEntry] {
        &self.entries
    }

    /// # Errors
    /// No entry of that name.
    pub fn entry(&self, name: &str) -> Result<&WeightEntry, WeightsError> {
        self.entries.iter().find(|e| e.name == name).ok_or_else(|| WeightsError::NoEntry {
            manifest: self.folder.join(MANIFEST),
            name: name.to_owned(),
        })
    }

    /// How this network's scores become probabilities.
    ///
    /// # Errors
    /// No such entry, or one without a calibration.
    pub fn calibration(&self, name: &str) -> Result<&Calibration, WeightsError> {
        let entry = self.entry(name)?;
        entry.calibration.as_ref().ok_or_else(|| WeightsError::NoCalibration {
            manifest: entry.folder.join(MANIFEST),
            name: name.to_owned(),
        })
    }

    /// A threshold that was fitted with this network and stands among its metrics.
    ///
    /// # Errors
    /// No such entry, or one that does not say.
    pub fn threshold(&self, name: &str, what: &'static str) -> Result<f32, WeightsError> {
        let entry = self.entry(name)?;
        match entry.metrics.get(what) {
            Some(Metric::Value(value) | Metric::Interval([value, ..])) => Ok(*value as f32),
            None => Err(WeightsError::NoThreshold {
                manifest: entry.folder.join(MANIFEST),
                name: name.to_owned(),
                what,
            }),
        }
    }

    /// From where on an input is unlike what this network was trained on.
    ///
    /// # Errors
    /// No such entry, or one that does not say.
    pub fn domain(&self, name: &str) -> Result<&DomainLimit, WeightsError> {
        let entry = self.entry(name)?;
        entry.domain.as_ref().ok_or_else(|| WeightsError::NoDomain {
            manifest: entry.folder.join(MANIFEST),
            name: name.to_owned(),
        })
    }

    /// Checks that the file is there, is the one that the manifest describes (size, sha256), and
    /// holds the tensors that its network needs, no more and no fewer.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify(&self, name: &str) -> Result<(), WeightsError> {
        self.checked(self.entry(name)?).map(drop)
    }

    /// Verifies a file and reads its tensors, f16 and bf16 turned into f32, onto `device`.
    ///
    /// # Errors
    /// As [`verify`](Self::verify); a tensor of another type; a device that takes no more.
    pub fn load(&self, name: &str, device: &Device) -> Result<Tensors, WeightsError> {
        let entry = self.entry(name)?;
        let data = self.checked(entry)?;
        let file = entry.path();
        let parsed = parse(&file, &data)?;
        let mut tensors = HashMap::new();
        for (tensor, view) in parsed.iter() {
            let unfit = |detail: String| WeightsError::Tensor {
                file: file.clone(),
                tensor: tensor.to_owned(),
                detail,
            };
            let bytes = view.data();
            let values: Vec<f32> = match view.dtype() {
                Dtype::F32 => {
                    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
                }
                Dtype::F16 => bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|b| half::f16::from_le_bytes(*b).to_f32())
                    .collect(),
                Dtype::BF16 => bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|b| half::bf16::from_le_bytes(*b).to_f32())
                    .collect(),
                other => return Err(unfit(format!("type {other:?}, expected f32, f16 or bf16"))),
            };
            let made = Tensor::from_vec(values, view.shape(), device)
                .map_err(|e| unfit(first_line(&e)))?;
            tensors.insert(tensor.to_owned(), made);
        }
        Ok(Tensors { file, tensors, precision: self.precision(name, device)? })
    }

    /// As [`load`](Self::load), of the entry that `name` is a difference to.
    ///
    /// # Errors
    /// Also an entry without a base.
    pub fn load_base(&self, name: &str, device: &Device) -> Result<Tensors, WeightsError> {
        let entry = self.entry(name)?;
        match &entry.base {
            Some(base) => self.load(base, device),
            None => Err(WeightsError::Manifest {
                manifest: entry.folder.join(MANIFEST),
                detail: format!("`{name}`: `base` is missing"),
            }),
        }
    }

    /// Why `name` cannot run, as far as the presence of its entry and files says: its own, and that
    /// of the base it stands on. None where all are there.
    pub fn missing(&self, name: &str) -> Option<WeightsError> {
        let entry = match self.entry(name) {
            Ok(entry) => entry,
            Err(error) => return Some(error),
        };
        let names = [Some(name), entry.base.as_deref()];
        names.into_iter().flatten().find_map(|name| {
            let entry = self.entry(name).ok()?;
            let file = entry.path();
            (!file.exists()).then(|| self.not_there(entry, file))
        })
    }

    fn not_there(&self, entry: &WeightEntry, file: PathBuf) -> WeightsError {
        match &entry.installed_by {
            Some(command) => WeightsError::NotInstalled { file, command: command.clone() },
            None => WeightsError::Missing { file, name: entry.name.clone() },
        }
    }

    /// The bytes of a file that is whole.
    fn checked(&self, entry: &WeightEntry) -> Result<Vec<u8>, WeightsError> {
        let file = entry.path();
        let data = std::fs::read(&file).map_err(|source| {
            let file = file.clone();
            match source.kind() {
                std::io::ErrorKind::NotFound => self.not_there(entry, file),
                _ => WeightsError::Io { file, source },
            }
        })?;
        let found = data.len() as u64;
        if found < entry.bytes {
            return Err(WeightsError::Truncated { file, expected: entry.bytes, found });
        }
        let found = sha256(&data);
        if found != entry.sha256 {
            return Err(WeightsError::Altered { file, expected: entry.sha256.clone(), found });
        }
        let Some(expected) = super::expected_shapes(&entry.network) else {
            return Err(WeightsError::UnknownNetwork { file, network: entry.network.clone() });
        };
        check_shapes(&file, &parse(&file, &data)?, &expected)?;
        Ok(data)
    }
}

/// Writes a file so that nobody sees half of it.
fn replace(file: &Path, data: &[u8]) -> std::io::Result<()> {
    let mut half = file.as_os_str().to_owned();
    half.push(".part");
    std::fs::write(&half, data)?;
    std::fs::rename(&half, file)
}

fn parse<'a>(file: &Path, data: &'a [u8]) -> Result<SafeTensors<'a>, WeightsError> {
    SafeTensors::deserialize(data).map_err(|e| WeightsError::Format {
        file: file.to_path_buf(),
        detail: one_line(&e.to_string()),
    })
}

fn check_shapes(
    file: &Path,
    parsed: &SafeTensors,
    expected: &super::Shapes,
) -> Result<(), WeightsError> {
    for (tensor, shape) in expected {
        let Ok(view) = parsed.tensor(tensor) else {
            return Err(WeightsError::MissingTensor {
                file: file.to_path_buf(),
                tensor: tensor.clone(),
            });
        };
        if view.shape() != shape {
            return Err(WeightsError::Shape {
                file: file.to_path_buf(),
                tensor: tensor.clone(),
                expected: shape.clone(),
                found: view.shape().to_vec(),
            });
        }
    }
    let known: std::collections::HashSet<&str> =
        expected.iter().map(|(name, _)| name.as_str()).collect();
    match parsed.names().into_iter().filter(|name| !known.contains(name)).min() {
        Some(tensor) => Err(WeightsError::UnexpectedTensor {
            file: file.to_path_buf(),
            tensor: tensor.to_owned(),
        }),
        None => Ok(()),
    }
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a cause says; candle's end in a backtrace where RUST_BACKTRACE asks for one.
fn first_line(cause: &dyn std::fmt::Display) -> String {
    cause.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The verified tensors of one weights file, all f32.
#[derive(Debug)]
pub struct Tensors {
    file: PathBuf,
    tensors: HashMap<String, Tensor>,
    precision: Precision,
}

impl Tensors {
    /// # Errors
    /// No tensor of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::MissingTensor {
            file: self.file.clone(),
            tensor: name.to_owned(),
        })
    }

    /// In what numbers the network is to calculate.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The error for a tensor that is there but does not fit where it is used.
    pub fn unfit(&self, tensor: &str, cause: &dyn std::fmt::Display) -> WeightsError {
        WeightsError::Tensor {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
            detail: first_line(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("weights")
    }

    /// A store that holds only the face detector, and the path of its file.
    fn copy() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("yunet.safetensors");
        fs::copy(shipped().join("yunet.safetensors"), &file).unwrap();
        describe(folder.path(), &fs::read(&file).unwrap());
        (folder, file)
    }

    /// Writes a manifest that calls `data` the right weights.
    fn describe(folder: &Path, data: &[u8]) {
        let text = format!(
            "schema = 1\n[yunet]\nfile = \"yunet.safetensors\"\nsha256 = \"{}\"\nbytes = {}\n\
             network = \"yunet\"\ninput = \"pictures\"\nlicence = \"MIT\"\norigin = \"here\"\n\
             [yunet.metrics]\nauc = [0.9, 0.8, 0.95]\nimages = 12\n\
             [yunet.calibration]\nmethod = \"platt\"\na = 2.0\nb = -1.0\nthreshold = 0.5\n\
             fitted_on = \"nothing\"\n",
            sha256(data),
            data.len()
        );
        fs::write(folder.join(MANIFEST), text).unwrap();
    }

    fn complaint(folder: &Path) -> String {
        let store = WeightStore::open(Some(folder)).unwrap();
        let text = store.verify("yunet").unwrap_err().to_string();
        assert_eq!(store.load("yunet", &Device::Cpu).unwrap_err().to_string(), text);
        assert!(text.contains("yunet.safetensors") && !text.contains('\n'), "{text}");
        text
    }

    #[test]
    fn every_shipped_file_is_whole_and_has_its_licence() {
        let store = WeightStore::open(Some(&shipped())).unwrap();
        assert!(store.entries().len() >= 2);
        for entry in store.entries() {
            match store.verify(&entry.name) {
                // Whole where it is there.
                Err(WeightsError::NotInstalled { file, command }) => {
                    println!("{} is not installed ({command})", file.display());
                }
                verified => verified.unwrap(),
            }
            if let Some(licence) = &entry.licence_file {
                assert!(store.folder().join(licence).is_file(), "{licence}");
            }
        }
    }

    #[test]
    fn the_manifest_is_read_in_full() {
        let (folder, _) = copy();
        let store = WeightStore::open(Some(folder.path())).unwrap();
        let entry = store.entry("yunet").unwrap();
        assert_eq!(entry.metrics["auc"], Metric::Interval([0.9, 0.8, 0.95]));
        assert_eq!(entry.metrics["images"], Metric::Value(12.0));
        let calibration = entry.calibration.as_ref().unwrap();
        assert_eq!((calibration.a, calibration.b), (2.0, -1.0));
        assert!(store.entry("other").unwrap_err().to_string().contains("`other`"));
    }

    #[test]
    fn half_precision_is_loaded_as_f32() {
        let values: Vec<u8> =
            [1.5f32, -2.0].iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
        let store = WeightStore::open(Some(&shipped())).unwrap();
        // Through the public way only files of known networks load; hence a whole network in f16.
        let all = store.load("yunet", &Device::Cpu).unwrap();
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = crate::models::yunet::shapes()
            .into_iter()
            .map(|(name, shape)| {
                let n = shape.iter().product::<usize>();
                (name, shape, values.iter().copied().cycle().take(2 * n).collect())
            })
            .collect();
        let views = data.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(Dtype::F16, shape.clone(), bytes);
            (name.clone(), view.unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        let (folder, file) = copy();
        fs::write(file, &bytes).unwrap();
        describe(folder.path(), &bytes);
        let store = WeightStore::open(Some(folder.path())).unwrap();
        let tensors = store.load("yunet", &Device::Cpu).unwrap();
        let name = "backbone.model0.conv1.bias";
        let bias = tensors.get(name).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bias[..3], [1.5, -2.0, 1.5]);
        assert_eq!(all.get(name).unwrap().dims(), [16]);
    }

    #[test]
    fn a_missing_truncated_or_altered_file_is_named() {
        let (folder, file) = copy();
        let whole = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(complaint(folder.path()).contains("missing"));
        fs::write(&file, &whole[..whole.len() - 1]).unwrap();
        assert!(complaint(folder.path()).contains("truncated: 223071 of 223072"));
        let mut altered = whole.clone();
        altered[100_000] ^= 1;
        fs::write(&file, &altered).unwrap();
        let text = complaint(folder.path());
        assert!(text.contains(&sha256(&whole)), "{text}");
        assert!(text.contains(&sha256(&altered)), "{text}");
        let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
        fs::write(&file, longer).unwrap();
        assert!(complaint(folder.path()).contains("altered"));
        describe(folder.path(), b"not tensors at all");
        fs::write(&file, b"not tensors at all").unwrap();
        assert!(complaint(folder.path()).contains("not a safetensors file"));
    }

    #[test]
    fn tensors_that_do_not_fit_the_network_are_named() {
        let bytes = [0u8; 16 * 1024];
        let write = |change: &dyn Fn(&mut super::super::Shapes)| {
            let mut shapes = crate::models::yunet::shapes();
            change(&mut shapes);
            let views: Vec<_> = shapes
                .into_iter()
                .map(|(name, shape)| {
                    let n = 4 * shape.iter().product::<usize>();
                    let view = safetensors::tensor::TensorView::new(Dtype::F32, shape, &bytes[..n]);
                    (name, view.unwrap())
                })
                .collect();
            let data = safetensors::serialize(views, None).unwrap();
            let (folder, file) = copy();
            fs::write(file, &data).unwrap();
            describe(folder.path(), &data);
            complaint(folder.path())
        };
        let bias = "backbone.model0.conv1.bias";
        let text = write(&|s| s.iter_mut().filter(|t| t.0 == bias).for_each(|t| t.1 = vec![17]));
        assert!(text.contains(bias) && text.contains("[17]") && text.contains("[16]"), "{text}");
        let text = write(&|s| s.retain(|t| t.0 != bias));
        assert!(text.contains(&format!("`{bias}` is missing")), "{text}");
        let text = write(&|s| s.push(("stray".to_owned(), vec![1])));
        assert!(text.contains("`stray` is not part"), "{text}");
    }

    #[test]
    fn a_bad_manifest_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let open = |text: &str| {
            fs::write(folder.path().join(MANIFEST), text).unwrap();
            WeightStore::open(Some(folder.path())).unwrap_err().to_string()
        };
        assert!(open("schema = ").contains(MANIFEST));
        assert!(open("").contains("`schema` is missing"));
        assert!(open("schema = 2").contains("schema 2"));
        assert!(open("schema = 1\n[x]\nfile = \"a\"").contains("`x`"));
        let rest =
            "sha256 = \"\"\nbytes = 1\nnetwork = \"\"\ninput = \"\"\nlicence = \"\"\norigin = \"\"";
        let text = open(&format!("schema = 1\n[x]\nfile = \"../a\"\n{rest}"));
        assert!(text.contains("plain file name"), "{text}");
        let text = open(&format!("schema = 1\n[x]\nfile = \"a\"\nfil = 1\n{rest}"));
        assert!(text.contains("fil"), "{text}");
        let text = open(&format!("schema = 1\n[x]\nfile = \"a\"\nbase = \"y\"\n{rest}"));
        assert!(text.contains("`x`: no entry `y`"), "{text}");
    }

    #[test]
    fn weights_that_do_not_ship_are_told_from_lost_ones() {
        let (folder, file) = copy();
        let manifest = fs::read_to_string(folder.path().join(MANIFEST)).unwrap();
        let bring = "network = \"yunet\"\ninstalled_by = \"scripts/bring\"";
        let manifest = manifest.replace("network = \"yunet\"", bring);
        fs::write(folder.path().join(MANIFEST), manifest).unwrap();
        let store = WeightStore::open(Some(folder.path())).unwrap();
        store.verify("yunet").unwrap();
        let text = store.load_base("yunet", &Device::Cpu).unwrap_err().to_string();
        assert!(text.contains("`base` is missing"), "{text}");
        fs::remove_file(file).unwrap();
        let text = complaint(folder.path());
        assert!(text.contains("not installed") && text.contains("`scripts/bring`"), "{text}");
    }

    #[test]
    fn a_named_folder_without_manifest_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = WeightStore::open(Some(folder.path())).unwrap_err().to_string();
        assert!(text.contains(&folder.path().display().to_string()), "{text}");
    }
}
