//! The CUDA build with drivers that are there and cannot be used: stand-ins for `libcuda.so.1`,
//! compiled here. Run by scripts/check-cuda.
#![cfg(feature = "cuda")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{PROGRAM, root};

/// A driver that answers what the environment says, and fails where it knows nothing.
const DRIVER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int env(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
int cuInit(unsigned flags) { return env("FAKE_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = env("FAKE_VERSION", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = env("FAKE_COUNT", 1); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int size, int device) { snprintf(name, size, "Fake GPU"); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)8 << 30; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int capability = env("FAKE_CAPABILITY", 90);
    *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : 0;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return 2; }
int cuGetErrorString(int code, const char **text) {
    *text = code == 100 ? "no CUDA-capable device is detected" : "an error";
    return 0;
}
"#;

fn driver(dir: &Path) {
    let source = dir.join("driver.c");
    std::fs::write(&source, DRIVER).unwrap();
    let library = dir.join("libcuda.so.1");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-w", "-o"]).arg(library).arg(source);
    assert!(cc.status().unwrap().success());
}

fn scan(libraries: &Path, device: &str, env: &[(&str, &str)]) -> Output {
    let picture = root().join("demo/label-intact.png");
    Command::new(PROGRAM)
        .args(["scan", "--format", "jsonl", "--device", device])
        .arg(picture)
        .env("VERISCOPE_CUDA_LIBRARIES", libraries)
        .env_remove("RUST_LOG")
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

#[test]
fn each_driver_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path());
    for (env, said) in [
        (
            ("FAKE_INIT", "100"),
            "the NVIDIA driver does not start: no CUDA-capable device is detected (CUDA_ERROR_NO_DEVICE)",
        ),
        (
            ("FAKE_VERSION", "12040"),
            "the NVIDIA driver is for CUDA 12.4, this program needs a driver for CUDA 13.0 or newer",
        ),
        (("FAKE_COUNT", "0"), "there is no device 0: the NVIDIA driver offers 0"),
        (
            ("FAKE_CAPABILITY", "75"),
            "Fake GPU has compute capability 7.5, this program needs 8.0 or newer",
        ),
        // The context cannot be made; cuBLAS and cuRAND come from the toolkit.
        (("FAKE_COUNT", "1"), "device 0 does not start: DriverError(CUDA_ERROR_OUT_OF_MEMORY"),
    ] {
        let asked = scan(dir.path(), "cuda", &[env]);
        let stderr = String::from_utf8(asked.stderr).unwrap();
        assert_eq!(asked.status.code(), Some(1), "{stderr}");
        assert!(asked.stdout.is_empty());
        let want = format!("veriscope: device cuda:0 is not available: {said}");
        assert!(stderr.starts_with(&want), "{stderr}");

        // Left open, the CPU does it, and the report says why.
        let open = scan(dir.path(), "auto", &[env]);
        assert_eq!(open.status.code(), Some(0));
        let report: serde_json::Value = serde_json::from_slice(&open.stdout).unwrap();
        assert_eq!(report["engine"]["device"], "cpu");
        let note = report["engine"]["device_note"].as_str().unwrap();
        assert!(note.starts_with(&format!("device cuda:0 is not available: {said}")), "{note}");

        let cpu = scan(dir.path(), "cpu", &[env]);
        let plain: serde_json::Value = serde_json::from_slice(&cpu.stdout).unwrap();
        assert_eq!(plain["engine"].get("device_note"), None);
        assert_eq!(plain["segments"], report["segments"]);
    }
}

#[test]
fn doctor_tells_of_the_gpu_and_that_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    driver(dir.path());
    let doctor = Command::new(PROGRAM)
        .arg("doctor")
        .env("VERISCOPE_CUDA_LIBRARIES", dir.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = String::from_utf8(doctor.stdout).unwrap();
    // The scan needs no GPU.
    assert_eq!(doctor.status.code(), Some(0), "{text}");
    for said in [
        "built in, the NVIDIA driver is for CUDA 13.0",
        &format!("libcuda.so.1   {}/libcuda.so.1", dir.path().display()),
        "cuda:0         Fake GPU, 8.0 GiB, compute capability 9.0",
        "not passed, so scans use the CPU: device cuda:0 is not available: device 0 does not start",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}
