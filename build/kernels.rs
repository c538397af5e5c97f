//! `kernels/*.cu` → PTX in the build's folder, which `src/nn/cuda` takes in.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const KERNELS: [&str; 6] = ["conv", "conv_half", "depthwise", "features", "picture", "pool"];

/// Compiles the kernels for the compute capability that `CUDA_COMPUTE_CAP` names (80, Ampere,
/// where it names none): a driver compiles PTX for that GPU and all newer ones.
///
/// # Panics
/// With what is missing or what the compiler said, which ends the build.
pub fn compile_kernels() {
    for variable in ["CUDA_COMPUTE_CAP", "NVCC", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-changed=kernels");
    let capability = capability();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let nvcc = nvcc();
    for name in KERNELS {
        let source = Path::new("kernels").join(name).with_extension("cu");
        let mut command = Command::new(&nvcc);
        command.args(["-ptx", "-std=c++17", "-O3", "-Werror", "all-warnings"]);
        // The kernels say themselves what is fused; see kernels/common.cuh.
        command.arg("-fmad=false").arg(format!("-arch=compute_{capability}"));
        command.arg("-o").arg(out.join(name).with_extension("ptx")).arg(&source);
        let output =
            command.output().unwrap_or_else(|e| panic!("{}: {e}; is CUDA there?", nvcc.display()));
        assert!(
            output.status.success(),
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// The compute capability that the program is built for. Its digits alone: the kernels use nothing
/// that only one architecture has, which is what a letter behind them asks for.
pub fn capability() -> String {
    let named = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".to_owned());
    let digits: String = named.chars().take_while(char::is_ascii_digit).collect();
    assert!(!digits.is_empty(), "CUDA_COMPUTE_CAP: {named} is no compute capability such as 80");
    digits
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    ["CUDA_HOME", "CUDA_PATH"]
        .into_iter()
        .filter_map(env::var_os)
        .map(|home| Path::new(&home).join("bin/nvcc"))
        .find(|nvcc| nvcc.is_file())
        .unwrap_or_else(|| "nvcc".into())
}
