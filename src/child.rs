//! Programs of others that work on hostile input: limited, killed at their deadline, reaped.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How a child that failed came to its end, in words.
fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGXCPU) => "it used up its CPU time and was ended".to_owned(),
        Some(libc::SIGABRT) => "it was aborted, as when its memory is used up".to_owned(),
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended with exit code {}", status.code().unwrap_or(-1)),
    }
}

/// Lets a child work to its end: writes `input` where its stdin is a pipe, and gives back the first `most`
/// bytes of what it says on its stdout, which has to be one.
///
/// # Errors
/// One sentence: it was ended at the deadline, or failed. Nothing of it is left then.
pub(crate) fn output(
    child: Child,
    input: &[u8],
    most: u64,
    deadline: Duration,
) -> Result<Vec<u8>, String> {
    let started = Instant::now();
    let mut child = Reaped(child);
    let stdin = child.0.stdin.take();
    let Some(stdout) = child.0.stdout.take() else {
        return Err("it has no output".to_owned());
    };
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        // Both end at the latest when the program was killed, which closes the pipes. That it does
        // not read its input to the end is told by its exit code.
        if let Some(mut stdin) = stdin {
            scope.spawn(move || stdin.write_all(input));
        }
        scope.spawn(move || {
            let mut text = Vec::new();
            let read = stdout.take(most).read_to_end(&mut text);
            // Nobody listens any more where the deadline is over.
            let _ = send.send(read.map(|_| text));
        });
        let left = || deadline.saturating_sub(started.elapsed());
        let said = receive.recv_timeout(left());
        let status = child.wait(left());
        match (said, status) {
            (_, Ok(None)) | (Err(mpsc::RecvTimeoutError::Timeout), _) => {
                Err(format!("it took more than {} s and was ended", deadline.as_secs_f64()))
            }
            (_, Err(e)) => Err(format!("it cannot be waited for: {e}")),
            (Ok(Ok(text)), Ok(Some(status))) if status.success() => Ok(text),
            (_, Ok(Some(status))) => Err(ended(status)),
        }
        // Here a program that is still there is killed and reaped, before the scope joins.
        .inspect_err(|_| child.end())
    })
}

/// A child that never stays behind.
struct Reaped(Child);

impl Reaped {
    /// Waits for at most `limit`. None: it still runs.
    fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
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
    fn end(&mut self) {
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
