//! Paths on the command line → the files to scan, each once, in a fixed order.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::FileType;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// One file to scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub path: PathBuf,
    /// Named on the command line, not found in a folder.
    pub named: bool,
    /// Size when the folder was read; 0 where it could not be told.
    pub bytes: u64,
}

/// An entry that is not scanned, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub path: PathBuf,
    pub why: String,
}

#[derive(Debug, Default)]
pub struct Inputs {
    /// Sorted by path; each file of the disk once, whatever the number of its links.
    pub files: Vec<Input>,
    /// Entries of folders that hold no media by their nature: pipes, loops, broken links.
    pub skipped: Vec<Left>,
    /// Folders that could not be read: part of the input is missing.
    pub unreadable: Vec<Left>,
}

/// Finds the files under `paths`. Files named there are taken whatever they are (the engine says
/// what is wrong with them); of folders, regular files only. Symbolic links are followed.
/// `except` (the store and what SQLite writes beside it) is left out of folders.
pub fn collect(paths: &[PathBuf], except: Option<&Path>) -> Inputs {
    let except = except.map(beside).unwrap_or_default();
    let mut inputs = Inputs::default();
    let mut found: Vec<Input> = Vec::new();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => walk(path, &except, &mut found, &mut inputs),
            // What is missing or special fails in the engine, with the same words as in a folder.
            meta => {
                let bytes = meta.map(|m| m.len()).unwrap_or(0);
                found.push(Input { path: path.clone(), named: true, bytes });
            }
        }
    }
    // Named first, so that a file that is both named and found counts as named.
    found.sort_by(|a, b| b.named.cmp(&a.named).then_with(|| a.path.cmp(&b.path)));
    let mut seen: HashMap<PathBuf, ()> = HashMap::new();
    found.retain(|input| {
        let real = std::fs::canonicalize(&input.path).unwrap_or_else(|_| input.path.clone());
        seen.insert(real, ()).is_none()
    });
    found.sort_by(|a, b| a.path.cmp(&b.path));
    inputs.files = found;
    inputs
}

fn walk(root: &Path, except: &[PathBuf], found: &mut Vec<Input>, inputs: &mut Inputs) {
    // Each folder once: folders that link to each other crosswise have more paths than could ever
    // be walked, though none of them is a loop.
    let mut entered = HashSet::new();
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| {
        use std::os::unix::fs::MetadataExt as _;
        !entry.file_type().is_dir()
            || entry.metadata().map_or(true, |m| entered.insert((m.dev(), m.ino())))
    }) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) if entry.file_type().is_file() => {
                if !except.is_empty()
                    && std::fs::canonicalize(entry.path()).is_ok_and(|real| except.contains(&real))
                {
                    continue;
                }
                let bytes = entry.metadata().map(|m| m.len()).unwrap_or(0);
                found.push(Input { path: entry.into_path(), named: false, bytes });
            }
            Ok(entry) => {
                let why = format!("not a regular file ({})", special(entry.file_type()));
                inputs.skipped.push(Left { path: entry.into_path(), why });
            }
            Err(error) => {
                let path = error.path().unwrap_or(root).to_path_buf();
                if let Some(ancestor) = error.loop_ancestor() {
                    let why = format!("symbolic link back to {}, a loop", ancestor.display());
                    inputs.skipped.push(Left { path, why });
                } else if is_link(&path) && std::fs::metadata(&path).is_err() {
                    let why = match error.io_error() {
                        Some(e) => format!("symbolic link that leads nowhere ({e})"),
                        None => "symbolic link that leads nowhere".into(),
                    };
                    inputs.skipped.push(Left { path, why });
                } else {
                    let why = match error.io_error() {
                        Some(e) => format!("cannot be read: {e}"),
                        None => format!("cannot be read: {error}"),
                    };
                    inputs.unreadable.push(Left { path, why });
                }
            }
        }
    }
}

fn is_link(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_symlink())
}

fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "device"
    } else {
        "of unknown type"
    }
}

/// The store's file and its companions, as they are really called.
fn beside(store: &Path) -> Vec<PathBuf> {
    let Ok(real) = std::fs::canonicalize(store) else { return Vec::new() };
    ["", "-wal", "-shm", "-journal"]
        .iter()
        .map(|ending| {
            let mut name = OsString::from(&real);
            name.push(ending);
            PathBuf::from(name)
        })
        .collect()
}

/// Names under which media usually travels. They decide nothing about how a file is read, only
/// whether a file in a folder that turns out to be no media was meant to be some.
const MEDIA_EXTENSIONS: [&str; 44] = [
    "3g2", "3gp", "aac", "aif", "aiff", "amr", "asf", "avi", "avif", "bmp", "flac", "flv", "gif",
    "heic", "heif", "jpeg", "jpg", "jxl", "m2ts", "m4a", "m4v", "mka", "mkv", "mov", "mp2", "mp3",
    "mp4", "mpeg", "mpg", "mts", "mxf", "oga", "ogg", "ogv", "opus", "png", "tif", "tiff", "ts",
    "wav", "webm", "webp", "wma", "wmv",
];

/// Whether the file's name claims to be media.
pub fn named_like_media(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|extension| {
        MEDIA_EXTENSIONS.binary_search(&extension.to_ascii_lowercase().as_str()).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(inputs: &Inputs, root: &Path) -> Vec<String> {
        let short = |p: &Path| p.strip_prefix(root).unwrap().display().to_string();
        inputs.files.iter().map(|i| short(&i.path)).collect()
    }

    #[test]
    fn folders_are_walked_in_order_and_each_file_comes_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("b/c")).unwrap();
        for name in ["z.mp4", "a.wav", "b/c/k.png", "b/x.txt"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        symlink(root.join("a.wav"), root.join("b/again.wav")).unwrap();
        let inputs = collect(&[root.join("z.mp4"), root.to_path_buf(), root.join("b")], None);
        assert_eq!(names(&inputs, root), ["a.wav", "b/c/k.png", "b/x.txt", "z.mp4"]);
        let named: Vec<bool> = inputs.files.iter().map(|i| i.named).collect();
        assert_eq!(named, [false, false, false, true]);
        assert_eq!(inputs.files[1].bytes, 9);
        assert!(inputs.skipped.is_empty() && inputs.unreadable.is_empty());
    }

    #[test]
    fn loops_broken_links_and_pipes_are_skipped_with_a_cause() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/ok.mp4"), "x").unwrap();
        symlink(root, root.join("sub/loop")).unwrap();
        symlink(root.join("none"), root.join("broken")).unwrap();
        symlink("self", root.join("self")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
        assert!(made.success());
        let inputs = collect(&[root.to_path_buf()], None);
        assert_eq!(names(&inputs, root), ["sub/ok.mp4"]);
        let why = |name: &str| {
            let entry = inputs.skipped.iter().find(|s| s.path == root.join(name));
            entry.unwrap_or_else(|| panic!("{name}: {inputs:?}")).why.clone()
        };
        assert!(why("sub/loop").contains("a loop"));
        assert!(why("broken").contains("leads nowhere"));
        assert!(why("self").contains("leads nowhere"));
        assert!(why("pipe").contains("named pipe"));
        assert_eq!(inputs.skipped.len(), 4);
        assert!(inputs.unreadable.is_empty());
    }

    #[test]
    fn what_is_named_is_taken_even_where_it_is_missing_or_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let missing = dir.path().join("missing.mp4");
        let inputs = collect(&[pipe.clone(), missing.clone(), missing.clone()], None);
        let paths: Vec<&PathBuf> = inputs.files.iter().map(|i| &i.path).collect();
        assert_eq!(paths, [&missing, &pipe]);
    }

    #[test]
    fn the_store_in_a_scanned_folder_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["s.sqlite", "s.sqlite-wal", "s.sqlite-shm", "a.mp4"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let inputs = collect(&[dir.path().to_path_buf()], Some(&dir.path().join("s.sqlite")));
        assert_eq!(names(&inputs, dir.path()), ["a.mp4"]);
    }

    #[test]
    fn media_names() {
        assert!(MEDIA_EXTENSIONS.is_sorted());
        assert!(named_like_media(Path::new("a/b.MP4")));
        assert!(named_like_media(Path::new("b.webp")));
        assert!(!named_like_media(Path::new("notes.txt")));
        assert!(!named_like_media(Path::new("mp4")));
    }
}
