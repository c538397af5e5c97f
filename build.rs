//! What the feature `cuda` needs: nothing is done without it.

// A build script has no other way to say what is wrong than to panic with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "cuda")]
#[path = "build/kernels.rs"]
mod kernels;
#[cfg(feature = "cuda")]
#[path = "build/trampolines.rs"]
mod trampolines;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels::compile_kernels();
    #[cfg(feature = "cuda")]
    trampolines::build();
}
