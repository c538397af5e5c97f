//! The program `tesseract`, which reads lines of text: started for a batch of them, limited, killed
//! at its deadline. Pictures go in by its stdin, words come out by its stdout; nothing is written
//! to a disk.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::grey::{Grey, Rect};
use crate::child::{confine, output};

/// Languages wanted, in the order in which they are tried.
const LANGUAGES: [&str; 2] = ["chi_sim", "eng"];
/// Address space. It takes some 150 MB for both languages.
const MEMORY: u64 = 1 << 30;
/// For starting, and for each line of text, on a machine that does other things, too.
const START: Duration = Duration::from_secs(10);
const LINE: Duration = Duration::from_millis(1_500);
const MAX_OUTPUT: u64 = 4 << 20;
/// What one run reads at most.
pub const MAX_PAGES: usize = 64;
const BRING: &str = "apt-get install tesseract-ocr tesseract-ocr-eng tesseract-ocr-chi-sim";

/// A reader of text that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tesseract {
    program: PathBuf,
    languages: String,
    /// Its version and languages, as reports name them.
    pub name: String,
    /// The wanted language that is not installed.
    pub lacks: Option<String>,
}

/// A word as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    pub text: String,
    /// 0 to 100, as Tesseract puts it.
    pub confidence: f32,
    pub rect: Rect,
}

impl Tesseract {
    /// The one that `PATH` has.
    ///
    /// # Errors
    /// One sentence: it is not installed, or reads none of the languages, and what brings it.
    pub fn installed() -> Result<Self, String> {
        Self::at("tesseract".into())
    }

    /// The program at `program`.
    ///
    /// # Errors
    /// As [`Self::installed`].
    pub fn at(program: PathBuf) -> Result<Self, String> {
        let shown = program.display().to_string();
        let ask = |argument: &str| {
            let mut command = Command::new(&program);
            command.arg(argument);
            let output = run(command, &[], START, &AtomicBool::new(false))
                .map_err(|e| format!("{shown}: {e} ({BRING})"))?;
            Ok::<_, String>(String::from_utf8_lossy(&output).into_owned())
        };
        let version = ask("--version")?;
        let version = version.lines().next().unwrap_or_default().trim().to_owned();
        let listed = ask("--list-langs")?;
        let (there, lacks): (Vec<&str>, Vec<&str>) =
            LANGUAGES.iter().partition(|l| listed.lines().any(|line| line.trim() == **l));
        if there.is_empty() {
            return Err(format!("{shown} reads neither {} ({BRING})", LANGUAGES.join(" nor ")));
        }
        let languages = there.join("+");
        let name = format!("{version} {languages}");
        let lacks = (!lacks.is_empty()).then(|| format!("{} ({BRING})", lacks.join(", ")));
        Ok(Self { program, languages, name, lacks })
    }

    /// Reads lines of text, dark on white, at most [`MAX_PAGES`]. The answer has each one's words from
    /// left to right.
    ///
    /// # Errors
    /// One sentence: it could not be started, took too long or `stop` was set and it was killed, or
    /// failed.
    pub fn read(&self, pages: &[&Grey], stop: &AtomicBool) -> Result<Vec<Vec<Word>>, String> {
        let pages = &pages[..pages.len().min(MAX_PAGES)];
        if pages.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = Command::new(&self.program);
        command.args(["stdin", "stdout", "-l", &self.languages]);
        // Each picture is one line of text.
        command.args(["--psm", "7", "--dpi", "150", "-c", "tessedit_create_tsv=1"]);
        let deadline = START + LINE * u32::try_from(pages.len()).unwrap_or(u32::MAX);
        let output = run(command, &tiff(pages), deadline, stop)?;
        Ok(words(&String::from_utf8_lossy(&output), pages.len()))
    }
}

/// Runs a command with `input` on its stdin; what it said on stdout.
fn run(
    mut command: Command,
    input: &[u8],
    deadline: Duration,
    stop: &AtomicBool,
) -> Result<Vec<u8>, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // One thread: its others spin, and files are read side by side anyway.
    command.env("OMP_THREAD_LIMIT", "1").process_group(0);
    let seconds = deadline.as_secs() + 1;
    // SAFETY: between fork and exec only setrlimit and prctl are called, which are safe there;
    // nothing is allocated and no lock taken.
    unsafe { command.pre_exec(move || confine(seconds, MEMORY)) };
    let child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "not installed".to_owned(),
        _ => format!("cannot be started: {e}"),
    })?;
    output(child, input, MAX_OUTPUT, deadline, stop)
}

/// Pictures one behind the other in a TIFF, little-endian, uncompressed.
fn tiff(pages: &[&Grey]) -> Vec<u8> {
    let mut out = b"II*\0\0\0\0\0".to_vec();
    // Where the next directory's offset goes.
    let mut link = 4;
    for page in pages {
        let data = out.len() as u32;
        out.extend_from_slice(&page.pixels);
        if out.len() % 2 == 1 {
            out.push(0);
        }
        let directory = out.len() as u32;
        out[link..link + 4].copy_from_slice(&directory.to_le_bytes());
        let (w, h) = (page.width as u32, page.height as u32);
        // Tag, type (3: 16 bits, 4: 32 bits), value: size, 8 bits, no compression, black is 0, one
        // strip with one sample a pixel.
        let tags: [(u16, u16, u32); 9] = [
            (256, 4, w),
            (257, 4, h),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, data),
            (277, 3, 1),
            (278, 4, h),
            (279, 4, page.pixels.len() as u32),
        ];
        out.extend_from_slice(&(tags.len() as u16).to_le_bytes());
        for (tag, kind, value) in tags {
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&1u32.to_le_bytes());
            out.extend_from_slice(&value.to_le_bytes());
        }
        link = out.len();
        out.extend_from_slice(&[0; 4]);
    }
    out
}

/// Tesseract's TSV: level, page, block, paragraph, line, word, left, top, width, height,
/// confidence, text.
fn words(tsv: &str, pages: usize) -> Vec<Vec<Word>> {
    let mut all = vec![Vec::new(); pages];
    for line in tsv.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let ["5", page, _, _, _, _, x, y, w, h, confidence, text] = fields[..] else { continue };
        let number = |text: &str| text.parse::<usize>().ok();
        if let Some(words) = number(page).and_then(|page| all.get_mut(page.checked_sub(1)?))
            && let (Some(x), Some(y), Some(w), Some(h)) =
                (number(x), number(y), number(w), number(h))
            && let Ok(confidence) = confidence.parse::<f32>()
            && !text.trim().is_empty()
        {
            let rect = Rect { x, y, w, h };
            words.push(Word { text: text.trim().to_owned(), confidence, rect });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_given_to_their_pages() {
        let tsv = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n\
                   1\t1\t0\t0\t0\t0\t0\t0\t90\t60\t-1\t\n\
                   5\t2\t1\t1\t1\t1\t10\t11\t12\t13\t87.5\tAI\n\
                   5\t2\t1\t1\t1\t2\t30\t11\t12\t13\t96\t生成\n\
                   5\t9\t1\t1\t1\t2\t30\t11\t12\t13\t96\tlate\n\
                   5\t0\t1\t1\t1\t2\t30\t11\t12\t13\t96\tearly\n\
                   5\t1\t1\t1\t1\t2\t-3\t11\t12\t13\t96\tout\n\
                   5\t1\t1\t1\t1\t2\t3\t11\t12\t13\t96\t \n\
                   garbage";
        let words = words(tsv, 2);
        assert!(words[0].is_empty());
        let texts: Vec<&str> = words[1].iter().map(|w| w.text.as_str()).collect();
        assert_eq!(texts, ["AI", "生成"]);
        assert_eq!(words[1][0].rect, Rect { x: 10, y: 11, w: 12, h: 13 });
    }

    #[test]
    fn what_is_not_there_is_said_with_what_brings_it() {
        let error = Tesseract::at("/nowhere/tesseract".into()).unwrap_err();
        assert!(error.contains("not installed") && error.contains("apt-get"), "{error}");
    }

    fn shell(script: &str, input: &[u8], deadline: Duration) -> Result<Vec<u8>, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, input, deadline, &AtomicBool::new(false))
    }

    #[test]
    fn a_program_that_hangs_fails_or_eats_memory_is_ended() {
        let second = Duration::from_secs(1);
        let hung = shell("sleep 60 & sleep 60", b"", second).unwrap_err();
        assert!(hung.contains("more than 1 s"), "{hung}");
        // More than a pipe holds, and nobody reads it.
        let unread = shell("sleep 60", &vec![0; 1 << 20], second).unwrap_err();
        assert!(unread.contains("more than 1 s"), "{unread}");
        assert!(shell("exit 3", b"", second).unwrap_err().contains("exit code 3"));
        assert_eq!(shell("cat", b"abc", 10 * second).unwrap(), b"abc");
        let limit = shell("ulimit -v", b"", 10 * second).unwrap();
        assert_eq!(String::from_utf8_lossy(&limit).trim(), (MEMORY >> 10).to_string());
    }

    #[test]
    fn a_program_that_nobody_waits_for_any_more_is_ended() {
        let (stop, started) = (AtomicBool::new(false), std::time::Instant::now());
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60"]);
        let ended = std::thread::scope(|scope| {
            let run = scope.spawn(|| run(command, b"", Duration::from_secs(60), &stop));
            std::thread::sleep(Duration::from_millis(50));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            run.join().unwrap()
        });
        assert_eq!(ended.unwrap_err(), "the file was given up");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
