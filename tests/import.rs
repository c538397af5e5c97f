//! Published networks: checkpoints read, answers equal to the originals', and what is refused.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::Device;
use common::{PROGRAM, lcg, root, shared, write};
use veriscope::models::aasist::{self, Aasist, SAMPLES, fitted};
use veriscope::models::import::{Described, Family, import};
use veriscope::models::rawgat_st::{self, RawGatSt};
use veriscope::models::weights::WeightStore;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Of the raw logits; see DESIGN and docs/models/voice-clone.md.
const TOLERANCE: f32 = 1e-4;

/// 16 bit, as scripts/train/voice_clone/golden_aasist.py makes it.
fn signal(seed: u64, samples: usize) -> Vec<i16> {
    let (i, period) = (0..samples as i64, 90 + 17 * seed as i64);
    i.zip(lcg(seed, samples))
        .map(|(i, noise)| {
            let saw = i % period * 20_000 / period - 10_000;
            let swell = (i % 4_000 - 2_000).abs();
            ((saw * swell).div_euclid(2_000) + i64::from(noise >> 20) - 2_048) as i16
        })
        .collect()
}

fn wave(samples: &[i16]) -> Vec<f32> {
    samples.iter().map(|s| f32::from(*s) / 32_768.0).collect()
}

/// Seeds and lengths of the signals; per network and weights the logits.
struct Golden(serde_json::Value);

impl Golden {
    fn of(network: &str) -> Self {
        let name = if network == rawgat_st::NETWORK { "rawgat_st" } else { "aasist" };
        let text = fs::read_to_string(root().join(format!("tests/golden/{name}.json"))).unwrap();
        Self(serde_json::from_str(&text).unwrap())
    }

    fn signals(&self) -> Vec<Vec<i16>> {
        let all = self.0["signals"].as_array().unwrap().iter();
        all.map(|s| signal(s[0].as_u64().unwrap(), s[1].as_u64().unwrap() as usize)).collect()
    }

    fn logits(&self, network: &str, weights: &str) -> Vec<[f32; 2]> {
        let all = self.0[network][weights].as_array().unwrap().iter();
        all.map(|l| [0, 1].map(|i| l[i].as_f64().unwrap() as f32)).collect()
    }
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// The weights that golden_aasist.py makes up, those without effect included.
fn made_up(network: &str) -> Vec<Entry> {
    let rawgat = network == rawgat_st::NETWORK;
    let mut shapes = if rawgat { rawgat_st::shapes() } else { aasist::shapes(network).unwrap() };
    let encoders: &[&str] = if rawgat { &["encoder1", "encoder2"] } else { &["encoder"] };
    for encoder in encoders {
        for block in 1..6 {
            let name = format!("{encoder}.{block}.0");
            let conv = format!("{name}.conv1.weight");
            let conv = shapes.iter().find(|(name, _)| *name == conv).unwrap().1.clone();
            for part in ["weight", "bias", "running_mean", "running_var"] {
                shapes.push((format!("{name}.bn1.{part}"), vec![conv[1]]));
            }
            if rawgat {
                shapes.push((format!("{name}.conv_1.weight"), vec![conv[0], 1, 2, 3]));
                shapes.push((format!("{name}.conv_1.bias"), vec![conv[0]]));
            }
        }
    }
    shapes.sort();
    let make = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let parts: Vec<&str> = name.split('.').collect();
        let (owner, part) = (parts.iter().rev().nth(1), parts[parts.len() - 1]);
        let norm = owner.is_some_and(|owner| owner.contains("bn"));
        let fan_in = shape[1..].iter().product::<usize>().max(1);
        let scale = 2.0 / 2f32.powi(fan_in.ilog2() as i32 / 2);
        let value = |state: u32| {
            let u = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            match part {
                _ if name == "first_bn.running_var" => (1.0 + u) / 1024.0,
                "running_var" => 1.0 + u,
                "weight" if norm => 1.0 + u,
                "bias" | "running_mean" => u / 4.0,
                _ => u * scale,
            }
        };
        let values = lcg(1 + index as u64, shape.iter().product()).map(value).collect();
        Entry { name, shape, values }
    };
    shapes.into_iter().enumerate().map(make).collect()
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

fn numbers(pickle: &mut Vec<u8>, numbers: impl IntoIterator<Item = usize>) {
    pickle.push(b'(');
    for n in numbers {
        pickle.push(b'J');
        pickle.extend((n as u32).to_le_bytes());
    }
    pickle.push(b't');
}

/// A tensor at the start of storage `key`, as torch.save writes it.
fn tensor(pickle: &mut Vec<u8>, key: &str, kind: &str, numel: usize, shape: &[usize]) {
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    pickle.extend(format!("ctorch\n{kind}\n").bytes());
    text(pickle, key);
    text(pickle, "cuda:0");
    pickle.push(b'J');
    pickle.extend((numel as u32).to_le_bytes());
    pickle.extend(b"tQK\0");
    numbers(pickle, shape.iter().copied());
    numbers(pickle, (0..shape.len()).map(|i| shape[i + 1..].iter().product::<usize>()));
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
}

fn state_dict(items: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)Rq\0(".to_vec();
    items(&mut pickle);
    // Then attributes, as state dicts have them.
    pickle.extend(b"u}(");
    text(&mut pickle, "_metadata");
    pickle.extend(b"h\0ub.");
    pickle
}

/// A checkpoint of these entries, all values f32.
fn checkpoint(entries: &[Entry]) -> Vec<u8> {
    let pickle = state_dict(|pickle| {
        for (key, e) in entries.iter().enumerate() {
            text(pickle, &e.name);
            tensor(pickle, &key.to_string(), "FloatStorage", e.values.len(), &e.shape);
        }
        text(pickle, "first_bn.num_batches_tracked");
        tensor(pickle, "steps", "LongStorage", 1, &[]);
    });
    let bytes = |e: &Entry| e.values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let storages = entries.iter().enumerate().map(|(key, e)| (key.to_string(), bytes(e)));
    archive(&pickle, storages.chain([("steps".to_owned(), vec![0; 8])]))
}

fn archive(pickle: &[u8], storages: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let storages = storages.into_iter().map(|(key, bytes)| (format!("archive/data/{key}"), bytes));
    zipped([("archive/data.pkl".to_owned(), pickle.to_vec())].into_iter().chain(storages))
}

fn zipped(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in files {
        zip.start_file(name, stored).unwrap();
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn entry<'a>(entries: &'a mut [Entry], name: &str) -> &'a mut Entry {
    entries.iter_mut().find(|e| e.name == name).unwrap()
}

type Forward = dyn Fn(&[&[f32]]) -> candle_core::Result<Vec<[f32; 2]>>;

fn family(network: &str) -> Family {
    if network == rawgat_st::NETWORK { Family::RawGatSt } else { Family::Aasist }
}

/// Imports, loads and asks; compares with the original's answers.
fn answers_as_the_original(file: &Path, network: &str, weights: &str) {
    let golden = Golden::of(network);
    let folder = tempfile::tempdir().unwrap();
    let made = import(family(network), file, &Described::default(), folder.path(), &[]).unwrap();
    assert_eq!((made.name.as_str(), made.network.as_str()), (network, network));
    let store = WeightStore::open(Some(folder.path())).unwrap();
    store.verify(network).unwrap();
    let tensors = store.load(network, &Device::Cpu).unwrap();
    let forward: Box<Forward> = if network == rawgat_st::NETWORK {
        let net = RawGatSt::new(&tensors).unwrap();
        Box::new(move |windows| net.forward(windows))
    } else {
        let net = Aasist::new(network, &tensors).unwrap();
        Box::new(move |windows| net.forward(windows))
    };
    let waves: Vec<Vec<f32>> = golden.signals().iter().map(|s| fitted(wave(s)).unwrap()).collect();
    let windows: Vec<&[f32]> = waves.iter().map(Vec::as_slice).collect();
    let got = forward(&windows).unwrap();
    let want = golden.logits(network, weights);
    assert_eq!(got.len(), want.len());
    let mut worst = 0.0f32;
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        for (g, w) in got.iter().zip(want) {
            worst = worst.max((g - w).abs());
            assert!((g - w).abs() <= TOLERANCE, "{network} {weights}, {i}: {got:?}, {want:?}");
        }
    }
    println!("{network}, {weights}: at most {worst:.1e} from the original");
    // The answers differ from signal to signal by far more than is tolerated.
    let spread = |i: usize| {
        let values = want.iter().map(|l| l[i]);
        values.clone().fold(f32::MIN, f32::max) - values.fold(f32::MAX, f32::min)
    };
    assert!(spread(1) > 50.0 * TOLERANCE, "{}", spread(1));
    // Nobody's answer depends on the company.
    assert_eq!(forward(&windows[1..2]).unwrap(), got[1..2]);
    assert!(forward(&[&waves[0][1..]]).unwrap_err().to_string().contains("64600"));
}

#[test]
fn made_up_weights_answer_as_in_the_original() {
    for network in [aasist::NETWORK, aasist::NETWORK_L, rawgat_st::NETWORK] {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "made-up.pth", &checkpoint(&made_up(network)));
        answers_as_the_original(&file, network, "made_up");
    }
}

/// The checkpoints do not ship.
#[test]
fn the_authors_weights_answer_as_in_the_original() {
    for (name, network) in [
        ("AASIST", aasist::NETWORK),
        ("AASIST-L", aasist::NETWORK_L),
        ("rawgat-st/mul", rawgat_st::NETWORK),
    ] {
        let Some(file) = shared(&format!("detectors/{name}.pth")) else { continue };
        answers_as_the_original(&file, network, "trained");
    }
}

/// Real and spoofed clips, which do not ship, by the program as a whole.
#[test]
fn real_clips_are_scored_as_in_the_original() {
    let network = rawgat_st::NETWORK;
    let Some(checkpoint) = shared("detectors/rawgat-st/mul.pth") else { return };
    let folder = tempfile::tempdir().unwrap();
    let home = [("XDG_DATA_HOME", folder.path())];
    let checkpoint = checkpoint.to_str().unwrap();
    let made = veriscope(&["weights", "import", "--as", network, checkpoint], &home);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let golden = Golden::of(network);
    let mut want = Vec::new();
    let mut paths = String::new();
    for clip in golden.0["clips"].as_array().unwrap() {
        let Some(tar) = shared(&format!("speech/{}", clip[0].as_str().unwrap())) else { return };
        let name = clip[1].as_str().unwrap();
        let from = tar.to_str().unwrap();
        let to = folder.path().to_str().unwrap();
        let unpacked = Command::new("tar").args(["-xf", from, "-C", to, name]).status().unwrap();
        assert!(unpacked.success(), "{name}");
        paths += &format!("{}\n", folder.path().join(name).display());
        want.push(clip[3].as_f64().unwrap() as f32);
    }
    assert_eq!(want.len(), 8);
    let list = write(folder.path(), "list.txt", paths.as_bytes());
    let list = list.to_str().unwrap();
    let score = ["score", "--detector", "voice-clone", "--network", network, "--list", list];
    let scored = veriscope(&score, &home);
    assert_eq!(scored.status.code(), Some(0), "{}", stderr(&scored));
    let mut worst = 0.0f32;
    let text = stdout(&scored);
    for (row, want) in text.lines().skip(1).zip(&want) {
        let got: f32 = row.split('\t').nth(1).unwrap().parse().unwrap();
        worst = worst.max((got + want).abs());
        assert!((got + want).abs() <= TOLERANCE, "{row}: minus {want}");
    }
    assert_eq!(text.lines().count(), 1 + want.len());
    println!("{network}, clips: at most {worst:.1e} from the original");
}

#[test]
fn another_networks_checkpoint_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |of: &str, as_network: &str, spoil: &dyn Fn(&mut Vec<Entry>), words: &[&str]| {
        let mut entries = made_up(of);
        spoil(&mut entries);
        let file = write(folder.path(), "other.pth", &checkpoint(&entries));
        let to = folder.path().join("weights");
        let error = import(family(as_network), &file, &Described::default(), &to, &[]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("other.pth") && !error.contains('\n'), "{error}");
        assert!(words.iter().all(|word| error.contains(word)), "{error}: expected {words:?}");
        assert!(!to.exists());
    };
    let as_it_is = |_: &mut Vec<Entry>| {};
    let rawgat = rawgat_st::NETWORK;
    refused(aasist::NETWORK, rawgat, &as_it_is, &["encoder1.0.0.conv_1.weight", "is missing"]);
    refused(rawgat, aasist::NETWORK, &as_it_is, &["`pos_S` is missing"]);
    // The authors' variant whose views lie side by side has more nodes before the last pool.
    let wider = |e: &mut Vec<Entry>| {
        let e = entry(e, "proj_node.weight");
        (e.shape, e.values) = (vec![2, 15], vec![0.0; 30]);
    };
    refused(rawgat, rawgat, &wider, &["proj_node.weight", "[2, 15]", "[2, 7]"]);
    let stray = |e: &mut Vec<Entry>| {
        let shape = vec![64, 1, 2, 3];
        e.push(Entry { name: "encoder3.1.0.conv2.weight".into(), shape, values: vec![0.0; 384] });
    };
    refused(rawgat, rawgat, &stray, &["encoder3.1.0.conv2.weight", "not part"]);
    let nan = |e: &mut Vec<Entry>| entry(e, "GAT_layer3.att_weight").values[3] = f32::NAN;
    refused(rawgat, rawgat, &nan, &["GAT_layer3.att_weight", "value 3"]);
    // Keras' weights are no checkpoint of PyTorch's, and the other way round.
    for (family, words) in [
        (Family::Aasist, "not a zip archive"),
        (Family::RawGatSt, "not a zip archive"),
        (Family::Meso4, "superblock version 9"),
    ] {
        let file =
            write(folder.path(), "w.h5", &[b"\x89HDF\r\n\x1a\n\x09".as_slice(), &[0; 99]].concat());
        let error = import(family, &file, &Described::default(), folder.path(), &[]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let file = write(folder.path(), "a.pth", &checkpoint(&made_up(aasist::NETWORK_L)));
    let error = import(Family::MesoInception4, &file, &Described::default(), folder.path(), &[]);
    assert!(error.unwrap_err().to_string().contains("not an HDF5 file"));
}

#[test]
fn recordings_are_fitted_as_the_original_does() {
    assert_eq!(fitted(Vec::new()), None);
    assert_eq!(fitted(vec![0.5]).unwrap(), vec![0.5; SAMPLES]);
    let ramp = |n: usize| (0..n).map(|i| i as f32).collect::<Vec<f32>>();
    let got = fitted(ramp(20_000)).unwrap();
    assert!(got.iter().enumerate().all(|(i, v)| *v == (i % 20_000) as f32) && got.len() == SAMPLES);
    assert_eq!(fitted(ramp(SAMPLES)).unwrap(), ramp(SAMPLES));
    assert_eq!(fitted(ramp(SAMPLES + 1)).unwrap(), ramp(SAMPLES));
}

/// Why these bytes are refused; the message names the file, is one line, and nothing is left behind.
fn refusal(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "bad.pth", bytes);
    let to = folder.path().join("weights");
    let error = import(Family::Aasist, &file, &Described::default(), &to, &[]).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("bad.pth") && !error.contains('\n'), "{error}");
    assert!(!to.exists(), "{error}");
    error
}

fn refused(bytes: &[u8], words: &[&str]) {
    let error = refusal(bytes);
    assert!(words.iter().all(|word| error.contains(word)), "{error}: expected {words:?}");
}

#[test]
fn what_is_no_whole_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, words) in [("missing.pth", "cannot be read"), ("", "not a regular file")] {
        let file = folder.path().join(name);
        let error = import(Family::Aasist, &file, &Described::default(), folder.path(), &[]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(name), "{error}");
    }
    refused(b"", &["not a zip archive"]);
    refused(b"\x80\x02}q\0.", &["not a zip archive"]);
    refused(&vec![b'P'; (16 << 20) + 1], &["over 16 MiB"]);
    refused(b"PK\x03\x04 and no more", &["not a whole zip archive"]);
    let file = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    refused(&zipped([file("archive/other", b"")]), &["without data.pkl"]);
    refused(&zipped([file("a/data.pkl", b""), file("b/data.pkl", b"")]), &["several data.pkl"]);
    refused(&zipped([file("data.pkl", b"}."), file("byteorder", b"big")]), &["little-endian"]);
    refused(&zipped([file("data.pkl", &vec![b'N'; (1 << 20) + 1])]), &["over 1048576 bytes"]);
    let whole = checkpoint(&made_up(aasist::NETWORK_L));
    for part in [1, 2, 3, 5, 9] {
        refused(&whole[..whole.len() * part / 10], &["not a whole zip archive"]);
    }
    refused(&whole[..whole.len() - 1], &["not a whole zip archive"]);
    // A flipped bit in a storage: the archive's own check sums see it.
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let error = refusal(&flipped);
    assert!(error.contains("data/") || error.contains("zip"), "{error}");
}

#[test]
fn pickles_that_are_no_state_dict_are_refused() {
    let pickle = |pickle: &[u8], words: &[&str]| refused(&archive(pickle, []), words);
    pickle(b"", &["byte 0", "ends too early"]);
    pickle(b"\x80\x02.", &["an empty stack"]);
    pickle(b"\x80\x02N.", &["no dict of tensors"]);
    pickle(b"\x80\x02}.", &["`pos_S` is missing"]);
    pickle(b"}X\xff\xff\xff\xff", &["byte 1", "ends too early"]);
    pickle(b"cposix\nsystem\nX\x02\0\0\0ls\x85R.", &["a call of posix.system"]);
    pickle(b"cmodels.AASIST\nModel\n)\x81.", &["class models.AASIST.Model"]);
    pickle(b"}(K\x01K\x02u.", &["a key that is no text"]);
    pickle(b"}(X\x05\0\0\0epochK\x02u.", &["`epoch` is no tensor"]);
    pickle(b"}(K\x01u.", &["a key without a value"]);
    pickle(b"}h\x07.", &["no object 7 was kept"]);
    pickle(b"\x8a\x09123456789.", &["a number of 9 bytes"]);
    pickle(b"(s.", &["a mark where"]);
    pickle(b"Nu.", &["no mark"]);
    pickle(b"N\x87.", &["an empty stack"]);
    pickle(b"i.", &["operation 0x69"]);
    // As deep as fits, and doubled as often as fits: neither may end the program.
    let deep = [b"N".as_slice(), &vec![0x85; (1 << 20) - 2], b"."].concat();
    pickle(&deep, &["no dict of tensors"]);
    let doubled = [b"N".as_slice(), &b"q\0h\0\x86".repeat(200_000), b"."].concat();
    pickle(&doubled, &["no dict of tensors"]);
}

#[test]
fn tensors_that_are_not_the_networks_are_refused() {
    let spoilt = |network: &str, spoil: &dyn Fn(&mut Vec<Entry>), words: &[&str]| {
        let mut entries = made_up(network);
        spoil(&mut entries);
        refused(&checkpoint(&entries), words);
    };
    let bias = "encoder.2.0.conv1.bias";
    for network in [aasist::NETWORK, aasist::NETWORK_L] {
        let without = |e: &mut Vec<Entry>| e.retain(|e| e.name != bias);
        spoilt(network, &without, &[bias, "is missing"]);
        let more = |e: &mut Vec<Entry>| {
            e.push(Entry { name: "stray".to_owned(), shape: vec![1], values: vec![0.0] });
        };
        spoilt(network, &more, &["`stray` is not part"]);
        let shorter = |e: &mut Vec<Entry>| {
            let e = entry(e, bias);
            e.shape = vec![2, e.values.len() / 2];
        };
        spoilt(network, &shorter, &[bias, "[2, ", "expected ["]);
    }
    for value in [f32::NAN, f32::INFINITY] {
        let spoil = |e: &mut Vec<Entry>| entry(e, "out_layer.weight").values[7] = value;
        spoilt(aasist::NETWORK, &spoil, &["out_layer.weight", "value 7"]);
    }
    let spoil = |e: &mut Vec<Entry>| entry(e, "first_bn.running_var").values[0] = -0.5;
    spoilt(aasist::NETWORK, &spoil, &["first_bn.running_var", "-0.5"]);
    let spoil = |e: &mut Vec<Entry>| {
        let e = entry(e, "pos_S");
        (e.shape, e.values) = (vec![1, 23, 32], vec![0.0; 23 * 32]);
    };
    spoilt(aasist::NETWORK, &spoil, &["pos_S", "[1, 23, 32]", "neither"]);
}

#[test]
fn storages_that_do_not_hold_their_tensors_are_refused() {
    let one = |kind: &str, numel: usize, shape: &[usize], bytes: usize, words: &[&str]| {
        let pickle = state_dict(|pickle| {
            text(pickle, "pos_S");
            tensor(pickle, "k", kind, numel, shape);
        });
        refused(&archive(&pickle, [("k".to_owned(), vec![0; bytes])]), words);
    };
    one("FloatStorage", 6, &[2, 3], 23, &["pos_S", "23 of 24 bytes"]);
    one("FloatStorage", 5, &[2, 3], 20, &["pos_S", "reaches over the end"]);
    one("DoubleStorage", 6, &[2, 3], 48, &["pos_S", "torch.DoubleStorage"]);
    one("FloatStorage", 6, &[1 << 30, 1 << 30, 1 << 30], 24, &["pos_S", "over the limit"]);
    one("FloatStorage", 6, &[1 << 24], 24, &["pos_S", "over the limit"]);
    one("FloatStorage", 6, &[0], 24, &["pos_S", "[0]", "neither"]);
    one("HalfStorage", 6, &[2, 3], 12, &["pos_S", "[2, 3]", "neither"]);
    let pickle = state_dict(|pickle| {
        text(pickle, "pos_S");
        tensor(pickle, "../k", "FloatStorage", 6, &[6]);
    });
    refused(&archive(&pickle, []), &["pos_S", "archive/data/../k"]);
}

/// Whatever stands in the pickle: an answer, never a panic.
#[test]
fn altered_pickles_are_survived() {
    let pickle = state_dict(|pickle| {
        for name in ["pos_S", "master1"] {
            text(pickle, name);
            tensor(pickle, "k", "FloatStorage", 6, &[2, 3]);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let mut random = lcg(5, 12_000);
    for _ in 0..2_000 {
        let mut altered = pickle.clone();
        for _ in 0..1 + random.next().unwrap_or(0) as usize % 2 {
            let (at, to) = (random.next().unwrap_or(0), random.next().unwrap_or(0));
            let at = (at >> 8) as usize % altered.len();
            altered[at] = (to >> 24) as u8;
        }
        let bytes = archive(&altered, [("k".to_owned(), vec![0; 24])]);
        let file = write(folder.path(), "altered.pth", &bytes);
        let to = folder.path().join("weights");
        let error = import(Family::Aasist, &file, &Described::default(), &to, &[]).unwrap_err();
        assert!(error.to_string().contains("altered.pth"), "{error}");
    }
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

/// A mono WAV of 16 bit at 16 kHz.
fn wav(folder: &Path, name: &str, samples: &[i16]) -> PathBuf {
    let bytes = 2 * samples.len() as u32;
    let mut data = [b"RIFF".as_slice(), &(36 + bytes).to_le_bytes(), b"WAVEfmt "].concat();
    data.extend(16u32.to_le_bytes());
    data.extend([1u16, 1].map(u16::to_le_bytes).concat());
    data.extend([16_000u32, 32_000].map(u32::to_le_bytes).concat());
    data.extend([2u16, 16].map(u16::to_le_bytes).concat());
    data.extend([b"data".as_slice(), &bytes.to_le_bytes()].concat());
    data.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    write(folder, name, &data)
}

#[test]
fn the_program_imports_lists_verifies_and_scores() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    // The user's own folder for data: imported weights go there and stand beside the shipped ones.
    let home = [("XDG_DATA_HOME", here)];
    let file = write(here, "A.pth", &checkpoint(&made_up(aasist::NETWORK_L)));
    let file = file.to_str().unwrap();
    let import = ["weights", "import", "--as", "aasist", file];
    let taken = veriscope(&[&import[..], &["--name", "yunet"]].concat(), &home);
    assert_eq!(taken.status.code(), Some(1));
    assert!(stderr(&taken).contains("`yunet` already"), "{}", stderr(&taken));
    for name in ["../x", "", "A", "schema"] {
        let unfit = veriscope(&[&import[..], &["--name", name]].concat(), &home);
        assert_eq!(unfit.status.code(), Some(1), "{name}");
        assert!(stderr(&unfit).contains("the name"), "{}", stderr(&unfit));
    }
    let made = veriscope(&[&import[..], &["--licence", "MIT", "--origin", "here"]].concat(), &home);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stdout(&made).contains("--network aasist-l"), "{}", stdout(&made));
    let again = veriscope(&import, &home);
    assert!(stderr(&again).contains("`aasist-l` already"), "{}", stderr(&again));
    // A second one under another name, with what the first said of itself kept.
    let second = veriscope(&[&import[..], &["--name", "other"]].concat(), &home);
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));

    let list = stdout(&veriscope(&["weights", "list", "--format", "json"], &home));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let of = |name: &str| {
        let found = list.as_array().unwrap().iter().find(|e| e["name"] == name);
        found.unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!(of("aasist-l")["licence"], "MIT");
    assert!(of("aasist-l")["origin"].as_str().unwrap().starts_with("here; A.pth, sha256 "));
    assert_eq!(of("other")["licence"], "not stated");
    assert_eq!(of("other")["calibration"], serde_json::Value::Null);
    assert_eq!(of("yunet")["network"], "yunet");
    let verified = veriscope(&["weights", "verify"], &home);
    assert_eq!(verified.status.code(), Some(0), "{}", stdout(&verified));
    for name in ["aasist-l", "other", "yunet"] {
        let whole = |line: &str| line.split_whitespace().eq([name, "ok"]);
        assert!(stdout(&verified).lines().any(whole), "{}", stdout(&verified));
    }
    let table = stdout(&veriscope(&["weights", "list"], &home));
    assert!(table.contains("veriscope/weights/other.safetensors"), "{table}");

    let golden = Golden::of(aasist::NETWORK_L);
    let want = golden.logits(aasist::NETWORK_L, "made_up");
    let mut paths: Vec<PathBuf> = golden
        .signals()
        .iter()
        .enumerate()
        .map(|(i, samples)| wav(here, &format!("{i}.wav"), samples))
        .collect();
    paths.push(wav(here, "none.wav", &[]));
    paths.push(root().join("demo/label-intact.png"));
    paths.push(here.join("missing.wav"));
    let lines: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let list = write(here, "list.txt", lines.join("\n").as_bytes());
    let score = ["score", "--detector", "voice-clone", "--list", list.to_str().unwrap()];
    let scored = veriscope(&[&score[..], &["--network", "aasist-l"]].concat(), &home);
    assert_eq!(scored.status.code(), Some(1), "a file is missing");
    assert!(stderr(&scored).contains("missing.wav"), "{}", stderr(&scored));
    let text = stdout(&scored);
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|l| l.split('\t').collect()).collect();
    assert_eq!(rows.len(), paths.len(), "{text}");
    for ((row, path), want) in rows.iter().zip(&lines).zip(&want) {
        assert_eq!((row[0], row[2], row[3]), (path.as_str(), "", ""));
        let got: f32 = row[1].parse().unwrap();
        // Minus the logit for bona fide.
        assert!((got + want[1]).abs() <= TOLERANCE, "{row:?}: {want:?}");
    }
    assert_eq!(rows[5][1..3], ["", ""], "{text}");
    assert_eq!(rows[6][1..], ["", "", "no_audio"], "{text}");
    assert_eq!(rows[7][1..], ["", "", "unreadable"], "{text}");

    // Wrong usage.
    for (args, words) in [
        (["--network", "yunet", "--device", "cpu"], "no published voice-clone network"),
        (["--network", "aasist-l", "--device", "cuda:0"], "on the CPU only"),
        (["--network", "aasist-l", "--detector", "face-swap"], ""),
    ] {
        let output = veriscope(&[&score[..], &args].concat(), &home);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    let faces = ["score", "--detector", "face-swap", "--list", score[4], "--network", "other"];
    let faces = veriscope(&faces, &home);
    assert!(stderr(&faces).contains("no published face-swap network"), "{}", stderr(&faces));
    let labels = ["score", "--detector", "label-strip", "--list", score[4], "--network", "other"];
    let labels = veriscope(&labels, &home);
    assert!(stderr(&labels).contains("face-swap or voice-clone only"), "{}", stderr(&labels));
    let unknown = veriscope(&[&score[..], &["--network", "nothing"]].concat(), &home);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("`nothing`"), "{}", stderr(&unknown));

    // An altered file and a lost one are told.
    let file = here.join("veriscope/weights/other.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let verified = veriscope(&["weights", "verify"], &home);
    assert_eq!(verified.status.code(), Some(1));
    assert!(stdout(&verified).contains("altered"), "{}", stdout(&verified));
    let doctor = stdout(&veriscope(&["doctor"], &home));
    assert!(doctor.contains("! other") && doctor.contains("weights import"), "{doctor}");
    fs::remove_file(&file).unwrap();
    let verified = stdout(&veriscope(&["weights", "verify"], &home));
    assert!(verified.contains("veriscope weights import --as aasist"), "{verified}");
    // A folder that was named stands alone.
    let named = here.join("veriscope/weights");
    let named = named.to_str().unwrap();
    let alone = stdout(&veriscope(&["weights", "list", "--weights", named], &home));
    assert!(alone.contains("aasist-l") && !alone.contains("yunet"), "{alone}");
}
