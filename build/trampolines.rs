//! One program for machines with and without CUDA.
//!
//! candle has its CUDA side linked against the CUDA libraries, so that the program would not even
//! start where they are not installed. This makes static archives of the same names (`libcuda.a`,
//! `libcublas.a`, …) that the linker finds instead. Each of their functions jumps through a table;
//! the first call of a library has `src/device/libraries.rs` open the real one and fill the table.
//! What is not there answers with an error code of its interface.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A library, and where cudarc's bindings name its functions.
struct Library {
    /// As the linker is asked for it, and as the symbols of its table are called.
    name: &'static str,
    bindings: &'static str,
    /// What its functions answer where it is not there.
    error: u32,
    /// Whether it is ever opened.
    opened: bool,
}

/// In the order of `Library` in `src/device/libraries.rs`.
const LIBRARIES: [Library; 6] = [
    // CUDA_ERROR_STUB_LIBRARY.
    Library { name: "cuda", bindings: "driver", error: 34, opened: true },
    // CUBLAS_STATUS_NOT_INITIALIZED, for both.
    Library { name: "cublasLt", bindings: "cublaslt", error: 1, opened: true },
    Library { name: "cublas", bindings: "cublas", error: 1, opened: true },
    // CURAND_STATUS_INITIALIZATION_FAILED.
    Library { name: "curand", bindings: "curand", error: 203, opened: true },
    // NVRTC_ERROR_INTERNAL_ERROR.
    Library { name: "nvrtc", bindings: "nvrtc", error: 11, opened: true },
    // cudaErrorStubLibrary. Only candle's kernels for quantised networks call it, and those are
    // not used here; but each of their files registers itself when the program starts, which must
    // not open anything.
    Library { name: "cudart", bindings: "runtime", error: 34, opened: false },
];

/// What nvcc's own code calls in the runtime library and its header does not name.
const HIDDEN_RUNTIME: [&str; 11] = [
    "__cudaRegisterFatBinary",
    "__cudaRegisterFatBinaryEnd",
    "__cudaUnregisterFatBinary",
    "__cudaRegisterFunction",
    "__cudaRegisterVar",
    "__cudaInitModule",
    "__cudaPushCallConfiguration",
    "__cudaPopCallConfiguration",
    "__cudaGetKernel",
    "__cudaLaunchKernel",
    "__cudaLaunchKernel_ptsz",
];

struct Function {
    name: String,
    /// It answers with an address, not with a code.
    address: bool,
}

/// Writes, assembles and offers the archives to the linker.
///
/// # Panics
/// With what is missing, which ends the build.
pub fn build() {
    let target = env::var("TARGET").expect("cargo sets TARGET");
    assert!(
        target.starts_with("x86_64-") && target.contains("linux"),
        "the feature `cuda` is made for Linux on x86_64, not for {target}: build without it"
    );
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rustc-env=VERISCOPE_CUDA_VERSION={}", cuda_version());
    println!("cargo::rerun-if-env-changed=CUDA_COMPUTE_CAP");
    let capability = super::kernels::capability();
    println!("cargo::rustc-env=VERISCOPE_CUDA_COMPUTE_CAP={capability}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("cuda");
    fs::create_dir_all(&out).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
    let bindings = cudarc();
    for (number, library) in LIBRARIES.iter().enumerate() {
        let file = bindings.join("src").join(library.bindings).join("sys/mod.rs");
        let mut functions = functions(&file);
        if library.name == "cudart" {
            functions.extend(HIDDEN_RUNTIME.map(|name| Function {
                name: name.to_owned(),
                address: name == "__cudaRegisterFatBinary",
            }));
        }
        let source = out.join(format!("{}.s", library.name));
        fs::write(&source, assembly(number, library, &functions))
            .unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        let object = out.join(format!("{}.o", library.name));
        let archive = out.join(format!("lib{}.a", library.name));
        run(Command::new("cc").arg("-c").arg("-o").arg(&object).arg(&source));
        let _ = fs::remove_file(&archive);
        run(Command::new("ar").arg("crs").arg(&archive).arg(&object));
    }
    println!("cargo::rustc-link-search=native={}", out.display());
}

fn run(command: &mut Command) -> String {
    let told = format!("{command:?}");
    let output = command.output().unwrap_or_else(|e| panic!("{told}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The toolkit's version, such as `13.0`.
fn cuda_version() -> String {
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed=PATH");
    let said = run(Command::new("nvcc").arg("--version"));
    let release = said.split("release ").nth(1).and_then(|rest| rest.split(',').next());
    release.unwrap_or_else(|| panic!("nvcc --version says no release: {said}")).to_owned()
}

/// The folder of the cudarc that the program is built with.
fn cudarc() -> PathBuf {
    let metadata = run(Command::new(env::var_os("CARGO").expect("cargo sets CARGO"))
        .args(["metadata", "--format-version=1", "--offline", "--features=cuda"])
        .arg(format!("--filter-platform={}", env::var("TARGET").expect("cargo sets TARGET")))
        .current_dir(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR")));
    let package = metadata.split(r#"{"name":"cudarc","version":"#).nth(1);
    let manifest = package
        .and_then(|rest| rest.split(r#""manifest_path":""#).nth(1))
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("cargo metadata names no package cudarc"));
    Path::new(manifest).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The functions that a file of cudarc's bindings declares; each may stand there several times,
/// for different versions of CUDA.
fn functions(file: &Path) -> Vec<Function> {
    println!("cargo::rerun-if-changed={}", file.display());
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut functions: Vec<Function> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.trim_start().strip_prefix("fn ")?.split_once('(')?;
            let declared = rest.trim_end().strip_suffix(';')?;
            let address =
                declared.rsplit_once("-> ").is_some_and(|(_, answer)| answer.starts_with('*'));
            Some(Function { name: name.to_owned(), address })
        })
        .collect();
    functions.sort_by(|a, b| a.name.cmp(&b.name));
    functions.dedup_by(|a, b| a.name == b.name);
    assert!(!functions.is_empty(), "{}: no functions found", file.display());
    functions
}

/// Per library: a table of addresses (`_slots`), what stands in it for what is missing
/// (`_missing`), the names, NUL after each (`_names`), and their number (`_count`).
fn assembly(number: usize, library: &Library, functions: &[Function]) -> String {
    let table = format!("veriscope_{}", library.name);
    let mut code = String::from(".text\n");
    let (mut slots, mut missing, mut names) = (String::new(), String::new(), String::new());
    for (i, Function { name, address }) in functions.iter().enumerate() {
        let absent = if *address { ".Lno_address" } else { ".Lno_code" };
        code += &format!(
            ".globl {name}\n.hidden {name}\n.type {name}, @function\n.p2align 3\n\
             {name}: jmp *{table}_slots+{offset}(%rip)\n",
            offset = i * 8
        );
        if library.opened {
            code += &format!(".Lfirst{i}: pushq ${i}\n jmp .Lopen\n");
            slots += &format!(" .quad .Lfirst{i}\n");
        } else {
            slots += &format!(" .quad {absent}\n");
        }
        missing += &format!(" .quad {absent}\n");
        names += &format!(" .asciz \"{name}\"\n");
    }
    let save = ["rdi", "rsi", "rdx", "rcx", "r8", "r9", "rax", "r10"];
    let pushes: String = save.iter().map(|r| format!(" pushq %{r}\n")).collect();
    let pops: String = save.iter().rev().map(|r| format!(" popq %{r}\n")).collect();
    let vectors = |line: &dyn Fn(usize) -> String| (0..8).map(line).collect::<String>();
    if library.opened {
        // On entry: the function's number, then the caller's return address. What carries
        // arguments is kept, the library is opened, and the call goes on through its slot.
        code += &format!(
            ".p2align 4\n.Lopen: pushq %rbp\n movq %rsp, %rbp\n{pushes} andq $-16, %rsp\n \
             subq $128, %rsp\n{} movl ${number}, %edi\n call veriscope_cuda_open@PLT\n{} \
             leaq -64(%rbp), %rsp\n{pops} popq %rbp\n popq %r11\n leaq {table}_slots(%rip), %r10\n \
             jmp *(%r10,%r11,8)\n",
            vectors(&|i| format!(" movups %xmm{i}, {}(%rsp)\n", i * 16)),
            vectors(&|i| format!(" movups {}(%rsp), %xmm{i}\n", i * 16)),
        );
    }
    let global = |name: &str| format!(".globl {table}_{name}\n.hidden {table}_{name}\n");
    let heads = ["slots", "missing", "names", "count"].map(global).concat();
    format!(
        "{code}.Lno_code: movl ${error}, %eax\n ret\n\
         .Lno_address: leaq .Ltext(%rip), %rax\n ret\n\
         {heads}\
         .section .rodata\n.p2align 3\n{table}_count: .quad {count}\n{table}_names:\n{names}\
         .Ltext: .asciz \"the library could not be opened\"\n\
         .section .data.rel.ro,\"aw\"\n.p2align 3\n{table}_missing:\n{missing}\
         .data\n.p2align 3\n{table}_slots:\n{slots}\
         .section .note.GNU-stack,\"\",@progbits\n",
        error = library.error,
        count = functions.len(),
    )
}
