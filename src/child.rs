//! Programs of others that work on hostile input: limited, killed at their deadline, reaped.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How a child that failed came to its end, in words.
fn ended(status: ExitStatus) -> String {
    match status.signal() {
        Some(libc::SIGXCPU) => "it used up its CPU time and was ended".to_owned(),
        Some(libc::SIGXFSZ) => "it wrote a file larger than allowed and was ended".to_owned(),
        Some(libc::SIGABRT) => "it was aborted, as when its memory is used up".to_owned(),
        Some(signal) => format!("it was ended by signal {signal}"),
        None => format!("it ended with exit code {}", status.code().unwrap_or(-1)),
    }
}

/// Lets a child work to its end: writes `input` where its stdin is a pipe, and gives back the first `most`
/// bytes of what it says on its stdout, which has to be one.
///
/// # Errors
/// One sentence: it was ended at the deadline or because `stop` was set, or failed. Nothing of it is
/// left then.
pub(crate) fn output(
    child: Child,
    input: &[u8],
    most: u64,
    deadline: Duration,
    stop: &AtomicBool,
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
        let said = loop {
            match receive.recv_timeout(left().min(LOOK)) {
                Err(mpsc::RecvTimeoutError::Timeout) if !left().is_zero() => {
                    if stop.load(Ordering::Relaxed) {
                        // Otherwise the scope would wait for it.
                        child.end();
                        return Err("the file was given up".to_owned());
                    }
                }
                said => break said,
            }
        };
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

/// How often a flag to stop is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What a supervised child may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supervision {
    pub deadline: Duration,
    /// Bytes on its stdout; more end it.
    pub most_output: usize,
}

/// How a supervised child ended.
#[derive(Debug)]
pub(crate) enum Supervised {
    Ended {
        stdout: Vec<u8>,
        /// Largest resident memory of the child or of one of the children that it waited for.
        peak_memory_bytes: Option<u64>,
    },
    /// The stop flag was set, and it was ended.
    Stopped,
}

/// The end of its stderr that a failure quotes.
const SAID: usize = 400;
/// How long pipes are listened to once the child and its group are gone: a process that left the
/// group may hold them for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// Lets a child work to its end like [`output`], and besides heeds `stop`, quotes what it said last on
/// its stderr, and leaves nothing of its process group behind, however it ended. The child has to be
/// the leader of a group of its own; its stdout and stderr have to be pipes.
///
/// # Errors
/// One sentence: it took too long, said too much, or failed.
pub(crate) fn supervise(
    mut child: Child,
    input: Vec<u8>,
    limits: Supervision,
    stop: &AtomicBool,
) -> Result<Supervised, String> {
    let started = Instant::now();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut group = Group { leader: child.id(), reaped: false };
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err("it has no output".to_owned());
    };
    // Threads of their own, which nobody joins: what left the group may keep a pipe open.
    if let Some(mut stdin) = stdin {
        std::thread::spawn(move || stdin.write_all(&input));
    }
    let (send, said) = mpsc::channel();
    let most = limits.most_output as u64;
    let too_much = send.clone();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.take(most + 1).read_to_end(&mut text);
        let _ = too_much.send(Said::Stdout(read.map(|_| text)));
    });
    std::thread::spawn(move || {
        let _ = send.send(Said::Stderr(tail(stderr)));
    });
    let mut stdout: Option<io::Result<Vec<u8>>> = None;
    let mut stderr = String::new();
    let mut pause = Duration::from_micros(500);
    let mut take = |said: Said, stdout: &mut Option<io::Result<Vec<u8>>>| match said {
        Said::Stdout(read) => *stdout = Some(read),
        Said::Stderr(text) => stderr = text,
    };
    let why = loop {
        if group.has_ended().map_err(|e| format!("it cannot be waited for: {e}"))? {
            break None;
        }
        if stop.load(Ordering::SeqCst) {
            return Ok(Supervised::Stopped);
        }
        if matches!(&stdout, Some(Ok(text)) if text.len() as u64 > most) {
            break Some(format!("it wrote more than {most} bytes to its stdout and was ended"));
        }
        if started.elapsed() >= limits.deadline {
            let seconds = limits.deadline.as_secs_f64();
            break Some(format!("it took more than {seconds} s and was ended"));
        }
        match said.recv_timeout(pause) {
            Ok(now) => take(now, &mut stdout),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // Both pipes are closed; it is about to end.
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let (status, peak_memory_bytes) =
        group.end().map_err(|e| format!("it cannot be waited for: {e}"))?;
    let deadline = Instant::now() + DRAIN;
    // Ends early once both have been heard.
    while let Ok(now) = said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        take(now, &mut stdout);
    }
    let quoted = |why: String| match stderr.trim() {
        "" => why,
        said => format!("{why}; it said: {said}"),
    };
    if let Some(why) = why {
        return Err(quoted(why));
    }
    // First, for this is what a broken pipe comes from.
    if matches!(&stdout, Some(Ok(text)) if text.len() as u64 > most) {
        return Err(quoted(format!("it wrote more than {most} bytes to its stdout and was ended")));
    }
    if !status.success() {
        return Err(quoted(ended(status)));
    }
    match stdout {
        Some(Ok(stdout)) => Ok(Supervised::Ended { stdout, peak_memory_bytes }),
        Some(Err(e)) => Err(format!("its stdout cannot be read: {e}")),
        None => Err("a process that it left behind keeps its stdout open".to_owned()),
    }
}

enum Said {
    Stdout(io::Result<Vec<u8>>),
    Stderr(String),
}

/// The last [`SAID`] bytes, in one line.
fn tail(mut from: impl io::Read) -> String {
    let mut last = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        last.extend_from_slice(&piece[..read]);
        last.drain(..last.len().saturating_sub(SAID));
    }
    let text = String::from_utf8_lossy(&last);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines.join(" | ").chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A child that leads a process group, of which nothing stays behind.
struct Group {
    leader: u32,
    reaped: bool,
}

impl Group {
    /// Whether the leader has ended; it is not reaped, so that its number stays its own.
    fn has_ended(&self) -> io::Result<bool> {
        // SAFETY: all zeros is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is a valid siginfo_t that outlives the call.
        if unsafe { libc::waitid(libc::P_PID, self.leader, &raw mut info, options) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid filled it in or left it zero.
        Ok(unsafe { info.si_pid() } != 0)
    }

    /// Kills what is left of the group and reaps the leader: how it ended and its largest memory.
    fn end(&mut self) -> io::Result<(ExitStatus, Option<u64>)> {
        if let Ok(group) = i32::try_from(self.leader) {
            // SAFETY: kill touches no memory. The leader was not reaped, so that the number of its
            // group is not another's.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let mut status = 0;
        // SAFETY: all zeros is a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        loop {
            let leader = self.leader as libc::pid_t;
            // SAFETY: both pointers are to values that outlive the call.
            let waited = unsafe { libc::wait4(leader, &raw mut status, 0, &raw mut usage) };
            if waited >= 0 {
                break;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        self.reaped = true;
        // Linux counts in KiB.
        let peak = u64::try_from(usage.ru_maxrss).ok().filter(|k| *k > 0).map(|k| k * 1024);
        Ok((ExitStatus::from_raw(status), peak))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            // An error means that nothing is left to reap.
            let _ = self.end();
        }
    }
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
    confine_writing(cpu_seconds, memory_bytes, 0)
}

/// The same for a process that may write files of at most `file_bytes` each.
///
/// # Errors
/// As [`confine`].
pub(crate) fn confine_writing(
    cpu_seconds: u64,
    memory_bytes: u64,
    file_bytes: u64,
) -> io::Result<()> {
    let limits = [
        // At the first SIGXCPU, which tells why; at the second SIGKILL.
        (libc::RLIMIT_CPU, cpu_seconds, cpu_seconds.saturating_add(1)),
        (libc::RLIMIT_AS, memory_bytes, memory_bytes),
        (libc::RLIMIT_CORE, 0, 0),
        (libc::RLIMIT_FSIZE, file_bytes, file_bytes),
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
