//! Programs of others that work on hostile input: limited, killed at their deadline, reaped.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, ChildStdout, ExitStatus};
use std::time::{Duration, Instant};

/// How a child that failed came to its end, in words.
pub(crate) fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGXCPU) => "it used up its CPU time and was ended".to_owned(),
        Some(libc::SIGABRT) => "it was aborted, as when its memory is used up".to_owned(),
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended with exit code {}", status.code().unwrap_or(-1)),
    }
}

/// A child that never stays behind.
pub(crate) struct Reaped(Child);

impl Reaped {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its output, once.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Its input, once.
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.0.stdin.take()
    }

    /// Waits for at most `limit`. None: it still runs.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            let left = limit.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // It has closed its output, so it is about to end.
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Kills it with whatever it started in its turn, and reaps it.
    pub(crate) fn end(&mut self) {
        if let Ok(None) = self.0.try_wait()
            && let Ok(group) = i32::try_from(self.0.id())
        {
            // SAFETY: kill touches no memory. The group is that of the child, which was not yet
            // waited for, so that the number is not another's.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        // It was killed or has ended; an error means that nothing is left to reap.
        let _ = self.0.wait();
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        self.end();
    }
}

/// Limits the calling process: CPU time, address space, no core dump, no file may grow, and killed
/// when the thread that started it ends.
///
/// # Errors
/// A limit that the system refuses; then nothing should be parsed.
pub fn confine(cpu_seconds: u64, memory_bytes: u64) -> io::Result<()> {
    let limits = [
        // At the first SIGXCPU, which tells why; at the second SIGKILL.
        (libc::RLIMIT_CPU, cpu_seconds, cpu_seconds.saturating_add(1)),
        (libc::RLIMIT_AS, memory_bytes, memory_bytes),
        (libc::RLIMIT_CORE, 0, 0),
        (libc::RLIMIT_FSIZE, 0, 0),
    ];
    for (resource, soft, hard) in limits {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `limit` is a valid rlimit that outlives the call.
        if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
