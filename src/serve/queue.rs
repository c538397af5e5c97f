//! Which job is next: priorities with ageing, and fairness between tenants. Pure: no clock, no
//! database.
//!
//! A job's rank is the time it was submitted plus its priority's handicap, and the smallest rank is
//! next. So a live job goes before every batch job that was not submitted ten minutes earlier, and a
//! batch job that waited so long is taken although live jobs keep coming: nothing starves. That
//! live jobs need not wait even then is for slots that take live jobs alone ([`Slot::LiveOnly`]).
//!
//! Within a priority the tenant with the fewest jobs at work is next, then the one that was served
//! least recently; a tenant's own jobs go in the order of submission.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::model::{JobId, Priority, Time};

/// How long a job counts as younger than it is, in milliseconds: the time after which it is taken
/// before live jobs that are just submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aging {
    pub normal_ms: i64,
    pub batch_ms: i64,
}

impl Default for Aging {
    fn default() -> Self {
        Self { normal_ms: 60_000, batch_ms: 600_000 }
    }
}

impl Aging {
    fn handicap(self, priority: Priority) -> i64 {
        match priority {
            Priority::Live => 0,
            Priority::Normal => self.normal_ms,
            Priority::Batch => self.batch_ms,
        }
    }
}

/// What a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    Ordinary,
    /// Live jobs only, so that one place is never taken by anything else.
    LiveOnly,
}

/// A job that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub id: JobId,
    pub tenant: String,
    pub priority: Priority,
    pub submitted_at: Time,
}

/// The jobs that wait, and how many are at work for each tenant.
#[derive(Debug, Default)]
pub struct Queue {
    aging: Aging,
    /// By priority, tenant, then age.
    waiting: BTreeMap<Priority, BTreeMap<String, BTreeSet<(Time, JobId)>>>,
    /// Where each waiting job stands.
    places: HashMap<JobId, (Priority, String, Time)>,
    at_work: HashMap<String, usize>,
    queued: HashMap<String, usize>,
    /// The count of [`Queue::take`]s at which a tenant was last served.
    served: HashMap<String, u64>,
    takes: u64,
}

impl Queue {
    pub fn new(aging: Aging) -> Self {
        Self { aging, ..Self::default() }
    }

    /// Adds a job; one that waits already stays where it is.
    pub fn push(&mut self, job: Waiting) {
        let Waiting { id, tenant, priority, submitted_at } = job;
        let place = (priority, tenant.clone(), submitted_at);
        if self.places.contains_key(&id) {
            return;
        }
        self.places.insert(id, place);
        *self.queued.entry(tenant.clone()).or_default() += 1;
        let tenants = self.waiting.entry(priority).or_default();
        tenants.entry(tenant).or_default().insert((submitted_at, id));
    }

    /// Takes a job out without beginning it; false where it does not wait.
    pub fn remove(&mut self, id: JobId) -> bool {
        self.pull(id).is_some()
    }

    fn pull(&mut self, id: JobId) -> Option<Waiting> {
        let (priority, tenant, submitted_at) = self.places.remove(&id)?;
        if let Some(tenants) = self.waiting.get_mut(&priority) {
            if let Some(jobs) = tenants.get_mut(&tenant) {
                jobs.remove(&(submitted_at, id));
                if jobs.is_empty() {
                    tenants.remove(&tenant);
                }
            }
            if tenants.is_empty() {
                self.waiting.remove(&priority);
            }
        }
        decrement(&mut self.queued, &tenant);
        Some(Waiting { id, tenant, priority, submitted_at })
    }

    /// The next job for a slot, which counts as at work until [`Queue::ended`].
    pub fn take(&mut self, slot: Slot) -> Option<Waiting> {
        let allowed = |p: Priority| slot == Slot::Ordinary || p == Priority::Live;
        let oldest = |tenants: &BTreeMap<String, BTreeSet<(Time, JobId)>>| {
            tenants.values().filter_map(|jobs| jobs.first()).map(|(time, _)| time.0).min()
        };
        let (_, tenants) = self
            .waiting
            .iter()
            .filter(|(priority, _)| allowed(**priority))
            // Of equal ranks the more urgent priority, which comes first in the map.
            .min_by_key(|(priority, tenants)| {
                oldest(tenants).unwrap_or(i64::MAX).saturating_add(self.aging.handicap(**priority))
            })?;
        let (tenant, jobs) = tenants.iter().min_by_key(|(tenant, jobs)| {
            let at_work = self.at_work.get(*tenant).copied().unwrap_or(0);
            let served = self.served.get(*tenant).copied().unwrap_or(0);
            (at_work, served, jobs.first().copied())
        })?;
        let (tenant, id) = (tenant.clone(), jobs.first()?.1);
        self.takes += 1;
        *self.at_work.entry(tenant.clone()).or_default() += 1;
        self.served.insert(tenant, self.takes);
        self.pull(id)
    }

    /// A job of `tenant` that was taken is at work no longer.
    pub fn ended(&mut self, tenant: &str) {
        decrement(&mut self.at_work, tenant);
        // Who has nothing here any more and was not just served need not be remembered.
        if !self.queued.contains_key(tenant) && !self.at_work.contains_key(tenant) {
            let recent = self.takes.saturating_sub(1_000);
            self.served.retain(|_, served| *served > recent);
        }
    }

    /// Whether a job waits.
    pub fn contains(&self, id: JobId) -> bool {
        self.places.contains_key(&id)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many jobs of a tenant wait.
    pub fn waiting_of(&self, tenant: &str) -> usize {
        self.queued.get(tenant).copied().unwrap_or(0)
    }

    /// How many jobs of a priority wait.
    pub fn waiting_at(&self, priority: Priority) -> usize {
        let tenants = self.waiting.get(&priority);
        tenants.map_or(0, |tenants| tenants.values().map(BTreeSet::len).sum())
    }

    /// When the job that waits longest was submitted.
    pub fn oldest(&self) -> Option<Time> {
        let heads = self.waiting.values().flat_map(|tenants| tenants.values());
        heads.filter_map(|jobs| jobs.first()).map(|(time, _)| *time).min()
    }
}

fn decrement(counts: &mut HashMap<String, usize>, tenant: &str) {
    if let Some(n) = counts.get_mut(tenant) {
        *n = n.saturating_sub(1);
        if *n == 0 {
            counts.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn job(n: u128, tenant: &str, priority: Priority, at_ms: i64) -> Waiting {
        let id = JobId::from_u128(n);
        Waiting { id, tenant: tenant.into(), priority, submitted_at: Time(at_ms) }
    }

    fn queue(jobs: impl IntoIterator<Item = Waiting>) -> Queue {
        let mut queue = Queue::new(Aging::default());
        jobs.into_iter().for_each(|job| queue.push(job));
        queue
    }

    /// Ids in the order in which one ordinary slot takes them, each ended before the next.
    fn drain(queue: &mut Queue) -> Vec<u128> {
        let next = || {
            let job = queue.take(Slot::Ordinary)?;
            queue.ended(&job.tenant);
            Some(job.id.as_u128())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn live_goes_before_what_is_not_aged_past_it_and_what_is_goes_first() {
        use Priority::{Batch, Live, Normal};
        let mut q = queue([
            job(1, "a", Batch, 0),
            job(2, "a", Normal, 0),
            job(3, "a", Live, MINUTE - 1),
            job(4, "a", Live, MINUTE + 1),
            job(5, "a", Batch, 1),
            job(6, "a", Live, 10 * MINUTE),
            job(7, "a", Live, 10 * MINUTE + 2),
        ]);
        // 2 ranks at 1 min, 1 at 10 min like 6, which is more urgent, 5 a millisecond later.
        assert_eq!(drain(&mut q), [3, 2, 4, 6, 1, 5, 7]);
        assert!(q.is_empty());
        assert_eq!(q.take(Slot::Ordinary), None);
    }

    #[test]
    fn a_slot_for_live_jobs_takes_nothing_else() {
        let mut q = queue([
            job(1, "a", Priority::Batch, -100 * MINUTE),
            job(2, "a", Priority::Normal, -100 * MINUTE),
            job(3, "a", Priority::Live, 0),
        ]);
        assert_eq!(q.take(Slot::LiveOnly).unwrap().id.as_u128(), 3);
        assert_eq!(q.take(Slot::LiveOnly), None);
        assert_eq!(q.len(), 2);
    }

    #[test]
    fn batch_is_served_though_live_jobs_never_end() {
        // Each second a live job of one second comes: more than enough for the one slot.
        let mut q = queue([job(1_000_000, "archive", Priority::Batch, 0)]);
        for second in 0.. {
            q.push(job(second, "live", Priority::Live, second as i64 * 1_000));
            let taken = q.take(Slot::Ordinary).unwrap();
            q.ended(&taken.tenant);
            if taken.priority == Priority::Batch {
                assert_eq!(second, 601);
                break;
            }
            assert!(second < 601, "starved");
        }
    }

    #[test]
    fn tenants_share_whatever_each_has_queued() {
        let many = (0..1_000).map(|n| job(n, "many", Priority::Normal, n as i64));
        let few = (2_000..2_003).map(|n| job(n, "few", Priority::Normal, 5_000));
        let mut q = queue(many.chain(few));
        // Four slots: after the oldest job the tenant with nothing at work, and so on in turns.
        let taken: Vec<String> = (0..4).map(|_| q.take(Slot::Ordinary).unwrap().tenant).collect();
        assert_eq!(taken, ["many", "few", "many", "few"]);
        // Who has fewer at work is next, whoever was served last.
        q.ended("few");
        q.ended("few");
        assert_eq!(q.take(Slot::Ordinary).unwrap().tenant, "few");
        // Few has nothing left and shuts nobody out.
        assert_eq!(q.waiting_of("few"), 0);
        assert_eq!(q.take(Slot::Ordinary).unwrap().id.as_u128(), 2);
    }

    #[test]
    fn one_slot_serves_tenants_in_turn() {
        let jobs = (0..9).map(|n| {
            let tenant = ["a", "b", "c"][n as usize / 3];
            job(n, tenant, Priority::Batch, n as i64)
        });
        assert_eq!(drain(&mut queue(jobs)), [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    }

    #[test]
    fn a_job_put_back_stands_where_it_stood() {
        let mut q = queue((1..4).map(|n| job(n, "a", Priority::Normal, n as i64)));
        let first = q.take(Slot::Ordinary).unwrap();
        q.ended("a");
        q.push(first);
        assert_eq!(drain(&mut q), [1, 2, 3]);
    }

    #[test]
    fn counts_follow_what_is_pushed_taken_and_removed() {
        let mut q = queue([
            job(1, "a", Priority::Live, 3),
            job(2, "a", Priority::Batch, 1),
            job(3, "b", Priority::Batch, 2),
        ]);
        q.push(job(3, "b", Priority::Live, 0));
        assert_eq!((q.len(), q.waiting_of("a"), q.waiting_of("b")), (3, 2, 1));
        assert_eq!(q.waiting_at(Priority::Batch), 2);
        assert_eq!(q.oldest(), Some(Time(1)));
        assert!(q.remove(JobId::from_u128(2)));
        assert!(!q.remove(JobId::from_u128(2)));
        assert_eq!((q.len(), q.waiting_of("a")), (2, 1));
        assert_eq!(drain(&mut q), [1, 3]);
        assert_eq!((q.len(), q.waiting_of("a"), q.oldest()), (0, 0, None));
    }

    #[test]
    fn tenants_that_are_gone_are_forgotten() {
        let mut q = queue([]);
        for n in 0..5_000 {
            q.push(job(n, &format!("t{n}"), Priority::Normal, n as i64));
            let taken = q.take(Slot::Ordinary).unwrap();
            q.ended(&taken.tenant);
        }
        assert!(q.served.len() <= 1_000, "{}", q.served.len());
        assert!(q.at_work.is_empty() && q.queued.is_empty() && q.waiting.is_empty());
    }
}
