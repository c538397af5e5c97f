//! Places for uploads: so many are received at the same time, and of one tenant no more than its
//! share, so that none shuts the others out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::problem::{Code, Problem};

/// Seconds after which a client that found no place may come again: at least one, at most this. They
/// differ, so that those who are refused together do not come back together.
const RETRY: u64 = 3;

pub struct Places {
    most: usize,
    share: usize,
    /// By tenant; who has none is not in it.
    taken: Mutex<HashMap<String, usize>>,
    refused: AtomicU64,
}

impl Places {
    /// `shared`: more than one tenant may come.
    pub fn new(most: usize, shared: bool) -> Arc<Self> {
        let share = if shared { (most * 3 / 4).max(1) } else { most };
        Arc::new(Self { most, share, taken: Mutex::default(), refused: AtomicU64::new(0) })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        // Nothing under the lock leaves anything half-changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place until it is dropped.
    ///
    /// # Errors
    /// `busy`: all are taken, or the tenant's share.
    pub fn take(self: &Arc<Self>, tenant: &str) -> Result<Place, Problem> {
        let mut taken = self.taken();
        let own = taken.get(tenant).copied().unwrap_or(0);
        let full = |whose| {
            let detail = format!("too many uploads{whose} at the same time");
            let late = self.refused.fetch_add(1, Ordering::Relaxed);
            Err(Problem::new(Code::Busy, detail).retry_after(1 + late % RETRY))
        };
        if taken.values().sum::<usize>() >= self.most {
            return full("");
        }
        if own >= self.share {
            return full(" of this tenant");
        }
        taken.insert(tenant.to_owned(), own + 1);
        Ok(Place { places: self.clone(), tenant: tenant.to_owned() })
    }

    pub fn in_use(&self) -> usize {
        self.taken().values().sum()
    }
}

/// One upload's place.
pub struct Place {
    places: Arc<Places>,
    tenant: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(own) = taken.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many one tenant gets, and how many another gets then.
    fn shares(most: usize, shared: bool) -> (usize, usize) {
        let places = Places::new(most, shared);
        let all = |tenant: &str| std::iter::from_fn(|| places.take(tenant).ok()).collect();
        let (one, other): (Vec<Place>, Vec<Place>) = (all("one"), all("other"));
        let found = (one.len(), other.len());
        assert_eq!(places.in_use(), one.len() + other.len());
        assert_eq!(places.take("third").err().map(|p| p.code()), Some(Code::Busy));
        drop((one, other));
        assert!(places.taken().is_empty());
        found
    }

    #[test]
    fn no_tenant_takes_more_than_three_quarters() {
        assert_eq!(shares(64, true), (48, 16));
        assert_eq!(shares(5, true), (3, 2));
        assert_eq!(shares(2, true), (1, 1));
        assert_eq!(shares(1, true), (1, 0));
        // Where there is only one.
        assert_eq!(shares(64, false), (64, 0));
    }

    #[test]
    fn a_place_that_is_left_is_free_again() {
        let places = Places::new(4, true);
        let mut held: Vec<Place> = (0..3).map(|_| places.take("one").unwrap()).collect();
        assert!(places.take("one").is_err());
        held.pop();
        held.push(places.take("one").unwrap());
        assert_eq!(places.in_use(), 3);
    }
}
