//! When segments are told before a file's end.

use std::time::{Duration, Instant};

/// Between two times, of the media and of the clock.
const MEDIA_MS: i64 = 2_000;
const WALL: Duration = Duration::from_millis(500);
/// The next time comes after at least so many times what the last one took.
const SHARE: u32 = 50;

/// Says when; the work stays under a [`SHARE`]th of the time however long the file is.
pub struct Pace {
    media_ms: i64,
    wall: Instant,
}

impl Pace {
    /// The first time is due at the file's start.
    pub fn new() -> Self {
        Self { media_ms: i64::MIN, wall: Instant::now() }
    }

    /// Does `tell` if its time has come at `media_ms` of the media.
    ///
    /// # Errors
    /// Those of `tell`.
    pub fn tell<E>(
        &mut self,
        media_ms: i64,
        tell: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let started = Instant::now();
        if media_ms < self.media_ms || started < self.wall {
            return Ok(());
        }
        tell()?;
        self.media_ms = media_ms.saturating_add(MEDIA_MS);
        self.wall = started + WALL.max(started.elapsed() * SHARE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_at_once_and_then_seldom() {
        let mut pace = Pace::new();
        let told = |pace: &mut Pace, media_ms| {
            let mut told = false;
            let tell = || {
                std::thread::sleep(Duration::from_millis(12));
                told = true;
                Ok::<(), ()>(())
            };
            pace.tell(media_ms, tell).unwrap();
            told
        };
        assert!(told(&mut pace, 0));
        let soon = Instant::now() + Duration::from_millis(400);
        // By the clock too early, whatever the media.
        assert!(!told(&mut pace, 100_000));
        assert!(pace.wall > soon);
        pace.wall = Instant::now();
        // By the media too early, whatever the clock.
        assert!(!told(&mut pace, 1_999));
        assert!(told(&mut pace, 2_000));
        // What takes long comes more seldom: 12 ms, 50 times.
        assert!(pace.wall > Instant::now() + Duration::from_millis(550));
    }
}
