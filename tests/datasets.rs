//! Data sets by manifest, over folders laid out as the published sets are, and `veriscope datasets`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Folder;
use veriscope::bench::dataset::{
    DataSet, DatasetError, Fault, Item, Manifest, MediaKind, Request, Verification, load, verify,
};
use veriscope::digest::sha256;

impl Folder {
    /// Media files; their content is their name.
    fn media(&self, names: &[&str]) -> &Self {
        for name in names {
            self.write(name, name);
        }
        self
    }

    /// A manifest of the folder with all that every manifest needs; what is in `more` stands before
    /// the splits.
    fn manifest(&self, kind: &str, more: &str, splits: &str) -> &Self {
        let text = format!(
            "schema = 1\nname = \"made-up\"\nkind = \"{kind}\"\nsource = \"this test\"\nlicence = \
             \"none needed\"\nconsent = \"nobody is shown\"\n{more}\n[splits]\n{splits}\n"
        );
        self.write("set.toml", &text)
    }

    fn request(&self, split: Option<&str>) -> Request {
        let split = split.map(str::to_owned);
        Request { manifest: self.path("set.toml"), root: None, split }
    }

    fn load(&self, split: Option<&str>) -> DataSet {
        load(&self.request(split)).unwrap_or_else(|e| panic!("{e}"))
    }

    fn refused(&self, split: Option<&str>) -> String {
        load(&self.request(split)).map(|set| set.items.len()).unwrap_err().to_string()
    }

    fn verify(&self, split: Option<&str>) -> Verification {
        verify(&self.request(split)).unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Items as words: file, class, group, generator.
fn words(items: &[Item]) -> Vec<String> {
    items
        .iter()
        .map(|i| {
            format!(
                "{} {} {} {}",
                i.id,
                if i.fake { "fake" } else { "real" },
                i.group.as_deref().unwrap_or("-"),
                i.generator.as_deref().unwrap_or("-")
            )
        })
        .collect()
}

fn faults(found: &Verification) -> Vec<(Fault, &str)> {
    found.findings.iter().map(|f| (f.fault, f.what.as_str())).collect()
}

const INDEX: &str = "layout = \"index\"\nindex = \"index.csv\"";
const ALL_COLUMNS: &str = "[columns]\npath = \"file\"\nlabel = \"truth\"\nsplit = \"part\"\ngroup = \
                           \"person\"\ngenerator = \"system\"\nsha256 = \"sum\"\nperiods = \"when\"";

fn indexed() -> Folder {
    let folder = Folder::new();
    folder.media(&["a/1.wav", "a/2.wav", "b/3.wav", "b/4.wav"]);
    let sum = sha256("b/3.wav");
    folder.write(
        "index.csv",
        &format!(
            "file,truth,part,person,system,sum,when\n\
             a/1.wav,real,dev,ann,,,\n\
             a/2.wav,fake,dev,ann,tts,,0.5-1.5;3-4\n\
             \"b/3.wav\",fake,test,bob,vc,{},\n\
             b/4.wav,bonafide,test,bob,,,\n",
            sum.to_uppercase()
        ),
    );
    folder.manifest("audio", INDEX, "dev = \"for thresholds\"\ntest = \"for figures\"");
    folder.write("set.toml", &(fs::read_to_string(folder.path("set.toml")).unwrap() + ALL_COLUMNS));
    folder
}

#[test]
fn an_index_gives_its_items_by_split() {
    let folder = indexed();
    let dev = folder.load(Some("dev"));
    assert_eq!(words(&dev.items), ["a/1.wav real ann -", "a/2.wav fake ann tts"]);
    assert_eq!(dev.items[0].fake_periods, Some(vec![]));
    assert_eq!(dev.items[1].fake_periods, Some(vec![[0.5, 1.5], [3.0, 4.0]]));
    assert_eq!((dev.kind, dev.split.as_deref()), (MediaKind::Audio, Some("dev")));
    let manifest = fs::read(folder.path("set.toml")).unwrap();
    assert_eq!(dev.manifest_sha256, sha256(manifest));
    let test = folder.load(Some("test"));
    assert_eq!(words(&test.items), ["b/3.wav fake bob vc", "b/4.wav real bob -"]);
    // A fake of which it is not known when it is forged.
    assert_eq!(test.items[0].fake_periods, None);
    assert_eq!(fs::read_to_string(&test.items[0].path).unwrap(), "b/3.wav");
    assert_eq!(folder.load(None).items.len(), 4);
    assert!(folder.verify(None).whole());
    assert_eq!(folder.verify(None).compared, 1);
}

#[test]
fn what_a_manifest_lacks_is_named() {
    let folder = indexed();
    let whole = fs::read_to_string(folder.path("set.toml")).unwrap();
    for field in ["schema", "name", "kind", "source", "licence", "consent", "layout", "index"] {
        let without: String = whole
            .lines()
            .filter(|line| !line.starts_with(&format!("{field} =")))
            .map(|line| format!("{line}\n"))
            .collect();
        folder.write("set.toml", &without);
        let said = folder.refused(None);
        assert!(said.ends_with(&format!("set.toml: `{field}`: is missing")), "{said}");
    }
    let cases = [
        ("licence = \"none needed\"", "licence = \" \"", "set.toml:5: `licence`: is empty"),
        ("kind = \"audio\"", "kind = \"films\"", "set.toml:3: `kind`: 'films'; video, audio or"),
        ("layout = \"index\"", "layout = \"x\"", "`index`: has no meaning with layout 'x'"),
        ("schema = 1", "schema = 2", "set.toml:1: `schema`: 2, expected is 1"),
        ("name = \"made-up\"", "name = \"../x\"", "`name`: '../x' is no name"),
        ("consent =", "konsent =", "set.toml:6: unknown field `konsent`"),
        ("path = \"file\"", "path = 7", "set.toml:13: invalid type: integer `7`"),
        ("split = \"part\"", "", "`columns`: `split` is missing: several splits need a column"),
        (
            "dev = \"for thresholds\"\ntest = \"for figures\"",
            "",
            "`splits`: is missing: at least one",
        ),
        ("index = \"index.csv\"", "index = \"../i.csv\"", "`index`: holds '..': paths stay inside"),
        (
            "index = \"index.csv\"",
            "index = \"i.csv\"",
            "the index is not there: looked for i.csv in",
        ),
        (
            "path = \"file\"",
            "path = \"f\"",
            "index.csv:1: `columns`: no column 'f'; there are file,",
        ),
    ];
    for (old, new, expected) in cases {
        assert!(whole.contains(old), "{old}");
        folder.write("set.toml", &whole.replace(old, new));
        let said = folder.refused(None);
        assert!(said.contains(expected), "{new}: {said}");
    }
    folder.write("set.toml", &whole);
    assert!(
        folder.refused(Some("train")).contains("`splits`: no split 'train'; there are dev, test")
    );
    folder.write("set.toml", &format!("#{}\n{whole}", "x".repeat(1 << 20)));
    assert!(folder.refused(None).contains("more than 1048576 bytes"));
}

#[test]
fn wrong_rows_of_an_index_are_named_with_their_line() {
    let folder = indexed();
    let whole = fs::read_to_string(folder.path("index.csv")).unwrap();
    let cases = [
        ("a/1.wav,real", "a/1.wav,maybe", "index.csv:2: `truth`: unknown label 'maybe'"),
        ("a/1.wav,real", "../1.wav,real", "index.csv:2: `file`: '../1.wav' holds '..'"),
        ("a/1.wav,real", "/etc/passwd,real", "index.csv:2: `file`: '/etc/passwd' is an absolute"),
        ("a/1.wav,real", "a\\1.wav,real", "'a\\1.wav' holds a backslash"),
        ("a/1.wav,real", ",real", "index.csv:2: `file`: '' is no path"),
        ("a/1.wav,real,dev", "a/1.wav,real,train", "index.csv:2: `part`: split 'train' is not in"),
        ("a/1.wav,real", "a/2.wav,real", "index.csv:3: 'a/2.wav' is listed twice (line 2)"),
        (
            "a/1.wav",
            "b/4.wav",
            "index.csv:5: 'b/4.wav' is in split 'test' and in split 'dev' (line 2)",
        ),
        ("0.5-1.5", "1.5-0.5", "index.csv:3: `when`: no stretch of time from 1.5 to 0.5 s"),
        ("0.5-1.5", "soon", "index.csv:3: `when`: 'soon;3-4' is no list of start-end"),
        ("ann,,,\n", "ann,,,1-2\n", "index.csv:2: `when`: a real file with forged stretches"),
        ("ann,,,\n", "ann,,12,\n", "index.csv:2: `sum`: '12' is no SHA-256"),
        ("ann,,,\n", "ann,,,,\n", "index.csv:2: 8 columns, 7 expected"),
        ("\"b/3.wav\"", "\"b/3.wav", "index.csv:4: a quote is not closed"),
    ];
    for (old, new, expected) in cases {
        assert!(whole.contains(old), "{old}");
        folder.write("index.csv", &whole.replace(old, new));
        let said = folder.refused(None);
        assert!(said.contains(expected), "{new}: {said}");
    }
    // Where the root has none, the index beside the manifest is taken.
    let media = Folder::new();
    media.media(&["a/1.wav", "a/2.wav", "b/3.wav", "b/4.wav"]);
    let request = Request { root: Some(media.path("")), ..folder.request(None) };
    folder.write("index.csv", &whole);
    assert_eq!(load(&request).unwrap().items.len(), 4);
    folder.write("index.csv", whole.lines().next().unwrap());
    assert!(folder.refused(None).contains("no items under"));
    folder.write("index.csv", &whole);
    for file in ["a/1.wav", "a/2.wav", "b/3.wav", "b/4.wav"] {
        fs::remove_file(folder.path(file)).unwrap();
    }
    assert!(folder.refused(None).contains("none of the 4 files is there, the first is 'a/1.wav'"));
}

#[test]
fn what_is_missing_altered_or_leaking_is_found() {
    let folder = indexed();
    fs::remove_file(folder.path("a/1.wav")).unwrap();
    folder.write("b/3.wav", "b/3.waV").write("b/4.wav", "").write("b/5.wav", "x");
    folder.media(&["c.wav"]);
    let index = fs::read_to_string(folder.path("index.csv")).unwrap()
        + "a/2.wav,fake,dev,ann,tts,,\nb/4.wav,real,dev,bob,,,\n";
    folder.write("index.csv", &index);
    let found = folder.verify(None);
    assert_eq!(
        faults(&found),
        [
            (Fault::ListedTwice, "a/2.wav"),
            (Fault::InTwoSplits, "b/4.wav"),
            (Fault::GroupInTwoSplits, "bob"),
            (Fault::Missing, "a/1.wav"),
            (Fault::Altered, "b/3.wav"),
            (Fault::Empty, "b/4.wav"),
        ]
    );
    assert_eq!(found.findings[0].detail, "index.csv:3 and index.csv:6");
    assert_eq!(found.findings[2].detail, "is in test (2 files) and dev (1 files)");
    assert_eq!((found.listed, found.real, found.fake, found.extra), (4, 2, 2, Some(2)));
    // One split: the other's files are not looked at, the lists are.
    let dev = folder.verify(Some("dev"));
    assert_eq!(
        dev.counts.iter().map(|(fault, _)| *fault).collect::<Vec<_>>(),
        [
            Fault::Missing,
            Fault::Empty,
            Fault::ListedTwice,
            Fault::InTwoSplits,
            Fault::GroupInTwoSplits
        ]
    );
    // Missing files stay items: whoever runs a detector counts them.
    folder.write("index.csv", &index.lines().take(5).map(|l| format!("{l}\n")).collect::<String>());
    assert_eq!(folder.load(Some("dev")).items.len(), 2);
    // A reason for an overlap makes it no fault.
    let manifest = fs::read_to_string(folder.path("set.toml")).unwrap();
    let reason = "overlap = \"made so\"\nlayout";
    folder.write("set.toml", &manifest.replacen("layout", reason, 1));
    folder.write("index.csv", &index.replace("a/1.wav,real,dev,ann", "a/1.wav,real,dev,bob"));
    assert_eq!(folder.verify(None).overlapping, 1);
    assert!(!faults(&folder.verify(None)).contains(&(Fault::GroupInTwoSplits, "bob")));
}

#[cfg(unix)]
#[test]
fn links_that_leave_the_root_are_refused() {
    use std::os::unix::fs::symlink;
    let folder = indexed();
    let outside = Folder::new();
    outside.media(&["secret.wav", "deep/4.wav"]);
    fs::remove_file(folder.path("a/1.wav")).unwrap();
    symlink(outside.path("secret.wav"), folder.path("a/1.wav")).unwrap();
    assert!(
        folder
            .refused(Some("dev"))
            .contains("index.csv:2: 'a/1.wav' is a link that leaves the root")
    );
    assert_eq!(faults(&folder.verify(None)), [(Fault::OutsideRoot, "a/1.wav")]);
    // A folder that is a link, too; and one that stays inside may be used.
    fs::remove_file(folder.path("a/1.wav")).unwrap();
    symlink(folder.path("a/2.wav"), folder.path("a/1.wav")).unwrap();
    assert_eq!(folder.load(None).items.len(), 4);
    fs::remove_dir_all(folder.path("b")).unwrap();
    symlink(outside.path("deep"), folder.path("b")).unwrap();
    assert!(folder.refused(None).contains("'b/3.wav' is a link that leaves the root"));
    // Opening a pipe would wait for ever.
    fs::remove_file(folder.path("a/1.wav")).unwrap();
    fs::remove_file(folder.path("b")).unwrap();
    let made = Command::new("mkfifo").arg(folder.path("a/1.wav")).status().unwrap();
    assert!(made.success());
    assert!(faults(&folder.verify(Some("dev"))).contains(&(Fault::NotAFile, "a/1.wav")));
}

fn faceforensics() -> Folder {
    let folder = Folder::new();
    let mut files = Vec::new();
    for c in ["c23", "c40"] {
        for id in ["000", "003", "953", "974"] {
            files.push(format!("original_sequences/youtube/{c}/videos/{id}.mp4"));
        }
        for method in ["Deepfakes", "FaceSwap", "DeepFakeDetection"] {
            for pair in ["000_003", "003_000", "953_974", "974_953"] {
                files.push(format!("manipulated_sequences/{method}/{c}/videos/{pair}.mp4"));
            }
        }
    }
    folder.media(&files.iter().map(String::as_str).collect::<Vec<_>>());
    folder.write("splits/test.json", "[[\"953\", \"974\"]]");
    folder.write("splits/train.json", "[[\"000\", \"003\"]]");
    let layout = "layout = \"faceforensics\"\ncompression = \"c23\"";
    folder.manifest("video", layout, "train = \"\"\ntest = \"\"");
    folder
}

#[test]
fn faceforensics_by_pairs_and_one_compression() {
    let folder = faceforensics();
    assert_eq!(
        words(&folder.load(Some("test")).items),
        [
            "original_sequences/youtube/c23/videos/953.mp4 real 953_974 -",
            "original_sequences/youtube/c23/videos/974.mp4 real 953_974 -",
            "manipulated_sequences/Deepfakes/c23/videos/953_974.mp4 fake 953_974 Deepfakes",
            "manipulated_sequences/Deepfakes/c23/videos/974_953.mp4 fake 953_974 Deepfakes",
            "manipulated_sequences/FaceSwap/c23/videos/953_974.mp4 fake 953_974 FaceSwap",
            "manipulated_sequences/FaceSwap/c23/videos/974_953.mp4 fake 953_974 FaceSwap",
        ]
    );
    let all = folder.verify(None);
    assert!(all.whole(), "{:?}", all.findings);
    // All of c40 and the other set: 4 originals, 8 fakes, 4 and 4.
    assert_eq!((all.listed, all.extra), (12, Some(20)));
    // Lists in the root, as DeepfakeBench has them; a method alone.
    fs::rename(folder.path("splits/test.json"), folder.path("test.json")).unwrap();
    let layout = "layout = \"faceforensics\"\ncompression = \"c40\"\nmethods = [\"FaceSwap\"]";
    folder.manifest("video", layout, "test = \"\"");
    let items = folder.load(None).items;
    assert!(items.iter().all(|i| i.id.contains("/c40/")) && items.len() == 4, "{items:?}");

    // A pair in both splits is a leak, whichever of the two comes first.
    folder.write("splits/train.json", "[[\"974\", \"953\"]]");
    folder.manifest("video", layout, "train = \"\"\ntest = \"\"");
    let said = folder.refused(None);
    assert!(said.contains("test.json") || said.contains("train.json"), "{said}");
    assert!(faults(&folder.verify(None)).contains(&(Fault::GroupInTwoSplits, "953_974")));

    folder.write("splits/train.json", "[[\"974\", \"../../x\"]]");
    assert!(folder.refused(None).contains("train.json: '../../x' is no number of a video"));
    folder.write("splits/train.json", "[[\"974\"]]");
    assert!(folder.refused(None).contains("train.json:1: is no list of pairs of numbers"));
    fs::remove_file(folder.path("splits/train.json")).unwrap();
    assert!(folder.refused(None).contains("looked for splits/train.json, train.json in"));
    folder.manifest("video", &layout.replace("c40", "c41"), "test = \"\"");
    assert!(folder.refused(None).contains("`compression`: 'c41'; c23, c40, raw or c0"));
    folder.manifest("video", "layout = \"faceforensics\"", "test = \"\"");
    assert!(folder.refused(None).contains("`compression`: is missing"));
    folder.manifest("audio", layout, "test = \"\"");
    assert!(folder.refused(None).contains("layout 'faceforensics' holds no audio"));
    folder.manifest("video", layout, "dev = \"\"");
    assert!(folder.refused(None).contains("has no split 'dev'; it has train, val, test"));
    folder.manifest("video", "layout = \"faceforensics\"\ncompression = \"raw\"", "test = \"\"");
    assert!(folder.refused(None).contains("the folder of originals of raw is not there"));
}

fn celeb_df() -> Folder {
    let folder = Folder::new();
    folder.media(&[
        "Celeb-real/id0_0000.mp4",
        "Celeb-real/id1_0003.mp4",
        "YouTube-real/00170.mp4",
        "YouTube-real/00171.mp4",
        "Celeb-synthesis/id0_id16_0009.mp4",
        "Celeb-synthesis/id2_id3_0001.mp4",
        "Celeb-synthesis/readme.txt",
    ]);
    folder.write(
        "List_of_testing_videos.txt",
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id0_id16_0009.mp4\n1 Celeb-real/id1_0003.mp4\n",
    );
    folder.manifest("video", "layout = \"celeb-df\"", "train = \"\"\ntest = \"\"");
    folder
}

#[test]
fn celeb_df_calls_the_real_ones_one() {
    let folder = celeb_df();
    assert_eq!(
        words(&folder.load(Some("test")).items),
        [
            "YouTube-real/00170.mp4 real YouTube-00170 -",
            "Celeb-synthesis/id0_id16_0009.mp4 fake id0 Celeb-synthesis",
            "Celeb-real/id1_0003.mp4 real id1 -",
        ]
    );
    assert_eq!(
        words(&folder.load(Some("train")).items),
        [
            "Celeb-real/id0_0000.mp4 real id0 -",
            "YouTube-real/00171.mp4 real YouTube-00171 -",
            "Celeb-synthesis/id2_id3_0001.mp4 fake id2 Celeb-synthesis",
        ]
    );
    // Person id0 is in both, as in the set itself.
    let found = folder.verify(None);
    assert_eq!(faults(&found), [(Fault::GroupInTwoSplits, "id0")]);
    assert_eq!((found.listed, found.extra), (6, Some(1)));

    let list = "List_of_testing_videos.txt";
    folder.write(list, "0 YouTube-real/00170.mp4\n");
    assert!(folder.refused(None).contains(
        "List_of_testing_videos.txt:1: 'YouTube-real/00170.mp4' is labelled 0, and lies in YouTube-real"
    ));
    for (line, expected) in [
        ("YouTube-real/00170.mp4", "is not '1 FOLDER/FILE' or '0 FOLDER/FILE'"),
        ("2 YouTube-real/00170.mp4", "is not '1 FOLDER/FILE'"),
        ("1 ../x.mp4", "is no .mp4 in one of the set's folders"),
        ("1 YouTube-real/a/../../../x.mp4", "holds '..'"),
    ] {
        folder.write(list, &format!("{line}\n"));
        assert!(folder.refused(Some("test")).contains(expected), "{line}");
    }
    fs::remove_file(folder.path(list)).unwrap();
    assert!(folder.refused(None).contains("the list of test videos is not there"));
    // One folder further down.
    let deeper = Folder::new();
    deeper.media(&["Celeb-real/videos/id0_0000.mp4", "Celeb-synthesis/videos/id0_id1_0000.mp4"]);
    deeper.media(&["YouTube-real/videos/00000.mp4"]);
    deeper.write(list, "1 Celeb-real/id0_0000.mp4\n0 Celeb-synthesis/id0_id1_0000.mp4\n");
    deeper.manifest("video", "layout = \"celeb-df\"", "train = \"\"\ntest = \"\"");
    assert_eq!(deeper.load(Some("train")).items[0].id, "YouTube-real/videos/00000.mp4");
    assert_eq!(deeper.load(Some("test")).items[1].id, "Celeb-synthesis/videos/id0_id1_0000.mp4");
}

#[test]
fn dfdc_by_parts_and_its_test_set() {
    let folder = Folder::new();
    folder.media(&["train/dfdc_train_part_0/a.mp4", "train/dfdc_train_part_0/b.mp4"]);
    folder.media(&["train/dfdc_train_part_1/c.mp4", "test/x.mp4", "test/y.mp4"]);
    folder.write(
        "train/dfdc_train_part_0/metadata.json",
        r#"{"b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"},
            "a.mp4": {"label": "REAL", "split": "train", "original": null}}"#,
    );
    folder.write("train/dfdc_train_part_1/metadata.json", r#"{"c.mp4": {"label": "REAL"}}"#);
    folder.write("test/labels.csv", "filename,label\nx.mp4,1\ny.mp4,0\n");
    folder.manifest("video", "layout = \"dfdc\"", "train = \"\"\ntest = \"\"");
    assert_eq!(
        words(&folder.load(Some("train")).items),
        [
            "train/dfdc_train_part_0/a.mp4 real a -",
            "train/dfdc_train_part_0/b.mp4 fake a -",
            "train/dfdc_train_part_1/c.mp4 real c -",
        ]
    );
    assert_eq!(
        words(&folder.load(Some("test")).items),
        ["test/x.mp4 fake - -", "test/y.mp4 real - -"]
    );
    assert!(folder.verify(None).whole());
    assert_eq!(folder.verify(None).extra, Some(0));

    folder.write("test/labels.csv", "filename,label\nx.mp4,FAKE\n");
    assert!(folder.refused(None).contains("labels.csv:2: label 'FAKE'; 1 (fake) or 0 is expected"));
    folder.write("test/labels.csv", "name,label\nx.mp4,1\n");
    assert!(folder.refused(None).contains("labels.csv:1: no column 'filename'"));
    let part = "train/dfdc_train_part_1/metadata.json";
    for (text, expected) in [
        (r#"{"c.mp4": {"label": "fake"}}"#, "'c.mp4' has label 'fake'; FAKE or REAL is expected"),
        (r#"{"c.mp4": {}}"#, "'c.mp4' has no label"),
        (r#"{"c.mp4": {"label": "REAL", "split": "test"}}"#, "'c.mp4' is in split 'test'"),
        (r#"{"a/../../../c.mp4": {"label": "REAL"}}"#, "holds '..'"),
        ("{\n[]}", "metadata.json:2: is no DFDC metadata"),
    ] {
        folder.write(part, text);
        let said = folder.refused(Some("train"));
        assert!(said.contains(expected), "{text}: {said}");
    }
    fs::remove_dir_all(folder.path("train")).unwrap();
    assert!(folder.refused(Some("train")).contains("no folder with a metadata.json under"));
}

#[test]
fn av_deepfake1m_with_its_forged_stretches() {
    let folder = Folder::new();
    let video = |n: &str| format!("id00012/21Uxsk56VDQ/00001/{n}.mp4");
    let (real, both, sound) = (video("real"), video("fake_video_fake_audio"), video("x"));
    for file in [&real, &both, &sound] {
        folder.media(&[&format!("val/{file}")]);
    }
    let metadata = format!(
        r#"[{{"file": "{real}", "original": null, "split": "val", "modify_type": "real",
              "fake_segments": [], "audio_model": "yourtts", "video_frames": 100}},
            {{"file": "{both}", "split": "val", "modify_type": "both_modified",
              "fake_segments": [[0.5, 1.25], [2.0, 2.5]]}},
            {{"file": "{sound}", "fake_periods": [[1.0, 2.0]]}}]"#
    );
    folder.write("val_metadata.json", &metadata);
    folder.manifest("video", "layout = \"av-deepfake1m\"", "val = \"\"");
    let items = folder.load(None).items;
    assert_eq!(
        words(&items),
        [
            format!("val/{real} real id00012 -"),
            format!("val/{both} fake id00012 both_modified"),
            format!("val/{sound} fake id00012 -"),
        ]
    );
    let periods: Vec<_> = items.into_iter().map(|i| i.fake_periods.unwrap()).collect();
    assert_eq!(periods, [vec![], vec![[0.5, 1.25], [2.0, 2.5]], vec![[1.0, 2.0]]]);
    for (old, new, expected) in [
        ("[]", "[[1, 2]]", "is real, and has forged stretches"),
        ("both_modified", "some", "modify_type 'some'; real,"),
        ("[0.5, 1.25]", "[1.5, 1.25]", "no stretch of time from 1.5 to 1.25 s"),
        ("\"split\": \"val\"", "\"split\": \"train\"", "is in split 'train'; 'val' is expected"),
        ("id00012/", "../", "'val/../21Uxsk56VDQ"),
        ("\"file\"", "\"fil\"", "val_metadata.json:2: is no metadata of the set: missing field"),
    ] {
        folder.write("val_metadata.json", &metadata.replace(old, new));
        let said = folder.refused(None);
        assert!(said.contains("val_metadata.json") && said.contains(expected), "{new}: {said}");
    }
}

#[test]
fn lav_df_with_its_forged_stretches() {
    let folder = Folder::new();
    folder.media(&["test/000001.mp4", "test/000002.mp4", "train/000009.mp4"]);
    let metadata = r#"[
        {"file": "test/000001.mp4", "n_fakes": 0, "fake_periods": [], "duration": 5.1, "original": null,
         "modify_video": false, "modify_audio": false, "split": "test", "video_frames": 128},
        {"file": "test/000002.mp4", "n_fakes": 1, "fake_periods": [[1.25, 2.5]], "split": "test",
         "original": "test/000001.mp4", "modify_video": true, "modify_audio": false},
        {"file": "train/000009.mp4", "fake_periods": [[0, 0.5], [3.0, 3.25]], "split": "train",
         "original": "train/000007.mp4", "modify_video": true, "modify_audio": true}]"#;
    folder.write("metadata.min.json", metadata);
    folder.manifest("video", "layout = \"lav-df\"", "train = \"\"\ntest = \"\"");
    let items = folder.load(None).items;
    assert_eq!(
        words(&items),
        [
            "test/000001.mp4 real test/000001.mp4 -",
            "test/000002.mp4 fake test/000001.mp4 visual_modified",
            "train/000009.mp4 fake train/000007.mp4 both_modified",
        ]
    );
    let periods: Vec<_> = items.into_iter().map(|i| i.fake_periods.unwrap()).collect();
    assert_eq!(periods, [vec![], vec![[1.25, 2.5]], vec![[0.0, 0.5], [3.0, 3.25]]]);
    let all = folder.verify(None);
    assert!(all.whole() && all.extra == Some(0), "{:?}", all.findings);
    // Rows of a split that the manifest does not name are no part of the set.
    folder.manifest("video", "layout = \"lav-df\"", "test = \"\"");
    assert_eq!(folder.load(None).items.len(), 2);
    for (old, new, expected) in [
        ("\"split\": \"train\"", "\"split\": \"val\"", "is in split 'val'; train, dev or test"),
        ("[]", "[[1, 2]]", "'test/000001.mp4': is not modified, and has forged stretches"),
        ("[1.25, 2.5]", "[2.5, 1.25]", "no stretch of time from 2.5 to 1.25 s"),
        ("\"file\": \"test/000002", "\"file\": \"../000002", "'../000002.mp4'"),
        ("\"modify_video\": true, ", "", "is no metadata of the set: missing field `modify_video`"),
    ] {
        folder.write("metadata.min.json", &metadata.replace(old, new));
        let said = folder.refused(None);
        assert!(said.contains("metadata.min.json") && said.contains(expected), "{new}: {said}");
    }
    fs::remove_file(folder.path("metadata.min.json")).unwrap();
    folder.write("metadata.json", metadata);
    assert_eq!(folder.load(None).items.len(), 2);
    folder.manifest("video", "layout = \"lav-df\"", "val = \"\"");
    assert!(folder.refused(None).contains("has no split 'val'; it has train, dev, test"));
}

#[test]
fn deep_fake_detection_by_actors() {
    let folder = Folder::new();
    let (real, fake) = (
        "original_sequences/actors/c23/videos",
        "manipulated_sequences/DeepFakeDetection/c23/videos",
    );
    folder.media(&[
        &format!("{real}/01__hugging_happy.mp4"),
        &format!("{real}/02__kitchen_pan.mp4"),
        &format!("{fake}/01_02__hugging_happy__YVGY8LOK.mp4"),
        &format!("{fake}/02_01__kitchen_pan__9TDCEK1Q.mp4"),
        "original_sequences/actors/c40/videos/01__hugging_happy.mp4",
    ]);
    let layout = "layout = \"deepfakedetection\"\ncompression = \"c23\"";
    folder.manifest("video", layout, "all = \"\"");
    assert_eq!(
        words(&folder.load(Some("all")).items),
        [
            format!("{real}/01__hugging_happy.mp4 real 01 -"),
            format!("{real}/02__kitchen_pan.mp4 real 02 -"),
            format!("{fake}/01_02__hugging_happy__YVGY8LOK.mp4 fake 01 DeepFakeDetection"),
            format!("{fake}/02_01__kitchen_pan__9TDCEK1Q.mp4 fake 02 DeepFakeDetection"),
        ]
    );
    assert!(folder.verify(None).whole());
    folder.manifest("video", layout, "train = \"\"\ntest = \"\"");
    assert!(folder.refused(None).contains("the set has no splits of its own: one is expected"));
    folder.manifest("video", "layout = \"deepfakedetection\"", "all = \"\"");
    assert!(folder.refused(None).contains("`compression`: is missing"));
    folder.manifest("video", layout, "all = \"\"");
    for name in ["000_003.mp4", "01__hugging_happy.mp4", "a_b__x__y.mp4"] {
        folder.media(&[&format!("{fake}/{name}")]);
        let said = folder.refused(None);
        assert!(
            said.contains(&format!("'{name}' is not named as AA_BB__SCENE__XXXXXXXX")),
            "{said}"
        );
        fs::remove_file(folder.path(&format!("{fake}/{name}"))).unwrap();
    }
}

#[test]
fn asvspoof_of_all_editions() {
    let folder = Folder::new();
    let protocols = "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm";
    folder.write(
        &format!("{protocols}.dev.trl.txt"),
        "LA_0069 LA_D_1 - - bonafide\nLA_0069 LA_D_2 - A01 spoof\n",
    );
    folder.write(&format!("{protocols}.eval.trl.txt"), "LA_0001 LA_E_1 - A07 spoof\n");
    folder.media(&["LA/ASVspoof2019_LA_dev/flac/LA_D_1.flac"]);
    folder.media(&["LA/ASVspoof2019_LA_dev/flac/LA_D_2.flac"]);
    folder.media(&["LA/ASVspoof2019_LA_eval/flac/LA_E_1.flac"]);
    let edition = |name: &str| format!("layout = \"asvspoof\"\nedition = \"{name}\"");
    folder.manifest("audio", &edition("2019-la"), "dev = \"\"\neval = \"\"");
    assert_eq!(
        words(&folder.load(Some("dev")).items),
        [
            "LA/ASVspoof2019_LA_dev/flac/LA_D_1.flac real LA_0069 -",
            "LA/ASVspoof2019_LA_dev/flac/LA_D_2.flac fake LA_0069 A01",
        ]
    );
    assert!(folder.verify(None).whole());
    folder.write(&format!("{protocols}.eval.trl.txt"), "LA_0069 LA_E_1 - A07 spoof\n");
    assert_eq!(faults(&folder.verify(None)), [(Fault::GroupInTwoSplits, "LA_0069")]);
    folder.write(&format!("{protocols}.eval.trl.txt"), "LA_0069 LA_E_1 - A07\n");
    assert!(folder.refused(None).contains("LA.cm.eval.trl.txt:1: 4 columns, 5 expected"));
    folder.write(&format!("{protocols}.eval.trl.txt"), "LA_0069 LA_E_1 - A07 fake\n");
    assert!(folder.refused(None).contains("eval.trl.txt:1: unknown label 'fake'"));
    folder.write(&format!("{protocols}.eval.trl.txt"), "LA_0069 ../E_1 - A07 spoof\n");
    assert!(folder.refused(None).contains("eval.trl.txt:1: "));

    let folder = Folder::new();
    folder.write(
        "keys/LA/CM/trial_metadata.txt",
        "LA_0009 LA_E_9 alaw ita_tx A07 spoof notrim eval\n\
         LA_0007 LA_E_8 none none bonafide bonafide notrim progress\n",
    );
    folder.media(&["ASVspoof2021_LA_eval/flac/LA_E_9.flac"]);
    folder.manifest("audio", &edition("2021-la"), "eval = \"\"");
    assert_eq!(
        words(&folder.load(None).items),
        ["ASVspoof2021_LA_eval/flac/LA_E_9.flac fake LA_0009 A07"]
    );

    let folder = Folder::new();
    folder.write(
        "PA-keys-full/keys/PA/CM/trial_metadata.txt",
        "PA_0010 PA_E_1 R1 M3 d3 r1 m1 s4 c4 spoof notrim eval\n\
         PA_0011 PA_E_2 R1 M3 d2 - - - - bonafide notrim eval\n",
    );
    folder.media(&["ASVspoof2021_PA_eval/flac/PA_E_1.flac"]);
    folder.manifest("audio", &edition("2021-pa"), "eval = \"\"");
    assert_eq!(
        words(&folder.load(None).items),
        [
            "ASVspoof2021_PA_eval/flac/PA_E_1.flac fake PA_0010 -",
            "ASVspoof2021_PA_eval/flac/PA_E_2.flac real PA_0011 -",
        ]
    );

    // Replays: the third column names the room, the fourth who recorded and how.
    let folder = Folder::new();
    folder.write(
        "ASVspoof2019_PA_cm_protocols/ASVspoof2019.PA.cm.train.trn.txt",
        "PA_0079 PA_T_1 aaa - bonafide\nPA_0079 PA_T_2 aac BA spoof\n",
    );
    folder.media(&["ASVspoof2019_PA_train/flac/PA_T_1.flac"]);
    folder.manifest("audio", &edition("2019-pa"), "train = \"\"");
    assert_eq!(
        words(&folder.load(None).items),
        [
            "ASVspoof2019_PA_train/flac/PA_T_1.flac real PA_0079 -",
            "ASVspoof2019_PA_train/flac/PA_T_2.flac fake PA_0079 BA",
        ]
    );

    let folder = Folder::new();
    folder.write(
        "DF-keys-full/keys/DF/CM/trial_metadata.txt",
        "LA_0023 DF_E_1 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n\
         LA_0024 DF_E_2 nocodec asvspoof - bonafide notrim progress bonafide - - - -\n",
    );
    folder.media(&["wav/DF_E_1.flac", "wav/DF_E_2.flac"]);
    let own = edition("2021-df") + "\naudio = \"wav\"";
    folder.manifest("audio", &own, "progress = \"\"\neval = \"\"");
    assert_eq!(
        words(&folder.load(Some("progress")).items),
        ["wav/DF_E_1.flac fake LA_0023 A14", "wav/DF_E_2.flac real LA_0024 -"]
    );
    assert!(folder.refused(Some("eval")).contains("no items in split 'eval'"));

    let folder = Folder::new();
    folder.write(
        "ASVspoof5_protocols/ASVspoof5.dev.track_1.tsv",
        "D_0062 D_0000000001 F - - - AC3 A11 spoof -\n\
         D_0755 D_0000000022 F - - - - bonafide bonafide -\n",
    );
    folder.media(&["flac_D/D_0000000001.flac", "flac_D/D_0000000022.flac"]);
    folder.manifest("audio", &edition("5"), "dev = \"\"");
    assert_eq!(
        words(&folder.load(None).items),
        ["flac_D/D_0000000001.flac fake D_0062 A11", "flac_D/D_0000000022.flac real D_0755 -"]
    );
    folder.manifest("audio", &edition("5"), "dev = \"\"\ntrain = \"\"");
    assert!(folder.refused(None).contains("looked for ASVspoof5.train.tsv, ASVspoof5_protocols/"));
    folder.manifest("audio", "layout = \"asvspoof\"", "dev = \"\"");
    assert!(folder.refused(None).contains("`edition`: is missing"));
}

#[test]
fn every_manifest_in_the_repository_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let mut layouts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Suites' folder, and indexes that lie beside their manifests.
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let manifest = Manifest::read(&path).unwrap_or_else(|e: DatasetError| panic!("{e}"));
        assert_eq!(path.file_stem().unwrap().to_str().unwrap(), manifest.name);
        layouts.push(manifest.layout.name());
    }
    layouts.sort_unstable();
    layouts.dedup();
    assert_eq!(
        layouts,
        [
            "archives",
            "asvspoof",
            "av-deepfake1m",
            "celeb-df",
            "deepfakedetection",
            "dfdc",
            "faceforensics",
            "index",
            "lav-df"
        ]
    );
}

fn veriscope(words: &[&str], folder: &Folder) -> (i32, String, String) {
    let output =
        Command::new(common::PROGRAM).args(words).current_dir(folder.0.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_commands_and_their_exit_codes() {
    let folder = indexed();
    let verify = ["datasets", "verify", "set.toml"];
    let (code, out, _) = veriscope(&verify, &folder);
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "made-up: 4 files listed (2 real, 2 fake), 1 compared by SHA-256, 0 files that nothing \
             lists\nnothing is wrong\n"
        )
    );
    fs::remove_file(folder.path("a/1.wav")).unwrap();
    let (code, out, _) = veriscope(&verify, &folder);
    assert!(code == 1 && out.starts_with("missing  a/1.wav  is not there\n"), "{out}");
    assert!(out.ends_with("\n1 missing\n"), "{out}");
    let (code, out, _) = veriscope(&[&verify[..], &["--format", "jsonl"]].concat(), &folder);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["findings"][0]["fault"]), (1, &"missing".into()));
    let (code, _, _) = veriscope(&[&verify[..], &["--split", "test"]].concat(), &folder);
    assert_eq!(code, 0);
    let (code, out, err) = veriscope(&[&verify[..], &["--split", "train"]].concat(), &folder);
    assert!(code == 2 && out.is_empty() && err.contains("no split 'train'"), "{err}");
    let (code, _, err) = veriscope(&[&verify[..], &["--root", "nowhere"]].concat(), &folder);
    assert!(code == 1 && err.contains("nowhere: No such file"), "{err}");

    // Archives that scripts read: their content is compared, nothing can be run over them.
    let sum = sha256("shard.tar");
    let files = format!("[[files]]\nname = \"shard.tar\"\nsha256 = \"{sum}\"");
    let archives = Folder::new();
    archives.media(&["shard.tar"]);
    archives.manifest("picture", "layout = \"archives\"", &format!("train = \"all\"\n{files}"));
    assert_eq!(veriscope(&verify, &archives).0, 0);
    assert!(
        archives.refused(None).contains("set.toml: `layout`: 'archives': the media lie inside")
    );
    archives.write("shard.tar", "shard.taR");
    let (code, out, _) = veriscope(&verify, &archives);
    assert!(code == 1 && out.starts_with("altered  shard.tar  sha256 "), "{out}");
    archives.manifest("picture", "layout = \"archives\"", "train = \"all\"");
    let (code, out, _) = veriscope(&verify, &archives);
    assert!(code == 1 && out.starts_with("nothing listed  made-up"), "{out}");

    // Lists: those that came with the program; one that is no manifest, and the others.
    let (code, out, _) = veriscope(&["datasets", "list"], &folder);
    assert!(code == 0 && out.contains("celeb-df-v2"), "{out}");
    folder.write("wrong.toml", "schema = 1\n");
    let (code, out, err) = veriscope(&["datasets", "list", ".", "--format", "jsonl"], &folder);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["name"], &json["layout"]), (1, &"made-up".into(), &"index".into()));
    assert!(err.contains("wrong.toml: `name`: is missing"), "{err}");
}
