//! What is kept loaded, under a bound in bytes: what was not used lately goes first, never what is in use.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Something that is loaded, as long as anybody holds it. Whoever has a handle works on the one state that there is:
/// it leaves the cache only while nobody but the cache has one, and handles are given out under the shard's lock.
#[derive(Debug)]
pub(super) struct Loaded<V> {
    value: Mutex<V>,
    /// Whether it was used since the cache last looked.
    used: AtomicBool,
    /// Bytes that the cache counts for it; changed under the shard's lock alone.
    counted_bytes: AtomicUsize,
}

impl<V> Loaded<V> {
    pub(super) fn new(value: V, bytes: usize) -> Arc<Self> {
        let (used, counted_bytes) = (AtomicBool::new(true), AtomicUsize::new(bytes));
        Arc::new(Self { value: Mutex::new(value), used, counted_bytes })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, V> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a cache.
///
/// Invariant: `bytes` is the sum of what those in `map` are counted with; `queue` names each of them once.
#[derive(Debug)]
pub(super) struct Shard<K, V> {
    map: HashMap<K, Arc<Loaded<V>>>,
    queue: VecDeque<K>,
    bytes: usize,
}

impl<K: Hash + Eq + Clone, V> Shard<K, V> {
    pub(super) fn find(&self, key: &K) -> Option<Arc<Loaded<V>>> {
        let loaded = self.map.get(key)?;
        loaded.used.store(true, Ordering::Relaxed);
        Some(loaded.clone())
    }

    /// Adds what is not there yet.
    pub(super) fn insert(&mut self, key: K, loaded: Arc<Loaded<V>>) {
        let bytes = loaded.counted_bytes.load(Ordering::Relaxed);
        let before = self.map.insert(key.clone(), loaded);
        assert!(before.is_none(), "what is loaded is not loaded again");
        self.bytes += bytes;
        self.queue.push_back(key);
    }

    /// The clock algorithm. The last one stays, so that what alone is over the bound is not loaded for each use.
    fn evict(&mut self, bytes_max: usize) -> usize {
        let mut evicted = 0;
        // Twice round: the first time clears the marks of use.
        let mut candidates = 2 * self.queue.len();
        while candidates > 0 && self.bytes > bytes_max && self.map.len() > 1 {
            candidates -= 1;
            let Some(key) = self.queue.pop_front() else { break };
            let idle = self.map.get(&key).is_some_and(|loaded| {
                // The map's own handle is the only one: none can be made while the shard is locked.
                Arc::strong_count(loaded) == 1 && !loaded.used.swap(false, Ordering::Relaxed)
            });
            if !idle {
                self.queue.push_back(key);
                continue;
            }
            if let Some(gone) = self.map.remove(&key) {
                self.bytes -= gone.counted_bytes.load(Ordering::Relaxed);
                evicted += 1;
            }
        }
        evicted
    }
}

/// Loaded things by key, in shards that are locked apart.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    shards: Vec<Mutex<Shard<K, V>>>,
    hasher: RandomState,
    shard_bytes_max: usize,
    evicted: AtomicUsize,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    pub(super) fn new(shards: usize, bytes_max: usize) -> Self {
        let shard = |_| Mutex::new(Shard { map: HashMap::new(), queue: VecDeque::new(), bytes: 0 });
        Self {
            shards: (0..shards).map(shard).collect(),
            hasher: RandomState::new(),
            shard_bytes_max: bytes_max / shards,
            evicted: AtomicUsize::new(0),
        }
    }

    /// The shard that a key belongs to, locked.
    pub(super) fn shard(&self, key: &K) -> MutexGuard<'_, Shard<K, V>> {
        let count = self.shards.len() as u64;
        let at = usize::try_from(self.hasher.hash_one(key) % count).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the bytes of something that is loaded anew, and lets others go if that is too much.
    pub(super) fn recount(&self, key: &K, loaded: &Loaded<V>, bytes: usize) {
        let mut shard = self.shard(key);
        let counted = loaded.counted_bytes.swap(bytes, Ordering::Relaxed);
        shard.bytes = shard.bytes + bytes - counted;
        self.trim(&mut shard);
    }

    /// Lets go of what is over the bound.
    pub(super) fn trim(&self, shard: &mut Shard<K, V>) {
        if shard.bytes > self.shard_bytes_max {
            self.evicted.fetch_add(shard.evict(self.shard_bytes_max), Ordering::Relaxed);
        }
    }

    /// How many are loaded, the bytes that they take, and how many were let go so far.
    pub(super) fn totals(&self) -> (usize, usize, usize) {
        let totals = self.shards.iter().fold((0, 0), |(count, bytes), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (count + shard.map.len(), bytes + shard.bytes)
        });
        (totals.0, totals.1, self.evicted.load(Ordering::Relaxed))
    }
}
