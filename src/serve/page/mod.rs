//! The review page's files, in the program: nothing to install beside it, nothing to build.
//!
//! Plain HTML, CSS and ES modules. `index.html` is the page, `app.js` its frame; queue, job and admin
//! views are a file each. The page speaks to the service through its public API only.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// What goes with every file of the page: nothing from elsewhere, nothing inline, no frames around
/// it.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'; object-src 'none'";

/// One file of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// The path of the request.
    pub path: &'static str,
    pub content_type: &'static str,
    pub bytes: &'static [u8],
    /// Strong, in quotation marks as the header has it: the content's SHA-256. Files keep their
    /// names from version to version, so they are to be asked for anew (`Cache-Control: no-cache`)
    /// and answered with 304 where this fits.
    pub etag: String,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($path:literal $file:literal $content_type:ident,)*) => {
        [$(($path, $content_type, include_bytes!($file).as_slice())),*]
    };
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    files![
        "/" "index.html" HTML,
        "/assets/admin.js" "admin.js" JS,
        "/assets/api.js" "api.js" JS,
        "/assets/app.css" "app.css" CSS,
        "/assets/app.js" "app.js" JS,
        "/assets/boot.js" "boot.js" JS,
        "/assets/chips.js" "chips.js" JS,
        "/assets/decide.js" "decide.js" JS,
        "/assets/deliveries.js" "deliveries.js" JS,
        "/assets/dom.js" "dom.js" JS,
        "/assets/heat.js" "heat.js" JS,
        "/assets/i18n.js" "i18n.js" JS,
        "/assets/icon.svg" "icon.svg" SVG,
        "/assets/job.js" "job.js" JS,
        "/assets/player.js" "player.js" JS,
        "/assets/queue.js" "queue.js" JS,
        "/assets/report.js" "report.js" JS,
        "/assets/timeline.js" "timeline.js" JS,
        "/assets/words.js" "words.js" JS,
        "/assets/words.json" "words.json" JSON,
    ]
    .into_iter()
    .map(|(path, content_type, bytes)| {
        let hash = Sha256::digest(bytes);
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        Asset { path, content_type, bytes, etag: format!("\"{hex}\"") }
    })
    .collect()
});

/// The file that a request's path names: `/` or `/assets/…`, exactly.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file of the folder is served, but for this one.
    #[test]
    fn every_file_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/serve/page");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = match name.as_str() {
                "mod.rs" => continue,
                "index.html" => "/".to_owned(),
                _ => format!("/assets/{name}"),
            };
            let found = asset(&path).unwrap_or_else(|| panic!("{name} is not served"));
            let file = std::fs::read(format!("{folder}/{name}")).unwrap();
            assert!(found.bytes == file, "{name}");
        }
        assert_eq!(asset("/assets/mod.rs"), None);
        assert_eq!(asset("/assets/../Cargo.toml"), None);
    }

    #[test]
    fn etags_are_quoted_hashes() {
        let etag = &asset("/").unwrap().etag;
        assert_eq!(etag.len(), 66);
        assert!(etag.starts_with('"') && etag.ends_with('"'));
        let all: std::collections::BTreeSet<_> = ASSETS.iter().map(|a| &a.etag).collect();
        assert_eq!(all.len(), ASSETS.len());
    }

    /// The policy forbids what stands in the markup itself, so none may.
    #[test]
    fn nothing_is_inline_or_from_elsewhere() {
        for asset in ASSETS.iter() {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            for bad in ["<style", "style=\"", "javascript:", "onclick=\"", "innerHTML", "eval("] {
                assert!(!text.contains(bad), "{} has {bad}", asset.path);
            }
            for address in text.split("http").skip(1).filter(|rest| rest.contains("://")) {
                let name = address.trim_start_matches('s');
                assert!(
                    !name.starts_with("://") || name.starts_with("://www.w3.org/"),
                    "{} names http{}",
                    asset.path,
                    address.chars().take(30).collect::<String>()
                );
            }
        }
    }

    /// Imports name files that are there.
    #[test]
    fn imports_are_served() {
        for asset in ASSETS.iter().filter(|a| a.content_type == JS) {
            let text = std::str::from_utf8(asset.bytes).unwrap();
            for import in text.lines().filter(|line| line.starts_with("import ")) {
                let name = import.split("\"./").nth(1).and_then(|rest| rest.split('"').next());
                let path = format!("/assets/{}", name.unwrap_or_default());
                assert!(super::asset(&path).is_some(), "{}: {import}", asset.path);
            }
        }
    }
}
