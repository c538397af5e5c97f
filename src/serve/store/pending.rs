//! A write that is on its way to the disk.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::StoreError;

/// The result of a write, known once it is on the disk. A write goes ahead whether or not anybody
/// waits for it.
#[must_use = "whether the write succeeded is known only here"]
#[derive(Debug)]
pub struct Pending<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Slot<T> {
    result: Option<Result<T, StoreError>>,
    waker: Option<Waker>,
}

/// The other end; dropped without an answer it says that the store has stopped.
#[derive(Debug)]
pub(super) struct Answer<T>(Option<Arc<Shared<T>>>);

pub(super) fn pending<T>() -> (Answer<T>, Pending<T>) {
    let slot = Mutex::new(Slot { result: None, waker: None });
    let shared = Arc::new(Shared { slot, filled: Condvar::new() });
    (Answer(Some(shared.clone())), Pending(shared))
}

impl<T> Answer<T> {
    pub(super) fn give(mut self, result: Result<T, StoreError>) {
        self.fill(result);
    }

    fn fill(&mut self, result: Result<T, StoreError>) {
        let Some(shared) = self.0.take() else { return };
        let waker = {
            let mut slot = shared.slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.result = Some(result);
            slot.waker.take()
        };
        shared.filled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.fill(Err(StoreError::Stopped));
    }
}

impl<T> Pending<T> {
    /// A result that is known already.
    pub(super) fn ready(result: Result<T, StoreError>) -> Self {
        let (answer, pending) = pending();
        answer.give(result);
        pending
    }

    /// Waits for the result, for threads that may block.
    ///
    /// # Errors
    /// The write's, or that the store has stopped.
    pub fn wait(self) -> Result<T, StoreError> {
        let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(result) = slot.result.take() {
                return result;
            }
            slot = self.0.filled.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
