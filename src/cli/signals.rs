//! Signals that ask the program to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{EXIT_INTERRUPTED, complain};

/// Ctrl-C and SIGTERM: the first ends the work, the second the program.
pub struct Signals {
    /// Set by the first, and by whoever else wants the work to end.
    pub stop: Arc<AtomicBool>,
    caught: Arc<AtomicBool>,
}

impl Signals {
    /// From here on signals are caught.
    ///
    /// # Errors
    /// One sentence, where they cannot be.
    pub fn catch() -> Result<Self, String> {
        let signals = Self { stop: Arc::default(), caught: Arc::default() };
        let (stop, caught) = (signals.stop.clone(), signals.caught.clone());
        ctrlc::set_handler(move || {
            stop.store(true, Ordering::SeqCst);
            if caught.swap(true, Ordering::SeqCst) {
                std::process::exit(EXIT_INTERRUPTED.into());
            }
            complain("stopping; what is finished is kept. Once more to quit at once");
        })
        .map_err(|e| format!("signals cannot be caught: {e}"))?;
        Ok(signals)
    }

    /// Whether a signal came.
    pub fn caught(&self) -> bool {
        self.caught.load(Ordering::SeqCst)
    }
}
