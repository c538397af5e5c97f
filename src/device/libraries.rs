//! The CUDA libraries, opened when they are first called.
//!
//! `build/trampolines.rs` links, in place of each library, functions that jump through a table.
//! Here the tables are filled: by [`open`], or by the first call of one of the functions. Where a
//! library is not there its functions answer with an error code, and [`open`] says why.

use std::{
    collections::HashSet,
    env,
    ffi::{CStr, CString, OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicPtr, Ordering},
    },
};

/// Names folders with CUDA libraries, `:` between them. Each may also be a Python `site-packages`
/// folder with NVIDIA's packages.
pub const FOLDERS_VARIABLE: &str = "VERISCOPE_CUDA_LIBRARIES";

/// A library that can be opened, numbered as in `build/trampolines.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    Driver = 0,
    /// Before cuBLAS, which loads it otherwise.
    CublasLt = 1,
    Cublas = 2,
    Curand = 3,
    Nvrtc = 4,
}

impl Library {
    pub const ALL: [Self; 5] =
        [Self::Driver, Self::CublasLt, Self::Cublas, Self::Curand, Self::Nvrtc];

    fn name(self) -> &'static str {
        match self {
            Self::Driver => "cuda",
            Self::Cublas => "cublas",
            Self::CublasLt => "cublasLt",
            Self::Curand => "curand",
            Self::Nvrtc => "nvrtc",
        }
    }

    /// The file that is looked for, such as `libcublas.so.13`.
    pub fn file(self) -> String {
        let version = match self {
            Self::Driver => "1",
            // The same for CUDA 12 and 13.
            Self::Curand => "10",
            _ => env!("VERISCOPE_CUDA_VERSION").split('.').next().unwrap_or_default(),
        };
        format!("lib{}.so.{version}", self.name())
    }

    fn table(self) -> Table {
        macro_rules! table {
            ($slots:ident, $missing:ident, $names:ident, $count:ident) => {{
                // SAFETY: only addresses are taken, and a number that is never written.
                unsafe {
                    Table {
                        slots: (&raw const $slots).cast(),
                        missing: (&raw const $missing).cast(),
                        names: (&raw const $names).cast(),
                        count: $count,
                    }
                }
            }};
        }
        match self {
            Self::Driver => table!(
                veriscope_cuda_slots,
                veriscope_cuda_missing,
                veriscope_cuda_names,
                veriscope_cuda_count
            ),
            Self::Cublas => table!(
                veriscope_cublas_slots,
                veriscope_cublas_missing,
                veriscope_cublas_names,
                veriscope_cublas_count
            ),
            Self::CublasLt => table!(
                veriscope_cublasLt_slots,
                veriscope_cublasLt_missing,
                veriscope_cublasLt_names,
                veriscope_cublasLt_count
            ),
            Self::Curand => table!(
                veriscope_curand_slots,
                veriscope_curand_missing,
                veriscope_curand_names,
                veriscope_curand_count
            ),
            Self::Nvrtc => table!(
                veriscope_nvrtc_slots,
                veriscope_nvrtc_missing,
                veriscope_nvrtc_names,
                veriscope_nvrtc_count
            ),
        }
    }
}

/// One library's functions: where each jumps to, where it jumps to if it is missing, the names.
#[derive(Clone, Copy)]
struct Table {
    slots: *const AtomicPtr<c_void>,
    missing: *const *mut c_void,
    names: *const c_char,
    count: usize,
}

// `build/trampolines.rs` makes these.
#[link(name = "cuda")]
#[link(name = "cublas")]
#[link(name = "cublasLt")]
#[link(name = "curand")]
#[link(name = "nvrtc")]
#[allow(non_upper_case_globals)]
unsafe extern "C" {
    static veriscope_cuda_slots: c_char;
    static veriscope_cuda_missing: c_char;
    static veriscope_cuda_names: c_char;
    static veriscope_cuda_count: usize;
    static veriscope_cublas_slots: c_char;
    static veriscope_cublas_missing: c_char;
    static veriscope_cublas_names: c_char;
    static veriscope_cublas_count: usize;
    static veriscope_cublasLt_slots: c_char;
    static veriscope_cublasLt_missing: c_char;
    static veriscope_cublasLt_names: c_char;
    static veriscope_cublasLt_count: usize;
    static veriscope_curand_slots: c_char;
    static veriscope_curand_missing: c_char;
    static veriscope_curand_names: c_char;
    static veriscope_curand_count: usize;
    static veriscope_nvrtc_slots: c_char;
    static veriscope_nvrtc_missing: c_char;
    static veriscope_nvrtc_names: c_char;
    static veriscope_nvrtc_count: usize;
}

static STATES: [OnceLock<Result<String, String>>; 5] = [const { OnceLock::new() }; 5];

/// Opens a library, once: where it was found, or why it cannot be opened.
pub fn open(library: Library) -> &'static Result<String, String> {
    STATES[library as usize].get_or_init(|| {
        let table = library.table();
        let (handle, state) = match find(&library.file(), &folders()) {
            Ok((handle, place)) => (handle, Ok(place)),
            Err(reason) => (std::ptr::null_mut(), Err(reason)),
        };
        // SAFETY: the table is the one that was made for this library, and the handle is null or
        // the library's.
        unsafe { fill(table, handle) };
        state
    })
}

/// The way in from assembly: the first call of a library that is not open yet.
#[unsafe(no_mangle)]
extern "C" fn veriscope_cuda_open(number: u32) {
    if let Some(library) = Library::ALL.get(number as usize) {
        open(*library);
    }
}

/// Has each function jump to the library's, or to what answers for it.
///
/// # Safety
/// `table` comes from the trampolines; `handle` is null or from `dlopen`.
unsafe fn fill(table: Table, handle: *mut c_void) {
    let mut name = table.names;
    for i in 0..table.count {
        // SAFETY: there are `count` names with a NUL after each, and `count` addresses in both
        // tables; other threads read the slots only as whole addresses.
        unsafe {
            let mut address = std::ptr::null_mut();
            if !handle.is_null() {
                address = libc::dlsym(handle, name);
            }
            if address.is_null() {
                address = *table.missing.add(i);
            }
            (*table.slots.add(i)).store(address, Ordering::Release);
            name = name.add(CStr::from_ptr(name).count_bytes() + 1);
        }
    }
}

/// Opens `file`: from the folders that the user named, from where the loader looks, then from
/// where toolkits are installed.
fn find(file: &str, folders: &Folders) -> Result<(*mut c_void, String), String> {
    for folder in &folders.named {
        let path = folder.join(file);
        if path.exists() {
            return dlopen(path.as_os_str()).map(|handle| (handle, path.display().to_string()));
        }
    }
    let unfound = match dlopen(OsStr::new(file)) {
        Ok(handle) => return Ok((handle, "where the loader looks".to_owned())),
        Err(reason) => reason,
    };
    for folder in &folders.usual {
        let path = folder.join(file);
        if path.exists() {
            return dlopen(path.as_os_str()).map(|handle| (handle, path.display().to_string()));
        }
    }
    let looked: Vec<String> =
        folders.named.iter().chain(&folders.usual).map(|f| f.display().to_string()).collect();
    Err(format!("{unfound}; not in {} either", looked.join(", ")))
}

fn dlopen(path: &OsStr) -> Result<*mut c_void, String> {
    let name = CString::new(path.as_bytes()).map_err(|e| e.to_string())?;
    // Global, so that cuBLAS finds the cuBLASLt that was opened before it.
    let flags: c_int = libc::RTLD_NOW | libc::RTLD_GLOBAL;
    // SAFETY: the name ends in NUL. Opening runs the library's own initialisation, which is what
    // loading it at the program's start would do.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: after a failure this is null or a text that lives until the thread's next call.
    let reason = unsafe {
        let text = libc::dlerror();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(reason.unwrap_or_else(|| format!("{}: cannot be opened", path.display())))
}

/// Folders with libraries, in the order in which they are looked at.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folders {
    /// From [`FOLDERS_VARIABLE`]: before where the loader looks.
    named: Vec<PathBuf>,
    usual: Vec<PathBuf>,
}

fn folders() -> Folders {
    let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut folders = Folders::default();
    if let Some(named) = env::var_os(FOLDERS_VARIABLE) {
        for folder in env::split_paths(&named).filter(|f| !f.as_os_str().is_empty()) {
            folders.named.extend(libraries_of_packages(&folder));
            folders.named.push(folder);
        }
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(var);
    for home in homes.chain([PathBuf::from("/usr/local/cuda")]) {
        folders.usual.push(home.join("lib64"));
    }
    // Where `scripts/cuda-toolkit` brings them.
    let cache = var("VERISCOPE_CACHE").or_else(|| {
        let cache = var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")))?;
        Some(cache.join("veriscope"))
    });
    let toolkit = concat!("cuda-", env!("VERISCOPE_CUDA_VERSION"));
    folders.usual.extend(cache.iter().flat_map(|c| libraries_of_packages(&c.join(toolkit))));
    // The driver inside the Windows Subsystem for Linux.
    folders.usual.push(PathBuf::from("/usr/lib/wsl/lib"));
    // Several of the variables may name one folder.
    let mut seen = HashSet::new();
    folders.usual.retain(|folder| {
        seen.insert(std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()))
    });
    folders
}

/// The folders `nvidia/*/lib` that NVIDIA's Python packages make, in order of name.
fn libraries_of_packages(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("nvidia")) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path().join("lib")))
        .filter(|lib| lib.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named_with_every_place() {
        let folders = Folders { named: vec!["/named".into()], usual: vec!["/usual".into()] };
        let reason = find("libnone.so.7", &folders).unwrap_err();
        assert!(reason.contains("libnone.so.7: cannot open shared object file"), "{reason}");
        assert!(reason.ends_with("not in /named, /usual either"), "{reason}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_the_loader_s_reason() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("libnone.so.7"), "text").unwrap();
        let folders = Folders { named: vec![dir.path().into()], usual: Vec::new() };
        let reason = find("libnone.so.7", &folders).unwrap_err();
        assert!(reason.contains("libnone.so.7") && reason.contains("file too short"), "{reason}");
    }

    #[test]
    fn packages_of_python_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        for package in ["cublas", "cu13"] {
            std::fs::create_dir_all(dir.path().join("nvidia").join(package).join("lib")).unwrap();
        }
        std::fs::create_dir_all(dir.path().join("nvidia/cudnn/include")).unwrap();
        let found = libraries_of_packages(dir.path());
        let want = ["cu13", "cublas"].map(|p| dir.path().join("nvidia").join(p).join("lib"));
        assert_eq!(found, want);
    }

    /// Through a trampoline into a real library where there is one, and into the error code where
    /// there is none. nvrtc needs no GPU.
    #[test]
    fn calls_reach_the_library_or_answer_with_an_error() {
        use cudarc::nvrtc::sys::{nvrtcGetErrorString, nvrtcResult, nvrtcVersion};
        let (mut major, mut minor) = (-1, -1);
        // SAFETY: the call writes two numbers.
        let code = unsafe { nvrtcVersion(&mut major, &mut minor) };
        match open(Library::Nvrtc) {
            Ok(place) => {
                assert_eq!(code, nvrtcResult::NVRTC_SUCCESS, "{place}");
                assert_eq!(format!("{major}.{minor}"), env!("VERISCOPE_CUDA_VERSION"), "{place}");
            }
            Err(reason) => {
                assert_eq!(code, nvrtcResult::NVRTC_ERROR_INTERNAL_ERROR, "{reason}");
                assert_eq!((major, minor), (-1, -1));
                // SAFETY: any code may be asked for; the answer is a static text.
                let text = unsafe { CStr::from_ptr(nvrtcGetErrorString(code)) };
                assert_eq!(text.to_str().unwrap(), "the library could not be opened");
            }
        }
    }

    #[test]
    fn without_a_driver_its_calls_say_so() {
        if open(Library::Driver).is_err() {
            let error = cudarc::driver::result::init().unwrap_err();
            assert_eq!(error.0, cudarc::driver::sys::CUresult::CUDA_ERROR_STUB_LIBRARY);
        }
    }
}
