//! The CUDA build with drivers that are there and cannot be used: stand-ins for `libcuda.so.1`,
//! compiled here; and with one that runs the kernels on the host, and that may have little memory
//! or be lost at any moment. Run by scripts/check-cuda, with CUDA 13.
#![cfg(feature = "cuda")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{PROGRAM, root};
use veriscope::report::{ReasonCode, Report};

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

/// The driver that runs the kernels on the host, as scripts/check-cuda builds it.
fn emulated(dir: &Path) {
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-w", "-fno-strict-aliasing"]);
    compiler.args(["-ffp-contract=off", "-U_FORTIFY_SOURCE", "-o"]);
    compiler.arg(dir.join("libcuda.so.1")).arg(root().join("kernels/host/driver.cpp"));
    if std::is_x86_feature_detected!("fma") {
        compiler.arg("-mfma");
    }
    assert!(compiler.status().unwrap().success());
    for library in ["libcublas.so.13", "libcublasLt.so.13", "libcurand.so.10"] {
        std::os::unix::fs::symlink("libcuda.so.1", dir.join(library)).unwrap();
    }
}

/// Reports in order of path, and stderr.
fn scan_demo(libraries: &Path, device: &str, env: Option<(&str, String)>) -> (Vec<Report>, String) {
    let output = Command::new(PROGRAM)
        .args(["scan", "--format", "jsonl", "--precision", "f32", "--fps", "2", "--jobs", "1"])
        .args(["--device", device])
        .args(["demo/label-intact.png", "demo/label-stripped.mp4"].map(|name| root().join(name)))
        .env("VERISCOPE_CUDA_LIBRARIES", libraries)
        .env_remove("RUST_LOG")
        .envs(env)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let mut reports: Vec<Report> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    reports.sort_by(|a, b| a.media.path.cmp(&b.media.path));
    assert_eq!(reports.len(), 2, "{stderr}");
    (reports, stderr)
}

fn windows(report: &Report) -> Vec<f32> {
    report.tracks.iter().flat_map(|t| &t.windows).map(|w| w.probability).collect()
}

fn is_lost(report: &Report) -> bool {
    report.reasons.iter().any(|r| r.code == ReasonCode::DeviceLost)
}

#[test]
fn whole_scans_answer_alike_whatever_the_device_does() {
    let dir = tempfile::tempdir().unwrap();
    emulated(dir.path());
    let (cpu, _) = scan_demo(dir.path(), "cpu", None);
    assert!(windows(&cpu[1]).len() > 10);
    let same = |reports: &[Report]| {
        for (found, want) in reports.iter().zip(&cpu) {
            let (found, want) = (windows(found), windows(want));
            assert_eq!(found.len(), want.len());
            assert!(found.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-3));
        }
    };
    let gpu = "cuda:0 emulated on the host";

    let (whole, stderr) = scan_demo(dir.path(), "cuda", None);
    same(&whole);
    assert!(whole.iter().all(|r| r.engine.device == gpu && !is_lost(r)), "{stderr}");

    // Memory for the networks and the self-test, but not for a full batch.
    let (small, stderr) =
        scan_demo(dir.path(), "cuda", Some(("EMULATED_BYTES", "40000000".to_owned())));
    same(&small);
    assert!(small.iter().all(|r| r.engine.device == gpu && !is_lost(r)), "{stderr}");
    assert_eq!(stderr.matches("too little memory").count(), 1, "{stderr}");

    let mut midway = 0;
    for launches in (0..900).step_by(100) {
        let env = Some(("EMULATED_LAUNCHES", launches.to_string()));
        let (reports, stderr) = scan_demo(dir.path(), "auto", env);
        same(&reports);
        let devices: Vec<&str> = reports.iter().map(|r| r.engine.device.as_str()).collect();
        let both = format!("{gpu} + cpu");
        midway += usize::from(devices.contains(&both.as_str()));
        for report in &reports {
            let told = (is_lost(report), report.engine.device_note.is_some());
            let device = report.engine.device.as_str();
            let want = match device {
                d if d == gpu => (false, false),
                d if d == both => (true, false),
                // Refused at the start, or lost before this file.
                "cpu" => (!told.1, told.1),
                other => panic!("{other}"),
            };
            assert_eq!(told, want, "{launches} {device}: {stderr}");
        }
        assert!(stderr.lines().count() <= 1, "told once: {stderr}");
    }
    assert!(midway >= 2, "{midway}");
}
