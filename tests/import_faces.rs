//! Published face networks: Keras' weights read, answers equal to the originals', and what is refused.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use common::{PROGRAM, lcg, root, shared, talking_head, write};
use veriscope::models::import::{Described, Family, import};
use veriscope::models::mesonet::{self, MESO_INCEPTION4, MESO4, MesoNet, SIDE};
use veriscope::models::weights::WeightStore;

/// Of logits and of probabilities.
const TOLERANCE: f32 = 1e-4;

/// RGB, as scripts/train/face_swap/golden_mesonet.py makes it.
fn picture(seed: u64) -> Vec<u8> {
    let side = SIDE as i64;
    let mut noise = lcg(seed, SIDE * SIDE * 3).map(|v| i64::from(v >> 27));
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 3);
    for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
        for c in 0..3 {
            let slope = (x * (seed as i64 + 1) + y * (c + 1)) / 8 % 128;
            let oval = 3 * (x - 128).pow(2) + 2 * (y - 120).pow(2) < 16_000 + 4_000 * seed as i64;
            let oval = if oval { 90 - 25 * c } else { 0 };
            pixels.push((slope + oval + noise.next().unwrap()) as u8);
        }
    }
    pixels
}

struct Golden(serde_json::Value);

impl Golden {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("tests/golden/mesonet.json")).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    fn pictures(&self) -> Vec<Vec<u8>> {
        self.0["pictures"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| picture(s.as_u64().unwrap()))
            .collect()
    }

    /// Logit and probability that each picture is real.
    fn answers(&self, network: &str, weights: &str) -> Vec<[f32; 2]> {
        let all = self.0[network][weights].as_array().unwrap().iter();
        all.map(|a| [0, 1].map(|i| a[i].as_f64().unwrap() as f32)).collect()
    }
}

/// One of Keras' layers with its tensors: name, shape, values.
struct Layer {
    name: String,
    tensors: Vec<(&'static str, Vec<usize>, Vec<f32>)>,
}

/// The weights that golden_mesonet.py makes up, with the layers numbered from `first` on.
fn made_up(network: &str, first: usize) -> Vec<Layer> {
    let mut index = 0;
    let mut layers = Vec::new();
    let shapes = mesonet::shapes(network).unwrap();
    let sides = |name: String| shapes.iter().find(|(n, _)| *n == name).map(|(_, s)| s.clone());
    for (kind, ours, parts) in [
        ("conv2d", "conv", &["kernel", "bias"][..]),
        ("batch_normalization", "bn", &["gamma", "beta", "moving_mean", "moving_variance"]),
        ("dense", "dense", &["kernel", "bias"]),
    ] {
        for n in 1.. {
            let Some(weight) = sides(format!("{ours}{n}.weight")) else { break };
            let mut tensors = Vec::new();
            for part in parts {
                let shape = match (*part, &weight[..]) {
                    ("kernel", [o, i, h, w]) => vec![*h, *w, *i, *o],
                    ("kernel", [o, i]) => vec![*i, *o],
                    _ => vec![weight[0]],
                };
                let fan_in = shape[..shape.len() - 1].iter().product::<usize>().max(1);
                let value = |state: u32| {
                    let u = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
                    match *part {
                        "gamma" | "moving_variance" => 1.0 + u,
                        "kernel" => u * 4.0 / 2f32.powi(fan_in.ilog2() as i32 / 2),
                        _ => u / 4.0,
                    }
                };
                let values = lcg(1 + index, shape.iter().product()).map(value).collect();
                index += 1;
                tensors.push((*part, shape, values));
            }
            layers.push(Layer { name: format!("{kind}_{}", first + n), tensors });
        }
    }
    layers
}

/// HDF5 under construction, as Keras writes it: see the specification that src/models/hdf5.rs names.
#[derive(Default)]
struct Hdf5(Vec<u8>);

/// What a group holds: name and address of the object header.
type Entries = Vec<(String, u64)>;

impl Hdf5 {
    fn new() -> Self {
        Self(vec![0; 96])
    }

    /// At the next multiple of 8.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self.0.extend(bytes);
        (self.0.len() - bytes.len()) as u64
    }

    fn header(&mut self, messages: &[(u16, Vec<u8>)]) -> u64 {
        let mut body = Vec::new();
        for (kind, data) in messages {
            body.extend(kind.to_le_bytes());
            body.extend((data.len().next_multiple_of(8) as u16).to_le_bytes());
            body.extend([0; 4]);
            body.extend(data);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        let mut header = vec![1, 0];
        header.extend((messages.len() as u16).to_le_bytes());
        header.extend(1u32.to_le_bytes());
        header.extend((body.len() as u32).to_le_bytes());
        header.extend([0; 4]);
        header.extend(body);
        self.put(&header)
    }

    fn data_set(&mut self, shape: &[usize], values: &[f32]) -> u64 {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let at = self.put(&bytes);
        let mut space = vec![1, shape.len() as u8, 0, 0, 0, 0, 0, 0];
        space.extend(shape.iter().flat_map(|s| (*s as u64).to_le_bytes()));
        let mut kind = vec![0x11, 0x20, 31, 0, 4, 0, 0, 0];
        kind.extend([0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0]);
        let layout = [&[3, 1][..], &at.to_le_bytes(), &(bytes.len() as u64).to_le_bytes()].concat();
        self.header(&[(1, space), (3, kind), (8, layout)])
    }

    fn group(&mut self, mut entries: Entries) -> u64 {
        entries.sort();
        let mut names = vec![0; 8];
        let mut symbols = b"SNOD\x01\0".to_vec();
        symbols.extend((entries.len() as u16).to_le_bytes());
        for (name, header) in &entries {
            symbols.extend((names.len() as u64).to_le_bytes());
            symbols.extend(header.to_le_bytes());
            symbols.extend([0; 24]);
            names.extend(name.as_bytes());
            names.push(0);
        }
        let symbols = self.put(&symbols);
        let data = self.put(&names);
        let mut heap = b"HEAP\0\0\0\0".to_vec();
        heap.extend([names.len() as u64, 1, data].iter().flat_map(|v| v.to_le_bytes()));
        let heap = self.put(&heap);
        let mut tree = b"TREE\0\0\x01\0".to_vec();
        tree.extend([0xff; 16]);
        tree.extend([0, symbols, 8].iter().flat_map(|v| v.to_le_bytes()));
        let tree = self.put(&tree);
        self.header(&[(0x11, [tree.to_le_bytes(), heap.to_le_bytes()].concat())])
    }

    fn finish(mut self, root: u64) -> Vec<u8> {
        let end = self.0.len() as u64;
        let mut block = b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0\x04\0\x10\0\0\0\0\0".to_vec();
        let addresses = [0, u64::MAX, end, u64::MAX, 0, root, 0, 0, 0];
        block.extend(addresses.iter().flat_map(|v: &u64| v.to_le_bytes()));
        self.0[..96].copy_from_slice(&block);
        self.0
    }
}

/// `layer/layer/part:0`, as save_weights writes it; layers without weights are empty groups.
fn weights_file(layers: &[Layer]) -> Vec<u8> {
    let mut file = Hdf5::new();
    let root = layers_in(&mut file, layers);
    file.finish(root)
}

fn layers_in(file: &mut Hdf5, layers: &[Layer]) -> u64 {
    let mut entries = Entries::new();
    for layer in layers {
        let tensors = layer.tensors.iter();
        let tensors: Entries = tensors
            .map(|(part, shape, values)| (format!("{part}:0"), file.data_set(shape, values)))
            .collect();
        let inner = file.group(tensors);
        entries.push((layer.name.clone(), file.group(vec![(layer.name.clone(), inner)])));
    }
    entries.push(("max_pooling2d_1".to_owned(), file.group(Vec::new())));
    file.group(entries)
}

fn family(network: &str) -> Family {
    if network == MESO4 { Family::Meso4 } else { Family::MesoInception4 }
}

/// Imports, loads and asks; compares with the original's answers.
fn answers_as_the_original(file: &Path, network: &str, weights: &str) {
    let golden = Golden::read();
    let folder = tempfile::tempdir().unwrap();
    let made = import(family(network), file, &Described::default(), folder.path(), &[]).unwrap();
    assert_eq!((made.name.as_str(), made.network.as_str()), (network, network));
    let store = WeightStore::open(Some(folder.path())).unwrap();
    store.verify(network).unwrap();
    let net = MesoNet::new(network, &store.load(network, &Device::Cpu).unwrap()).unwrap();
    let pictures = golden.pictures();
    let faces = |pictures: &[Vec<u8>]| {
        let values: Vec<f32> = pictures.concat().iter().map(|v| f32::from(*v) / 255.0).collect();
        Tensor::from_vec(values, (pictures.len(), SIDE, SIDE, 3), &Device::Cpu).unwrap()
    };
    let got = net.forward(&faces(&pictures)).unwrap();
    let want = golden.answers(network, weights);
    assert_eq!(got.len(), want.len());
    let mut worst = [0.0f32; 2];
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let got = [*got, 1.0 / (1.0 + (-got).exp())];
        for k in 0..2 {
            let apart = (got[k] - want[k]).abs();
            worst[k] = worst[k].max(apart);
            assert!(apart <= TOLERANCE, "{network} {weights}, {i}: {got:?}, {want:?}");
        }
    }
    let [logit, probability] = worst;
    println!("{network}, {weights}: at most {logit:.1e} (logit), {probability:.1e} (probability)");
    // The answers differ from picture to picture by far more than is tolerated.
    let logits = want.iter().map(|a| a[0]);
    let spread = logits.clone().fold(f32::MIN, f32::max) - logits.fold(f32::MAX, f32::min);
    assert!(spread > 50.0 * TOLERANCE, "{spread}");
    // Nobody's answer depends on the company.
    assert_eq!(net.forward(&faces(&pictures[1..2])).unwrap(), got[1..2]);
    let small = Tensor::zeros((1, 224, 224, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(net.forward(&small).unwrap_err().to_string().contains("[256, 256, 3]"));
}

#[test]
fn made_up_weights_answer_as_in_the_original() {
    for network in [MESO4, MESO_INCEPTION4] {
        // Numbered from 1, as in a fresh program, and beyond 9, where names no longer sort as numbers.
        for first in [0, 5] {
            let folder = tempfile::tempdir().unwrap();
            let file = write(folder.path(), "w.h5", &weights_file(&made_up(network, first)));
            answers_as_the_original(&file, network, "made_up");
        }
    }
}

/// A whole model as `save` writes it: the weights beside an optimizer's state.
#[test]
fn weights_in_a_whole_model_are_found() {
    let mut file = Hdf5::new();
    let layers = layers_in(&mut file, &made_up(MESO4, 0));
    let steps = file.data_set(&[1], &[7.0]);
    let optimizer = file.group(vec![("Adam".to_owned(), steps)]);
    let entries =
        vec![("model_weights".to_owned(), layers), ("optimizer_weights".to_owned(), optimizer)];
    let root = file.group(entries);
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "model.h5", &file.finish(root));
    answers_as_the_original(&file, MESO4, "made_up");
}

/// The checkpoints do not ship.
#[test]
fn the_authors_weights_answer_as_in_the_original() {
    for (name, network) in [
        ("Meso4_DF", MESO4),
        ("Meso4_F2F", MESO4),
        ("MesoInception_DF", MESO_INCEPTION4),
        ("MesoInception_F2F", MESO_INCEPTION4),
    ] {
        let Some(file) = shared(&format!("detectors/{name}.h5")) else { continue };
        answers_as_the_original(&file, network, name);
    }
}

/// Why these bytes are refused; the message names the file, is one line, and nothing is left behind.
fn refusal(family: Family, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "bad.h5", bytes);
    let to = folder.path().join("weights");
    let error = import(family, &file, &Described::default(), &to, &[]).unwrap_err().to_string();
    assert!(error.contains("bad.h5") && !error.contains('\n'), "{error}");
    assert!(!to.exists(), "{error}");
    error
}

fn refused(bytes: &[u8], words: &[&str]) {
    let error = refusal(Family::Meso4, bytes);
    assert!(words.iter().all(|word| error.contains(word)), "{error}: expected {words:?}");
}

#[test]
fn layers_that_are_not_the_networks_are_refused() {
    let spoilt = |spoil: &dyn Fn(&mut Vec<Layer>), words: &[&str]| {
        let mut layers = made_up(MESO4, 4);
        spoil(&mut layers);
        refused(&weights_file(&layers), words);
    };
    spoilt(&|l| drop(l.remove(2)), &["3 layers `conv2d`", "meso4 has 4"]);
    spoilt(&|l| l[9].name = "dense_x".to_owned(), &["dense_x/dense_x/", "not part"]);
    spoilt(&|l| drop(l[1].tensors.pop()), &["conv2d_6/bias", "missing"]);
    spoilt(&|l| l[1].tensors[0].1 = vec![5, 5, 64], &["conv2d_6/kernel:0", "[5, 5, 64]", "8, 8]"]);
    spoilt(&|l| l[5].tensors[3].2[1] = -1.0, &["batch_normalization_6/moving_variance:0", "-1"]);
    spoilt(&|l| l[8].tensors[0].2[77] = f32::NAN, &["dense_5/kernel:0", "value 77 is NaN"]);
    spoilt(&|l| l[0].tensors.push(("gamma", vec![1], vec![0.0])), &["conv2d_5/gamma", "not part"]);
    let other = weights_file(&made_up(MESO_INCEPTION4, 0));
    refused(&other, &["16 layers `conv2d`", "meso4 has 4"]);
    let other = refusal(Family::MesoInception4, &weights_file(&made_up(MESO4, 0)));
    assert!(
        other.contains("4 layers `conv2d`, mesoinception4 has 16") || other.contains("4 layers")
    );
}

/// Where in a file some bytes first stand.
fn find(file: &[u8], bytes: &[u8]) -> usize {
    file.windows(bytes.len()).position(|w| w == bytes).unwrap()
}

#[test]
fn files_that_keras_does_not_write_are_refused() {
    let whole = weights_file(&made_up(MESO4, 0));
    refused(b"", &["not an HDF5 file"]);
    refused(b"PK\x03\x04", &["not an HDF5 file"]);
    refused(&vec![b'P'; (16 << 20) + 1], &["over 16 MiB"]);
    for part in 1..10 {
        refused(&whole[..whole.len() * part / 10], &["truncated"]);
    }
    refused(&whole[..whole.len() - 1], &["truncated"]);
    refused(&whole[..90], &["96 bytes at 0"]);
    let spoilt = |at: usize, bytes: &[u8], words: &[&str]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&file, words);
    };
    spoilt(8, &[2], &["superblock version 2"]);
    spoilt(13, &[4], &["offsets of 4"]);
    spoilt(24, &[1], &["begins at 1"]);
    spoilt(64, &u64::MAX.to_le_bytes(), &["the file ends at"]);
    spoilt(find(&whole, b"HEAP"), b"HOLE", &["no heap"]);
    spoilt(find(&whole, b"TREE"), b"TRUE", &["no tree"]);
    spoilt(find(&whole, b"TREE") + 5, &[1], &["no tree"]);
    spoilt(find(&whole, b"SNOD"), b"SNOW", &["no table"]);
    spoilt(find(&whole, b"kernel:0"), b"kern/l:0", &["no plain name"]);
    spoilt(find(&whole, b"kernel:0"), b"kern\xffl:0", &["no plain name"]);
    // The first data set: the first convolution's kernel.
    let kind = find(&whole, &[0x11, 0x20, 31, 0, 4]);
    spoilt(kind + 4, &[8], &["conv2d_1/kernel:0", "8 bytes, not little-endian f32"]);
    spoilt(kind + 1, &[0x21], &["conv2d_1/kernel:0", "not little-endian f32"]);
    spoilt(kind - 4, &[2], &["conv2d_1/kernel:0", "shares its description"]);
    let layout = kind + 24 + 8;
    spoilt(layout + 1, &[2], &["conv2d_1/kernel:0", "version 3 and class 2"]);
    spoilt(layout + 2, &[0xff; 8], &["conv2d_1/kernel:0", "never written"]);
    spoilt(layout + 2, &[0xff, 0xff, 0xff, 0xff, 0], &["conv2d_1/kernel:0", "the file ends at"]);
    spoilt(layout + 10, &[9], &["conv2d_1/kernel:0", "bytes for shape"]);
    let shape = kind - 8 - 32;
    spoilt(shape, &[0xff; 7], &["conv2d_1/kernel:0", "over the limit"]);
    // A filter in the place of the layout; then a group as newer versions write it.
    spoilt(layout - 8, &[0x0b], &["conv2d_1", "neither a group nor a data set"]);
    spoilt(layout - 8, &[0x02], &["conv2d_1", "since 1.8"]);
}

/// Files that lead a careless reader round and round.
#[test]
fn loops_end() {
    // A group that holds itself: the header's address is known before it is written.
    let mut file = Hdf5::new();
    let first = file.group(vec![("a".to_owned(), 0)]);
    let mut bytes = file.finish(first);
    let entry = find(&bytes, b"SNOD") + 16;
    bytes[entry..entry + 8].copy_from_slice(&first.to_le_bytes());
    refused(&bytes, &["groups in groups"]);
    // Many such beside one another.
    let mut file = Hdf5::new();
    let first = file.group((0..200).map(|i| (format!("{i:03}"), 0)).collect());
    let mut bytes = file.finish(first);
    let entry = find(&bytes, b"SNOD") + 8;
    for i in 0..200 {
        bytes[entry + i * 40 + 8..][..8].copy_from_slice(&first.to_le_bytes());
    }
    refused(&bytes, &["groups in groups"]);
    // A tree whose node is its own child, and a header that continues in itself.
    let mut file = Hdf5::new();
    let root = file.group(Vec::new());
    let mut bytes = file.finish(root);
    let tree = find(&bytes, b"TREE");
    bytes[tree + 5] = 1;
    bytes[tree + 32..tree + 40].copy_from_slice(&(tree as u64).to_le_bytes());
    refused(&bytes, &["a node of level 1"]);
    let mut file = Hdf5::new();
    let at = file.header(&[(0x10, vec![0; 16])]);
    let mut bytes = file.finish(at);
    bytes[at as usize + 2..at as usize + 4].copy_from_slice(&1024u16.to_le_bytes());
    bytes[at as usize + 24..at as usize + 32].copy_from_slice(&(at + 16).to_le_bytes());
    bytes[at as usize + 32..at as usize + 40].copy_from_slice(&24u64.to_le_bytes());
    refused(&bytes, &["neither a group nor a data set"]);
    bytes[at as usize + 2..at as usize + 4].copy_from_slice(&1025u16.to_le_bytes());
    refused(&bytes, &["over 1024 messages"]);
}

/// Whatever stands in the file: an answer, never a panic.
#[test]
fn altered_files_are_survived() {
    let whole = weights_file(&made_up(MESO_INCEPTION4, 0));
    // Values need no altering: everything else lies in between.
    let values: Vec<std::ops::Range<usize>> = {
        let mut at = 96;
        let layers = made_up(MESO_INCEPTION4, 0);
        let mut ranges = Vec::new();
        for (_, _, values) in layers.iter().flat_map(|l| &l.tensors) {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            at += find(&whole[at..], &bytes);
            ranges.push(at..at + bytes.len());
        }
        ranges
    };
    let places: Vec<usize> =
        (0..whole.len()).filter(|i| values.iter().all(|range| !range.contains(i))).collect();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("weights");
    let mut random = lcg(5, 20_000);
    let mut refusals = 0;
    for _ in 0..3_000 {
        let mut altered = whole.clone();
        for _ in 0..1 + random.next().unwrap() as usize % 2 {
            let at = places[(random.next().unwrap() >> 8) as usize % places.len()];
            altered[at] = (random.next().unwrap() >> 24) as u8;
        }
        let file = write(folder.path(), "altered.h5", &altered);
        match import(Family::MesoInception4, &file, &Described::default(), &to, &[]) {
            // What was altered does not matter, such as a node's neighbours.
            Ok(_) => fs::remove_dir_all(&to).unwrap(),
            Err(error) => {
                assert!(error.to_string().contains("altered.h5"), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 500, "{refusals}");
}

fn veriscope(args: &[&str], environment: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_remove("VERISCOPE_WEIGHTS");
    command.envs(environment.iter().copied());
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_program_imports_and_scores_faces() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let home = [("XDG_DATA_HOME", here)];
    let file = write(here, "M.h5", &weights_file(&made_up(MESO4, 4)));
    let made = veriscope(&["weights", "import", "--as", "meso4", file.to_str().unwrap()], &home);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stdout(&made).contains("--detector face-swap --network meso4"), "{}", stdout(&made));
    let verified = veriscope(&["weights", "verify"], &home);
    assert_eq!(verified.status.code(), Some(0), "{}", stdout(&verified));

    // Pictures that are faces already, of the network's own size: the logit, its sign turned.
    let golden = Golden::read();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (i, rgb) in golden.pictures().iter().enumerate() {
        let header = format!("P6\n{SIDE} {SIDE}\n255\n");
        let pixels = write(here, &format!("{i}.ppm"), &[header.as_bytes(), rgb].concat());
        paths
            .push(common::ffmpeg(&["-i", pixels.to_str().unwrap()], here.join(format!("{i}.png"))));
    }
    paths.push(here.join("missing.png"));
    let list = |paths: &[PathBuf]| {
        let lines: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        write(here, "list.txt", lines.join("\n").as_bytes())
    };
    let score = ["score", "--detector", "face-swap", "--network", "meso4", "--list"];
    let rows = |output: &Output| -> Vec<Vec<String>> {
        let text = stdout(output);
        text.lines().skip(1).map(|l| l.split('\t').map(str::to_owned).collect()).collect()
    };
    let file = list(&paths);
    let scored =
        veriscope(&[&score[..], &[file.to_str().unwrap(), "--precropped"]].concat(), &home);
    assert_eq!(scored.status.code(), Some(1), "a file is missing");
    let cropped = rows(&scored);
    let want = golden.answers(MESO4, "made_up");
    for (row, want) in cropped.iter().zip(&want) {
        let got: f32 = row[1].parse().unwrap();
        assert!((got + want[0]).abs() <= TOLERANCE, "{row:?}: {want:?}");
        assert_eq!(row[2..], ["", ""], "no probability");
    }
    assert_eq!(cropped[5][1..], ["", "", "unreadable"]);

    // A video's faces are found, followed and pooled; a picture without a face has no score.
    let file = list(&[talking_head(), paths[0].clone()]);
    let scored = veriscope(&[&score[..], &[file.to_str().unwrap()]].concat(), &home);
    assert_eq!(scored.status.code(), Some(0), "{}", stderr(&scored));
    let found = rows(&scored);
    let video: f32 = found[0][1].parse().unwrap();
    assert!(video.abs() < 5.0 && found[0][2].is_empty(), "{found:?}");
    assert_eq!(found[1][1..], ["", "", "no_face"], "{found:?}");

    for (args, words) in [
        (["--detector", "voice-clone", "--network", "meso4"], "no published voice-clone network"),
        (["--detector", "face-swap", "--network", "yunet"], "no published face-swap network"),
        (["--detector", "label-strip", "--network", "meso4"], "face-swap or voice-clone only"),
    ] {
        let file = file.to_str().unwrap();
        let output = veriscope(&[&["score", "--list", file], &args[..]].concat(), &home);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let tier = [&score[..], &[file.to_str().unwrap(), "--tier", "fast"]].concat();
    let tier = veriscope(&tier, &home);
    assert_eq!(tier.status.code(), Some(2), "{}", stderr(&tier));
    assert!(stderr(&tier).contains("--tier is"), "{}", stderr(&tier));
}
