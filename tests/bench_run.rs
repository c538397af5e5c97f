//! `veriscope bench run` over small data sets made on the fly.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Folder;
use serde_json::Value;
use veriscope::bench::metrics::AbsentCode;
use veriscope::bench::output::Counts;
use veriscope::bench::run::results::{DetectorKind, Results};

/// Files named by number; their size is what the commands below take for a score.
const SIZES: &str = "while read -r f; do printf '%s\\t%s\\n' \"$f\" \"$(wc -c < \"$f\")\"; done";

struct Ran {
    code: Option<i32>,
    stderr: String,
}

impl Folder {
    /// A data set with an index of `path,label,who` rows.
    fn set(&self, name: &str, kind: &str, rows: &[(String, bool, &str)]) -> &Self {
        let manifest = format!(
            "schema = 1\nname = \"{name}\"\nkind = \"{kind}\"\nsource = \"this test\"\nlicence = \"none \
             needed\"\nconsent = \"nobody is shown\"\nlayout = \"index\"\nroot = \"{name}\"\nindex = \
             \"index.csv\"\n[columns]\npath = \"path\"\nlabel = \"label\"\ngroup = \"who\"\n[splits]\n\
             test = \"all\"\n"
        );
        let mut index = "path,label,who\n".to_owned();
        for (path, fake, who) in rows {
            let label = if *fake { "fake" } else { "real" };
            index += &format!("{path},{label},{who}\n");
        }
        self.write(&format!("{name}.toml"), &manifest).write(&format!("{name}/index.csv"), &index)
    }

    /// A set of sounds that nobody decodes: number i is 100 + 10 i bytes long, fakes are the longer half.
    fn sizes(&self, name: &str, files: usize) -> &Self {
        let mut rows = Vec::new();
        for i in 0..files {
            let file = format!("{i:02}.wav");
            self.write(&format!("{name}/{file}"), &"x".repeat(100 + 10 * i));
            rows.push((file, i >= files / 2, ""));
        }
        self.set(name, "audio", &rows)
    }

    /// Six pieces of the demo's sound and four of its pictures, half of them fake.
    fn voices_and_faces(&self) {
        let head = common::talking_head();
        let head = head.to_str().unwrap();
        let (mut voices, mut faces) = (Vec::new(), Vec::new());
        for i in 0..6 {
            // 12 to 20 s are synthetic.
            let start = [0, 4, 8, 12, 14, 16][i];
            let name = format!("v{i}.wav");
            self.write(&format!("voices/{name}"), "");
            let start = start.to_string();
            common::ffmpeg(
                &["-ss", &start, "-t", "4", "-i", head, "-vn", "-ar", "16000"],
                self.path(&format!("voices/{name}")),
            );
            voices.push((name, i >= 3, ["a", "a", "b", "c", "d", "d"][i]));
        }
        for (i, second) in [2, 5, 10, 13].into_iter().enumerate() {
            // 8 to 16 s are swapped.
            let name = format!("f{i}.png");
            self.write(&format!("faces/{name}"), "");
            common::ffmpeg(
                &["-ss", &second.to_string(), "-i", head, "-frames:v", "1"],
                self.path(&format!("faces/{name}")),
            );
            faces.push((name, i >= 2, ""));
        }
        self.set("voices", "audio", &voices).set("faces", "picture", &faces);
    }

    fn suite(&self, text: &str) -> &Self {
        self.write("suite.toml", &format!("name = \"test\"\nrounds = 50\n{text}"))
    }

    fn command(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(common::PROGRAM);
        command.args(["bench", "run", "--device", "cpu", "--suite"]).arg(self.path("suite.toml"));
        command.arg("--out").arg(self.path(out)).args(more);
        // Imported weights are this folder's own.
        command.env("XDG_DATA_HOME", self.path("home"));
        command
    }

    fn run(&self, out: &str, more: &[&str]) -> Ran {
        let output = common::run_within(Duration::from_secs(300), self.command(out, more));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(
            !self.path(out).join(".veriscope-work").exists(),
            "degraded copies are left: {stderr}"
        );
        Ran { code: output.status.code(), stderr }
    }

    fn done(&self, out: &str, more: &[&str]) -> Results {
        let ran = self.run(out, more);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        self.results(out)
    }

    fn results(&self, out: &str) -> Results {
        serde_json::from_slice(&fs::read(self.path(out).join("metrics.json")).unwrap()).unwrap()
    }

    fn refused(&self, out: &str) -> String {
        let ran = self.run(out, &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(!self.path(out).join("metrics.json").exists());
        ran.stderr
    }

    /// The lines of scores.jsonl that are files.
    fn rows(&self, out: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(out).join("scores.jsonl")).unwrap();
        let lines = text.lines().skip(1).map(|l| serde_json::from_str::<Value>(l).unwrap());
        lines.filter(|line| line["batch"].is_null()).collect()
    }
}

fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A `[[detector]]` that is a command.
fn command(name: &str, command: &str, more: &str) -> String {
    format!(
        "[[detector]]\nname = \"{name}\"\ncommand = {}\ndirection = \"higher-is-fake\"\nscale = \
         \"raw\"\n{more}\n",
        quote(command)
    )
}

fn auc(results: &Results, set: &str, detector: &str, degradation: &str) -> f64 {
    let cell = results.cell(set, detector, degradation).unwrap();
    cell.files_level().unwrap().metrics.as_ref().unwrap().value("auc").unwrap()
}

/// What must not differ between two runs: all but what judging cost.
fn numbers(results: &Results) -> Results {
    let mut results = results.clone();
    results.cells.iter_mut().for_each(|cell| cell.cost = Default::default());
    results
}

/// Our detectors, a command and a score file over voices and faces, clean and degraded.
#[test]
fn data_sets_detectors_and_degradations() {
    let folder = Folder::new();
    folder.voices_and_faces();
    folder.write("scores.csv", "file,score\nv0,-1\nv1,-2\nv2,0.5\nv3,0.25\nv4,3\nv5,4\n");
    folder.suite(&format!(
        "[[dataset]]\nmanifest = \"voices.toml\"\n[[dataset]]\nmanifest = \"faces.toml\"\n\
         [[detector]]\ndetector = \"voice-clone\"\ntier = \"fast\"\n\
         [[detector]]\ndetector = \"face-swap\"\ntier = \"fast\"\n{}\
         [[detector]]\nname = \"published\"\nscores = \"scores.csv\"\nprotocol = \"csv\"\ndirection = \
         \"higher-is-fake\"\nscale = \"raw\"\ndatasets = [\"voices\"]\njoin = \"stem\"\nthreshold = 0.5\n\
         [[degradation]]\nfamily = \"jpeg\"\nvalues = [30]\n\
         [[degradation]]\nfamily = \"white-noise\"\nvalues = [10]\n",
        command("sizes", &format!("{SIZES} < {{list}}"), "")
    ));
    let results = folder.done("out", &[]);
    let names: Vec<String> = results
        .cells
        .iter()
        .map(|c| format!("{} {} {}", c.data_set, c.detector, c.degradation))
        .collect();
    assert_eq!(
        names,
        [
            "voices voice-clone-fast none",
            "voices voice-clone-fast white-noise-10",
            "voices sizes none",
            "voices sizes white-noise-10",
            "voices published none",
            "faces face-swap-fast none",
            "faces face-swap-fast jpeg-30",
            "faces sizes none",
            "faces sizes jpeg-30",
        ]
    );
    assert_eq!(folder.rows("out").len(), 5 * 6 + 4 * 4);
    let voice = results.cell("voices", "voice-clone-fast", "none").unwrap();
    assert_eq!((voice.files, voice.judged), (6, 6));
    assert!(voice.abstained.is_some() && voice.cost.median_ms.unwrap() > 0.0);
    let levels: Vec<&str> = voice.levels.iter().map(|l| l.level.as_str()).collect();
    assert_eq!(levels, ["audio", "track", "window"]);
    let level = &voice.levels[0];
    assert_eq!((level.fake, level.real), (3, 3));
    assert_eq!(level.metrics.as_ref().unwrap().units.count, 4, "the bootstrap draws speakers");
    assert_eq!((level.roc[0], level.roc[level.roc.len() - 1]), ([0.0, 0.0], [1.0, 1.0]));
    let histogram = level.histogram.as_ref().unwrap();
    assert_eq!((histogram.from, histogram.to), (0.0, 1.0));
    assert_eq!(histogram.fake.iter().chain(&histogram.real).sum::<u64>(), 6);
    // A picture is one moment.
    let face = results.cell("faces", "face-swap-fast", "none").unwrap();
    assert_eq!(face.levels.len(), 1);
    // One pair of nine lies the wrong way round.
    assert!((auc(&results, "voices", "published", "none") - 8.0 / 9.0).abs() < 1e-12);
    let published = results.cell("voices", "published", "none").unwrap();
    let worst: Vec<&str> = published.worst.iter().map(|w| w.id.as_str()).collect();
    assert_eq!(worst, ["v3.wav", "v2.wav"], "0.25 below, and exactly at, the threshold 0.5");
    assert_eq!((published.cost.mean_ms, published.abstained), (None, None));
    let sizes = results.cell("voices", "sizes", "white-noise-10").unwrap();
    assert!(sizes.cost.mean_ms.unwrap() > 0.0 && sizes.cost.peak_memory_bytes.unwrap() > 0);
    let kinds: Vec<DetectorKind> = results.detectors.iter().map(|d| d.kind).collect();
    use DetectorKind::{Command, Ours, Scores};
    assert_eq!(kinds, [Ours, Ours, Command, Scores]);
    assert_eq!(results.detectors[0].threshold.as_ref().unwrap().source, "the weights' manifest");
    let compared: Vec<(&str, &str, &str)> = results
        .comparisons
        .iter()
        .map(|c| (c.data_set.as_str(), c.a.as_str(), c.b.as_str()))
        .collect();
    assert!(compared.contains(&("voices", "voice-clone-fast", "published")), "{compared:?}");
    // Only the command judges both sets. All recordings are equally long: on them it is constant.
    let constant = &results.cell("voices", "sizes", "none").unwrap().levels[0];
    assert_eq!(constant.metrics.as_ref().unwrap_err().code, AbsentCode::ConstantScore);
    assert!(constant.roc.is_empty() && constant.histogram.is_none());
    let moved: Vec<(&str, &str)> =
        results.transfers.iter().map(|t| (t.from.as_str(), t.to.as_str())).collect();
    assert_eq!(moved, [("voices", "faces"), ("faces", "voices")]);
    assert_eq!(
        results.transfers[0].eer_asvspoof.as_ref().unwrap_err().code,
        AbsentCode::ConstantScore
    );
    assert_eq!(results.degradations[1].name, "jpeg-30");

    // Once more: nothing is left to do.
    let before = fs::read(folder.path("out/scores.jsonl")).unwrap();
    assert_eq!(folder.done("out", &[]), results);
    assert_eq!(fs::read(folder.path("out/scores.jsonl")).unwrap(), before);
    // From the start: the same numbers.
    let again = folder.done("elsewhere", &["--jobs", "1"]);
    assert_eq!(numbers(&again), numbers(&results));
}

/// Published networks from their authors' checkpoints, which do not ship: what the run says is what
/// `veriscope score` says.
#[test]
fn imported_networks_are_detectors_of_a_suite() {
    let networks = [
        ("aasist", "AASIST.pth", "voice-clone", "voices", "telephone"),
        ("aasist-l", "AASIST-L.pth", "voice-clone", "voices", "telephone"),
        ("meso4", "Meso4_DF.h5", "face-swap", "faces", "jpeg-30"),
    ];
    let folder = Folder::new();
    let program = |args: &[&str]| {
        let mut command = Command::new(common::PROGRAM);
        command.args(args).env("XDG_DATA_HOME", folder.path("home"));
        let output = common::run_within(Duration::from_secs(300), command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, file, ..) in networks {
        let Some(file) = common::shared(&format!("detectors/{file}")) else { return };
        let family = name.trim_end_matches("-l");
        let file = file.to_str().unwrap();
        program(&["weights", "import", "--as", family, "--name", name, file]);
    }
    folder.voices_and_faces();
    let mut suite = "[[dataset]]\nmanifest = \"voices.toml\"\n[[dataset]]\nmanifest = \
                     \"faces.toml\"\n[[degradation]]\nfamily = \"telephone\"\n[[degradation]]\nfamily = \
                     \"jpeg\"\nvalues = [30]\n"
        .to_owned();
    for (name, ..) in networks {
        suite += &format!("[[detector]]\nnetwork = \"{name}\"\nthreshold = 0.5\n");
    }
    folder.suite(&suite);
    let results = folder.done("out", &[]);
    let rows = folder.rows("out");
    for (name, _, detector, set, degradation) in networks {
        let of_network = results.detectors.iter().find(|d| d.name == name).unwrap();
        assert_eq!(of_network.kind, DetectorKind::Imported);
        assert_eq!(of_network.threshold.as_ref().unwrap().value, 0.5);
        let index = fs::read_to_string(folder.path(&format!("{set}/index.csv"))).unwrap();
        let ids: Vec<&str> = index.lines().skip(1).map(|l| l.split(',').next().unwrap()).collect();
        let paths = ids.iter().map(|id| folder.path(&format!("{set}/{id}")).display().to_string());
        folder.write("list.txt", &paths.collect::<Vec<_>>().join("\n"));
        let list = folder.path("list.txt");
        let list = list.to_str().unwrap();
        let table = program(&["score", "--detector", detector, "--network", name, "--list", list]);
        for (id, line) in ids.iter().zip(table.lines().skip(1)) {
            let want: f64 = line.split('\t').nth(1).unwrap().parse().unwrap();
            let row = rows
                .iter()
                .find(|r| r["detector"] == name && r["id"] == *id && r["degradation"] == "none");
            let got = row.unwrap()["score"].as_f64().unwrap();
            assert!((got - want).abs() < 1e-5, "{name} {id}: {got} {want}");
        }
        for state in ["none", degradation] {
            let cell = results.cell(set, name, state).unwrap();
            assert_eq!((cell.judged, cell.files), (ids.len() as u64, ids.len() as u64));
            let level = cell.files_level().unwrap().metrics.as_ref().unwrap();
            assert!(level.value("auc").is_some() && level.value("balanced_accuracy").is_some());
            assert!(cell.cost.mean_ms.unwrap() > 0.0);
        }
    }
    // Both networks of voices judged the same files.
    let pair = results.comparisons.iter().find(|c| c.a == "aasist" && c.b == "aasist-l").unwrap();
    assert_eq!((pair.data_set.as_str(), pair.files), ("voices", 6));
    assert_eq!(numbers(&folder.done("again", &["--jobs", "1"])), numbers(&results));
}

/// Commands and files that say when: windows as a level of their own, stretches as proposals.
#[test]
fn times_of_commands_and_proposals_are_judged_in_time() {
    let folder = Folder::new();
    let names: Vec<String> = (0..4).map(|i| format!("{i}.mp4")).collect();
    // Forged: 2 to 4 s of the third file, 1 to 3 and 6 to 8 s of the fourth.
    let mut index = "path,label,when\n".to_owned();
    for (name, truth) in names.iter().zip(["real,", "real,", "fake,2-4", "fake,1-3;6-8"]) {
        folder.write(&format!("clips/val/{name}"), name);
        index += &format!("val/{name},{truth}\n");
    }
    folder.write("clips/index.csv", &index);
    folder.write(
        "clips.toml",
        "schema = 1\nname = \"clips\"\nkind = \"video\"\nsource = \"this test\"\nlicence = \"none needed\"\n\
         consent = \"nobody is shown\"\nlayout = \"index\"\nroot = \"clips\"\nindex = \"index.csv\"\n\
         [columns]\nperiods = \"when\"\n[splits]\nval = \"all\"\n",
    );
    // A window a second; the one score that is wrong is that of the last second of the fourth.
    let windows = "while read -r f; do printf '%s\\t%s\\n' \"$f\" \"$(basename \"$f\" .mp4)\"; for t in 0 1 2 3 4 \
                   5 6 7; do s=0; case $f$t in *2.mp4[23]|*3.mp4[126]) s=1;; esac; printf \
                   '%s\\t%s\\t%s\\t%s\\n' \"$f\" $s $t $((t + 1)); done; done < \"$1\"\n";
    folder.write("windows.sh", windows);
    // Of the fourth file one stretch is found, and one that is none is surer.
    let proposals = [("2", vec![(9, 2, 4)]), ("3", vec![(8, 4, 5), (7, 1, 3)])];
    let mut segments = "while read -r f; do printf '%s\\t1\\n' \"$f\"; case $f in\n".to_owned();
    let mut json = serde_json::json!({"0.mp4": [], "1.mp4": []});
    for (name, found) in proposals {
        segments += &format!("*{name}.mp4)");
        for (confidence, from, to) in &found {
            segments += &format!(" printf '%s\\t%s\\t%s\\t%s\\n' \"$f\" {confidence} {from} {to};");
        }
        segments += ";\n";
        // In frames, 25 a second.
        let rows: Vec<[i32; 3]> = found.iter().map(|(c, a, b)| [*c, a * 25, b * 25]).collect();
        json[format!("{name}.mp4")] = serde_json::json!(rows);
    }
    folder.write("segments.sh", &format!("{segments}esac; done < \"$1\"\n"));
    folder.write("proposals.json", &json.to_string());
    let published = "[[detector]]\nname = \"published\"\nscores = \"proposals.json\"\nprotocol = \
                     \"av-deepfake1m\"\ndatasets = [\"clips\"]\n";
    let set = "[[dataset]]\nmanifest = \"clips.toml\"\n";
    folder.suite(&format!(
        "{set}{}{}{published}proposal_fps = 25\n",
        command("windows", "sh windows.sh {list}", "times = \"windows\"\nthreshold = 0.5"),
        command("segments", "sh segments.sh {list}", "times = \"segments\""),
    ));
    let results = folder.done("out", &[]);
    let cell = |name| results.cell("clips", name, "none").unwrap();
    let windows = cell("windows");
    let levels: Vec<(&str, u64, u64)> =
        windows.levels.iter().map(|l| (l.level.as_str(), l.fake, l.real)).collect();
    assert_eq!(levels, [("video", 2, 2), ("window", 6, 26)]);
    assert!(windows.localisation.is_none());
    let level = windows.levels[1].metrics.as_ref().unwrap();
    assert_eq!((level.units.kind.as_str(), level.units.count), ("file", 4));
    assert_eq!(level.value("tpr_at_threshold").unwrap(), 5.0 / 6.0);
    assert_eq!(level.value("fpr_at_threshold").unwrap(), 0.0);
    assert!((level.value("auc").unwrap() - (1.0 - 0.5 / 6.0)).abs() < 1e-12);

    let located = |name| cell(name).localisation.clone().unwrap().metrics.unwrap();
    let found = located("segments");
    assert!(matches!(found.counts, Counts::Located { files: 4, stretches: 3, proposals: 3 }));
    // Hit, miss, hit: precision 1 up to recall 1/3, then 2/3 up to 2/3.
    let ap = found.value("ap@0.95_complete").unwrap();
    assert!((ap - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-6, "{ap}");
    let ar = found.value("ar@5_complete").unwrap();
    assert!((ar - 2.0 / 3.0).abs() < 1e-6, "{ar}");
    // The same proposals as a file: the same metrics, and none of files.
    assert_eq!(located("published").metrics, found.metrics);
    let published_cell = cell("published");
    assert!(published_cell.levels.is_empty() && published_cell.worst.is_empty());
    assert_eq!((published_cell.judged, published_cell.files), (4, 4));
    assert!(results.comparisons.iter().all(|c| c.a != "published" && c.b != "published"));
    let html = fs::read_to_string(folder.path("out/report.html")).unwrap();
    assert!(html.contains("Localisation in time") && html.contains(">published<"), "{html}");
    // Once more: nothing is left to do.
    assert_eq!(folder.done("out", &[]), results);

    // Alone it makes a report, too.
    folder.suite(&format!("{set}{published}"));
    let alone = folder.done("alone", &[]);
    assert!(alone.cells[0].levels.is_empty() && alone.cells[0].localisation.is_some());
    for (json, says) in [
        ("{\"4.mp4\": []}", "'4.mp4' is no file of the data sets"),
        ("{\"0.mp4\": [], \"val/0.mp4\": []}", "'val/0.mp4' is there twice"),
        ("{\"0.mp4\": [[1, 3, 2]]}", "is no proposal"),
    ] {
        folder.write("proposals.json", json);
        let stderr = folder.refused("no");
        assert!(stderr.contains("proposals.json") && stderr.contains(says), "{stderr}");
    }
    // A file that the list lacks was not judged: one of four is too many.
    folder.write("proposals.json", "{\"0.mp4\": [], \"1.mp4\": [], \"2.mp4\": [[1, 2, 3]]}");
    let ran = folder.run("few", &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("1 of 4 files have no score"), "{}", ran.stderr);
    // A picture is one moment.
    folder.set("stills", "picture", &[("a.png".to_owned(), true, "")]).write("stills/a.png", "");
    folder.suite(&format!(
        "[[dataset]]\nmanifest = \"stills.toml\"\n{}",
        command("windows", "sh windows.sh {list}", "times = \"windows\"")
    ));
    assert!(folder.refused("no").contains("it judges none of the data sets"));
}

/// Where a file is another than when it was judged, it is judged anew; the others stand.
#[test]
fn files_that_changed_are_judged_anew() {
    let folder = Folder::new();
    folder.sizes("set", 10);
    let detector = command("sizes", &format!("{SIZES} < {{list}}"), "");
    let scores = "[[detector]]\nname = \"file\"\nscores = \"s.csv\"\nprotocol = \"csv\"\ndirection = \
                  \"higher-is-fake\"\nscale = \"raw\"\ndatasets = [\"set\"]\n";
    let csv: String = (0..10).map(|i| format!("{i:02}.wav,{}\n", i % 4)).collect();
    folder.write("s.csv", &format!("file,score\n{csv}"));
    folder.suite(&format!("[[dataset]]\nmanifest = \"set.toml\"\n{detector}{scores}"));
    folder.done("out", &[]);
    assert_eq!(folder.rows("out").len(), 20);
    // Another length.
    folder.write("set/00.wav", &"x".repeat(1000));
    folder.done("out", &[]);
    let rows = folder.rows("out");
    assert_eq!(
        (rows.len(), &rows[20]["id"], rows[20]["score"].as_f64()),
        (21, &"00.wav".into(), Some(1000.0))
    );
    // The same length, written later.
    let file = fs::File::options().append(true).open(folder.path("set/02.wav")).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_nanos(5_000)).unwrap();
    folder.done("out", &[]);
    let rows = folder.rows("out");
    assert_eq!((rows.len(), &rows[21]["id"]), (22, &"02.wav".into()));
    // What is gone was judged.
    fs::remove_file(folder.path("set/03.wav")).unwrap();
    let results = folder.done("out", &[]);
    assert_eq!(folder.rows("out").len(), 22);
    assert_eq!(results.cell("set", "sizes", "none").unwrap().judged, 10);
    let pair = &results.comparisons[0];
    let p = pair.bootstrap.auc.as_ref().unwrap().p;
    assert_eq!(pair.holm.auc, Some(p), "one comparison needs no correction");
}

/// Score files as they are: DeepfakeBench's frames, and a CSV of more files than were drawn.
#[test]
fn score_files_are_joined_with_their_data_sets() {
    let folder = Folder::new();
    let rows: Vec<(String, bool, &str)> =
        (0..8).map(|i| (format!("clips/{i:03}.mp4"), i >= 4, "")).collect();
    for (name, ..) in &rows {
        folder.write(&format!("videos/{name}"), name);
    }
    folder.set("videos", "video", &rows);
    let (mut pred, mut label, mut image) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..8 {
        for frame in 0..3 {
            // Means 0.1, 0.2, ...; the frames spread around them.
            pred.push(f64::from(i + 1) / 10.0 + f64::from(frame - 1) / 20.0);
            label.push(u8::from(i >= 4));
            image.push(format!("frames/{i:03}/{frame}.png"));
        }
    }
    let json = |label: &[u8]| {
        serde_json::json!({"pred": pred, "label": label, "image": image}).to_string()
    };
    folder.write("frames.json", &json(&label));
    let csv: String = (0..8).map(|i| format!("clips/{i:03}.mp4,{}\n", -i)).collect();
    folder.write("all.csv", &format!("file,score\n{csv}"));
    let frames = "[[detector]]\nname = \"frames\"\nscores = \"frames.json\"\nprotocol = \
                  \"deepfakebench\"\ndirection = \"higher-is-fake\"\nscale = \"probability\"\ndatasets = \
                  [\"videos\"]\n";
    let csv = "[[detector]]\nname = \"csv\"\nscores = \"all.csv\"\nprotocol = \"csv\"\ndirection = \
               \"higher-is-real\"\nscale = \"raw\"\ndatasets = [\"videos\"]\n";
    let set = "[[dataset]]\nmanifest = \"videos.toml\"\n";
    folder.suite(&format!("{set}limit = 6\n{frames}join = \"stem\"\n{csv}"));
    let results = folder.done("out", &[]);
    let data_set = &results.data_sets[0];
    assert_eq!((data_set.fake, data_set.real, data_set.drawn_from), (3, 3, Some(8)));
    let cell = results.cell("videos", "frames", "none").unwrap();
    let levels: Vec<(&str, u64)> =
        cell.levels.iter().map(|l| (l.level.as_str(), l.fake + l.real)).collect();
    assert_eq!(levels, [("video", 6), ("frame", 18)]);
    let frame_level = cell.levels[1].metrics.as_ref().unwrap();
    assert_eq!((frame_level.units.kind.as_str(), frame_level.units.count), ("file", 6));
    assert_eq!(auc(&results, "videos", "frames", "none"), 1.0);
    assert_eq!(auc(&results, "videos", "csv", "none"), 1.0);
    let mut scores: Vec<f64> = folder
        .rows("out")
        .iter()
        .filter(|r| r["detector"] == "frames")
        .map(|r| r["score"].as_f64().unwrap() * 10.0)
        .collect();
    scores.sort_by(f64::total_cmp);
    assert!(scores.iter().all(|s| (s - s.round()).abs() < 1e-9), "means of frames: {scores:?}");
    // Not known by their ids; and another label than the data set's.
    folder.suite(&format!("{set}{frames}"));
    assert!(folder.refused("no").contains("is no video of the data sets"));
    let mut wrong = label.clone();
    wrong[..3].fill(1);
    folder.write("frames.json", &json(&wrong)).suite(&format!("{set}{frames}join = \"stem\"\n"));
    assert!(folder.refused("no").contains("is fake here and not in the data set"));
    // Two files of one stem.
    folder.write("videos/other/000.mp4", "x");
    let mut rows = rows;
    rows.push(("other/000.mp4".to_owned(), true, ""));
    folder.set("videos", "video", &rows);
    let stderr = folder.refused("no");
    assert!(stderr.contains("'clips/000.mp4' and 'other/000.mp4' are one name"), "{stderr}");
}

/// A command that takes its time, and writes down what it judged.
fn slow(folder: &Folder) -> String {
    folder.sizes("set", 8);
    let script = format!(
        "#!/bin/sh\nwhile read -r f; do echo \"$f\" >> {}; sleep 0.2; printf '%s\\t%s\\n' \"$f\" \"$(wc -c < \
         \"$f\")\"; done < \"$1\"\n",
        folder.path("judged").display()
    );
    folder.write("slow.sh", &script);
    format!(
        "[[dataset]]\nmanifest = \"set.toml\"\n{}",
        command("slow", "sh slow.sh {list}", "batch = 1")
    )
}

fn wait_for_rows(folder: &Folder, out: &str, rows: usize) {
    let started = Instant::now();
    let path = folder.path(out).join("scores.jsonl");
    let lines = || fs::read_to_string(&path).unwrap_or_default();
    while lines().lines().filter(|l| l.contains("\"score\"")).count() < rows {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", lines());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let folder = Folder::new();
    let suite = slow(&folder);
    folder.suite(&suite);
    let mut child = folder.command("out", &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_for_rows(&folder, "out", 3);
    child.kill().unwrap();
    child.wait().unwrap();
    let scores = folder.path("out/scores.jsonl");
    let kept = folder.rows("out").len();
    assert!((3..8).contains(&kept), "{kept}");
    let whole = fs::read_to_string(&scores).unwrap();
    fs::write(&scores, format!("{whole}{{\"data_set\":\"set\",\"det")).unwrap();
    let results = folder.done("out", &[]);
    assert!(fs::read_to_string(&scores).unwrap().starts_with(&whole));
    assert_eq!(folder.rows("out").len(), 8);
    assert_eq!(auc(&results, "set", "slow", "none"), 1.0);
    let judged = fs::read_to_string(folder.path("judged")).unwrap();
    let mut names: Vec<&str> = judged.lines().collect();
    assert!(names.len() <= 9, "at most the one in work is judged again: {names:?}");
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 8);
    // As a run that was never cut short.
    assert_eq!(numbers(&folder.done("other", &[])), numbers(&results));
}

#[test]
fn a_signal_keeps_what_is_done_and_ends_the_command() {
    let folder = Folder::new();
    let suite = slow(&folder);
    folder.suite(&suite);
    let child = folder.command("out", &[]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_rows(&folder, "out", 2);
    // SAFETY: kill takes plain numbers; the child has not been waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(
        !folder.path("out/metrics.json").exists() && !folder.path("out/.veriscope-work").exists()
    );
    let judged = || fs::read_to_string(folder.path("judged")).unwrap().lines().count();
    let (now, kept) = (judged(), folder.rows("out").len());
    assert!((2..8).contains(&kept) && now <= kept + 1, "{now} {kept}");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(judged(), now, "the command works on");
    folder.done("out", &[]);
    assert_eq!(folder.rows("out").len(), 8);
}

#[test]
fn another_run_in_the_folder_is_refused() {
    let folder = Folder::new();
    folder.sizes("set", 4);
    let detector = command("sizes", &format!("{SIZES} < {{list}}"), "");
    let suite = format!("[[dataset]]\nmanifest = \"set.toml\"\n{detector}");
    folder.suite(&suite);
    folder.done("out", &[]);
    folder.suite(&format!("seed = 2\n{suite}"));
    let ran = folder.run("out", &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("belongs to another run"), "{}", ran.stderr);
    assert!(folder.path("out/metrics.json").exists(), "that run's results stay");
    assert_eq!(folder.done("out", &["--fresh"]).bootstrap.seed, 2);
    // A word about another file is another run, too; another place of the folder is not.
    fs::create_dir(folder.path("moved")).unwrap();
    for name in ["set", "set.toml", "suite.toml"] {
        fs::rename(folder.path(name), folder.path("moved").join(name)).unwrap();
    }
    let mut moved = Command::new(common::PROGRAM);
    moved.args(["bench", "run", "--device", "cpu", "--suite"]).arg(folder.path("moved/suite.toml"));
    moved.arg("--out").arg(folder.path("out"));
    assert_eq!(common::run_within(Duration::from_secs(60), moved).status.code(), Some(0));
    for name in ["set", "set.toml", "suite.toml"] {
        fs::rename(folder.path("moved").join(name), folder.path(name)).unwrap();
    }
    let index = fs::read_to_string(folder.path("set/index.csv")).unwrap();
    folder.write("set/index.csv", &index.replace("00.wav,real", "00.wav,fake"));
    let ran = folder.run("out", &[]);
    assert!(ran.stderr.contains("belongs to another run"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_run_is_named_before_anything_runs() {
    let folder = Folder::new();
    folder.sizes("set", 4).sizes("other", 4);
    let set = "[[dataset]]\nmanifest = \"set.toml\"\n";
    let sizes = command("sizes", &format!("{SIZES} < {{list}}"), "");
    let ours = "[[detector]]\ndetector = \"face-swap\"\ntier = \"fast\"\n";
    let scores = "[[detector]]\nscores = \"s.csv\"\nprotocol = \"csv\"\ndirection = \"higher-is-fake\"\n\
                  scale = \"raw\"\ndatasets = [\"set\"]\n";
    folder.write("s.csv", "file,score\n00.wav,1\nelsewhere.wav,2\n");
    for (suite, says) in [
        (format!("speed = 3\n{set}{sizes}"), "suite.toml: line 3: unknown field `speed`"),
        (format!("{set}root = \"none\"\n{sizes}"), "none"),
        (format!("[[dataset]]\nmanifest = \"no.toml\"\n{sizes}"), "no.toml"),
        (format!("{set}{set}{sizes}"), "two data sets of the name 'set'"),
        (format!("{set}{ours}"), "detector face-swap-fast: it judges none of the data sets"),
        (
            format!("{set}{ours}datasets = [\"set\"]\n"),
            "detector face-swap-fast: it cannot judge 'set', which is of kind audio",
        ),
        (format!("{set}{ours}datasets = [\"x\"]\n"), "`datasets` names 'x'"),
        (format!("{set}{scores}"), "s.csv:3: 'elsewhere.wav' is not in the key"),
        (format!("{set}{scores}protocol = \"x\"\n"), "duplicate key"),
        (format!("{set}[[detector]]\nnetwork = \"no-such\"\n"), "detector no-such: "),
        (
            format!("{set}{sizes}[[degradation]]\nfamily = \"jpeg\"\nvalues = [50]\n"),
            "jpeg-50 changes nothing that a detector of the suite looks at",
        ),
        (format!("{set}{sizes}files = [\"gone.pth\"]\n"), "gone.pth: cannot be read"),
    ] {
        folder.suite(&suite);
        let stderr = folder.refused("out");
        assert!(stderr.contains(says), "{suite}\n{stderr}");
        assert!(!folder.path("out/scores.jsonl").exists());
    }
    // Files that no run wrote stay.
    folder.suite(&format!("{set}{sizes}")).write("mine/report.html", "mine");
    let ran = folder.run("mine", &["--fresh"]);
    assert!(ran.stderr.contains("report.html: is no run's"), "{}", ran.stderr);
    folder.write("mine/scores.jsonl", "{\"path\": 1}\n");
    for more in [&[][..], &["--fresh"]] {
        let ran = folder.run("mine", more);
        assert!(ran.stderr.contains("scores.jsonl: line 1: not a file"), "{}", ran.stderr);
    }
    assert_eq!(fs::read_to_string(folder.path("mine/report.html")).unwrap(), "mine");
    // An ffmpeg that lacks an encoder, and none at all.
    let fake = "#!/bin/sh\necho ' A..... aac  AAC'\n";
    folder.write("bin/ffmpeg", fake);
    fs::set_permissions(folder.path("bin/ffmpeg"), fs::Permissions::from_mode(0o755)).unwrap();
    let sweep = "[[degradation]]\nfamily = \"aac\"\nvalues = [32]\n[[degradation]]\nfamily = \"amr\"\n\
                 values = [12.2]\n";
    folder.suite(&format!("{set}{sizes}{sweep}"));
    for (path, says) in [
        ("bin", "amr-12.2 cannot be made: the ffmpeg that is installed has no libopencore_amrnb"),
        ("nowhere", "aac-32: the program ffmpeg: it is not installed (apt-get install ffmpeg)"),
    ] {
        let mut command = folder.command("out", &[]);
        command.env("PATH", folder.path(path));
        let output = common::run_within(Duration::from_secs(60), command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn a_command_that_fails_is_named_and_can_be_mended() {
    let folder = Folder::new();
    folder.sizes("set", 4);
    let detector = command("mine", "sh mine.sh {list}", "batch = 2");
    folder.suite(&format!("[[dataset]]\nmanifest = \"set.toml\"\n{detector}"));
    // The second batch fails.
    let script =
        format!("grep -q 02.wav \"$1\" && {{ echo no weights >&2; exit 7; }}\n{SIZES} < \"$1\"\n");
    folder.write("mine.sh", &script);
    let stderr = folder.refused("out");
    let says = "command 'sh mine.sh {list}': it ended with exit code 7; it said: no weights";
    assert!(stderr.contains(says), "{stderr}");
    assert_eq!(folder.rows("out").len(), 2);
    // A table that is not whole.
    folder.write("mine.sh", &format!("{SIZES} < \"$1\" | head -n 1\n"));
    let stderr = folder.refused("out");
    assert!(stderr.contains("stdout: no line for 1 of 2 paths"), "{stderr}");
    folder.write("mine.sh", &format!("{SIZES} < \"$1\"\n"));
    let results = folder.done("out", &[]);
    assert_eq!(auc(&results, "set", "mine", "none"), 1.0);
    assert_eq!(folder.rows("out").len(), 4);
    // Commands start in the suite's folder, wherever the program does.
    let mut elsewhere = Command::new(common::PROGRAM);
    elsewhere.args(["bench", "run", "--suite", "../suite.toml", "--out", "out"]);
    elsewhere.current_dir(folder.path("set"));
    let output = common::run_within(Duration::from_secs(60), elsewhere);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(numbers(&folder.results("set/out")).cells, numbers(&results).cells);
}

#[test]
fn files_without_a_score_are_counted_and_too_many_fail_the_run() {
    let folder = Folder::new();
    folder.sizes("set", 40);
    let set = "[[dataset]]\nmanifest = \"set.toml\"\n";
    // One of 40 is not judged, and one is not there: 5 %.
    let script = format!("{SIZES} < \"$1\" | sed 's/07.wav\\t.*/07.wav\\t/'\n");
    folder.write("mine.sh", &script);
    fs::remove_file(folder.path("set/30.wav")).unwrap();
    let detector = command("mine", "sh mine.sh {list}", "");
    folder.suite(&format!("{set}{detector}"));
    let ran = folder.run("out", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 of 40 files have no score"), "{}", ran.stderr);
    let cell = &folder.results("out").cells[0];
    assert_eq!((cell.judged, cell.skipped["no_score"], cell.skipped["unreadable"]), (38, 1, 1));
    assert!(!cell.too_many_skipped);
    // One more.
    fs::remove_file(folder.path("set/31.wav")).unwrap();
    let ran = folder.run("out", &["--fresh"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("MORE THAN 5 %"), "{}", ran.stderr);
    let results = folder.results("out");
    assert!(results.cells[0].too_many_skipped);
    assert_eq!(auc(&results, "set", "mine", "none"), 1.0, "metrics are written all the same");
    let row = &folder.rows("out").into_iter().find(|r| r["id"] == "31.wav").unwrap();
    assert_eq!(row["skipped"], "unreadable");
    assert!(row["message"].as_str().unwrap().contains("31.wav: cannot be read"));
    // It comes back: a run that goes on tries it again, and that one only.
    folder.write("set/31.wav", &"x".repeat(410));
    let ran = folder.run("out", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // Both unreadable ones were tried again.
    assert_eq!(folder.rows("out").len(), 42);
}

#[test]
fn a_wrong_sign_is_loud_and_one_class_has_no_number() {
    let folder = Folder::new();
    folder.sizes("set", 10);
    let turned = SIZES.replace("\"$(wc", "\"-$(wc");
    let both = format!(
        "{}{}",
        command("turned", &format!("{turned} < {{list}}"), ""),
        command("constant", "sed 's/$/\\t0.5/' {list}", "")
    );
    let rows: Vec<(String, bool, &str)> =
        (0..5).map(|i| (format!("{i:02}.wav"), true, "")).collect();
    folder.set("fakes", "audio", &rows);
    for (name, ..) in &rows {
        folder.write(&format!("fakes/{name}"), name);
    }
    folder.suite(&format!(
        "[[dataset]]\nmanifest = \"set.toml\"\n[[dataset]]\nmanifest = \"fakes.toml\"\n{both}"
    ));
    let ran = folder.run("out", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for says in [
        "turned on set: AUC 0.0000 at audio level is BELOW 0.5: THE SIGN MAY BE WRONG",
        "direction = \"higher-is-real\" would give 1.0000",
        "constant on set: no metrics: all 10 trials have the same score",
        "turned on fakes: no metrics: all trials are fake",
    ] {
        assert!(ran.stderr.contains(says), "{says}\n{}", ran.stderr);
    }
    let results = folder.results("out");
    let absent = |set, detector| {
        let level = &results.cell(set, detector, "none").unwrap().levels[0];
        level.metrics.as_ref().unwrap_err().code
    };
    assert_eq!(absent("set", "constant"), AbsentCode::ConstantScore);
    assert_eq!(absent("fakes", "turned"), AbsentCode::OneClass);
    assert!(results.comparisons.is_empty());
    let text = fs::read_to_string(folder.path("out/metrics.json")).unwrap();
    assert!(!text.contains("NaN") && text.contains("\"constant_score\""));
}

/// The suite that comes with the repository is one that can be run.
#[test]
fn the_example_names_what_is_there() {
    let suite = common::root().join("datasets/suites/demo.toml");
    let folder = Folder::new();
    let text = fs::read_to_string(&suite).unwrap();
    // Without its networks of faces, and clean only.
    let sets = text.split("[[detector]]").next().unwrap();
    let voice = "[[detector]]\ndetector = \"voice-clone\"\ndatasets = [\"demo-voices\"]\n";
    assert!(text.contains(voice));
    // The weights of its other tier may not be there.
    let voice = format!("{voice}tier = \"fast\"\n");
    let sets = sets.replace("\"../", &format!("\"{}/", common::root().join("datasets").display()));
    let sizes = command("sizes", &format!("{SIZES} < {{list}}"), "");
    folder.write("suite.toml", &format!("{sets}{sizes}{voice}"));
    let results = folder.done("out", &[]);
    assert_eq!(results.cells.len(), 3);
    let names: Vec<&str> = results.data_sets.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["demo-faces", "demo-voices"]);
    // A command does not say when a file is fake, our detectors do: 12 to 20 s of one.
    assert!(results.cell("demo-voices", "sizes", "none").unwrap().localisation.is_none());
    let cell = results.cell("demo-voices", "voice-clone-fast", "none").unwrap();
    let found = cell.localisation.as_ref().unwrap().metrics.as_ref().unwrap();
    match found.counts {
        Counts::Located { files, stretches, proposals } => {
            assert_eq!((files, stretches), (2, 1));
            assert!(proposals > 0);
        }
        _ => panic!("{:?}", found.counts),
    }
    assert!(found.value("ap@0.5_complete").unwrap() > 0.0, "{:?}", found.metrics);
    let windows = cell.levels.iter().find(|l| l.level == "window").unwrap();
    assert!(windows.fake >= 4 && windows.real > windows.fake, "by the time, not by the file");
    for set in &results.data_sets {
        assert_eq!((set.fake, set.real), (1, 1));
        assert!(Path::new(&set.manifest).exists());
    }
}
