//! Decoded blocks, bounded in bytes and shared by all rasters of an opener.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// A block of one image of one open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    /// Of [`BlockCache::new_file`].
    pub file: u64,
    /// The image: where its directory lies in the file.
    pub directory_offset: u64,
    /// The block's index in the directory's tables.
    pub index: usize,
}

/// Least recently used blocks go first. A block that several threads want is decoded by one of them.
pub(crate) struct BlockCache {
    state: Mutex<State>,
    decoded: Condvar,
    limit_bytes: u64,
    files: AtomicU64,
}

struct State {
    blocks: LruCache<BlockKey, Arc<Vec<u8>>>,
    held_bytes: u64,
    in_work: HashSet<BlockKey>,
}

impl BlockCache {
    pub fn new(limit_bytes: u64) -> Self {
        let state = State { blocks: LruCache::unbounded(), held_bytes: 0, in_work: HashSet::new() };
        Self { state: Mutex::new(state), decoded: Condvar::new(), limit_bytes, files: AtomicU64::new(0) }
    }

    /// A number that no other open file has.
    pub fn new_file(&self) -> u64 {
        self.files.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the block is here, or a thread decodes it right now: its bytes need not be fetched.
    pub fn is_coming(&self, key: &BlockKey) -> bool {
        let state = self.lock();
        state.blocks.contains(key) || state.in_work.contains(key)
    }

    /// The block from the cache, or as `decode` gives it. The newest block is kept whatever its size: a strip larger than
    /// the limit would else be decoded again for every window.
    pub fn get_or_decode<E>(
        &self,
        key: BlockKey,
        decode: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Arc<Vec<u8>>, E> {
        let mut state = self.lock();
        loop {
            if let Some(block) = state.blocks.get(&key) {
                return Ok(Arc::clone(block));
            }
            if state.in_work.insert(key) {
                break;
            }
            state = self.decoded.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // Also when `decode` panics: others must not wait for ever.
        let _finished = Finished { cache: self, key };
        let block = Arc::new(decode()?);
        let mut state = self.lock();
        let size_bytes = block.len() as u64;
        while state.held_bytes.saturating_add(size_bytes) > self.limit_bytes {
            let Some((_, evicted)) = state.blocks.pop_lru() else { break };
            state.held_bytes -= evicted.len() as u64;
        }
        state.held_bytes += size_bytes;
        if let Some(replaced) = state.blocks.put(key, Arc::clone(&block)) {
            state.held_bytes -= replaced.len() as u64;
        }
        Ok(block)
    }

    /// Drops the blocks of a file that is closed.
    pub fn forget(&self, file: u64) {
        let mut state = self.lock();
        let keys: Vec<BlockKey> = state.blocks.iter().map(|(key, _)| *key).filter(|key| key.file == file).collect();
        for key in keys {
            if let Some(block) = state.blocks.pop(&key) {
                state.held_bytes -= block.len() as u64;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Finished<'a> {
    cache: &'a BlockCache,
    key: BlockKey,
}

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.cache.lock().in_work.remove(&self.key);
        self.cache.decoded.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> BlockKey {
        BlockKey { file: 0, directory_offset: 8, index }
    }

    fn get(cache: &BlockCache, index: usize, size: usize) -> bool {
        let mut decoded = false;
        let block = cache.get_or_decode(key(index), || {
            decoded = true;
            Ok::<_, ()>(vec![index as u8; size])
        });
        assert_eq!(*block.unwrap(), vec![index as u8; size]);
        decoded
    }

    #[test]
    fn the_oldest_blocks_go_first() {
        let cache = BlockCache::new(10);
        assert!(get(&cache, 0, 4) && get(&cache, 1, 4) && !get(&cache, 0, 4));
        assert!(get(&cache, 2, 4), "1 has to go");
        assert!(!get(&cache, 0, 4) && get(&cache, 1, 4));
        assert!(cache.lock().held_bytes <= 10);
    }

    #[test]
    fn one_block_beyond_the_limit_is_kept() {
        let cache = BlockCache::new(10);
        assert!(get(&cache, 0, 4) && get(&cache, 1, 100) && !get(&cache, 1, 100));
        assert!(get(&cache, 0, 4));
        assert_eq!(cache.lock().held_bytes, 4);
        cache.forget(0);
        assert_eq!(cache.lock().held_bytes, 0);
    }

    #[test]
    fn a_block_is_decoded_once_for_all_threads() {
        let cache = BlockCache::new(1000);
        let count = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.get_or_decode(key(7), || {
                        count.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok::<_, ()>(vec![1; 10])
                    })
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
    }

    #[test]
    fn a_block_is_coming_as_soon_as_a_thread_decodes_it() {
        let cache = BlockCache::new(1000);
        assert!(!cache.is_coming(&key(1)));
        let decoded = cache.get_or_decode(key(1), || {
            assert!(cache.is_coming(&key(1)));
            Ok::<_, ()>(vec![1])
        });
        assert!(decoded.is_ok() && cache.is_coming(&key(1)));
        assert_eq!(cache.get_or_decode(key(2), || Err("broken")), Err("broken"));
        assert!(!cache.is_coming(&key(2)));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache = BlockCache::new(1000);
        assert_eq!(cache.get_or_decode(key(0), || Err("broken")), Err("broken"));
        assert!(get(&cache, 0, 1));
    }
}
