//! Paths of items: below the root, whatever a list says.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{DatasetError, Manifest};

/// A path longer than that is none.
const MAX_PATH: usize = 4096;

/// The folder that a set's media lie in.
pub struct Root(PathBuf);

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    There,
    Missing,
    /// Links lead out of the root.
    Outside,
}

/// Whether a list's path can be one below a root; what is wrong with it.
pub fn check(id: &str) -> Result<(), &'static str> {
    if id.is_empty() {
        return Err("is no path");
    }
    if id.len() > MAX_PATH {
        return Err("is longer than any path");
    }
    if id.contains('\0') {
        return Err("holds a zero byte");
    }
    if id.contains('\\') {
        return Err("holds a backslash: folders are parted by /");
    }
    if id.starts_with('/') {
        return Err("is an absolute path: paths are relative to the root");
    }
    match id.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        Some("..") => Err("holds '..': paths stay inside the root"),
        Some(_) => Err("holds an empty part or '.'"),
        None => Ok(()),
    }
}

impl Root {
    /// `given`, else what the manifest says (relative to its folder), else its folder.
    pub fn open(manifest: &Manifest, given: Option<&Path>) -> Result<Self, DatasetError> {
        let folder = manifest.path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let root = match (given, &manifest.root) {
            (Some(given), _) => given.to_owned(),
            (None, Some(root)) => folder.join(root),
            (None, None) => folder.to_owned(),
        };
        let field = |e: DatasetError| if given.is_none() { e.field("root") } else { e };
        let real = std::fs::canonicalize(&root).map_err(|e| {
            field(DatasetError::new(&manifest.path, format!("{}: {e}", root.display())))
        })?;
        if !real.is_dir() {
            let message = format!("{} is no folder", root.display());
            return Err(field(DatasetError::new(&manifest.path, message)));
        }
        Ok(Self(real))
    }

    /// Without links.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What is at `id`, which [`check`] let through. `inside` remembers folders that lie inside.
    pub fn look(&self, id: &str, inside: &mut HashSet<PathBuf>) -> Look {
        let path = self.0.join(id);
        if let Some(folder) = path.parent()
            && !inside.contains(folder)
        {
            match std::fs::canonicalize(folder) {
                Ok(real) if real.starts_with(&self.0) => inside.insert(folder.to_owned()),
                Ok(_) => return Look::Outside,
                Err(_) => return Look::Missing,
            };
        }
        match std::fs::symlink_metadata(&path) {
            Err(_) => Look::Missing,
            Ok(meta) if !meta.is_symlink() => Look::There,
            Ok(_) => match std::fs::canonicalize(&path) {
                Ok(real) if real.starts_with(&self.0) => Look::There,
                Ok(_) => Look::Outside,
                Err(_) => Look::Missing,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_none_below_a_root() {
        for id in ["a.mp4", "a/b c/d..e.mp4", "…/ü.wav"] {
            assert_eq!(check(id), Ok(()), "{id}");
        }
        for id in ["", "/etc/passwd", "../a", "a/../../b", "a//b", "./a", "a\\b", "a\0b", "a/"] {
            assert!(check(id).is_err(), "{id}");
        }
    }
}
