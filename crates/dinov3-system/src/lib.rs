//! What the engine needs from the operating system: a thread pool and read-only file mappings.
//!
//! This room does not know what is computed on the threads or what lies in the files.
//!
//! ```
//! use dinov3_system::threads::Pool;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! let pool = Pool::new(2);
//! let sum = AtomicUsize::new(0);
//! pool.run(10, &|index| {
//!     sum.fetch_add(index, Ordering::Relaxed);
//! });
//! assert_eq!(sum.into_inner(), 45);
//! ```

mod directories;
#[cfg(unix)]
pub mod guarded;
pub mod memory_map;
mod memory_use;
mod range_stream;
mod signals;
pub mod threads;
mod tile_permission;

pub use directories::cache_directory;
pub use memory_use::{MemoryUse, memory_limit, memory_use};
pub use range_stream::RangeStream;
pub use signals::fail_beyond_file_size_limit;
pub use tile_permission::request_tile_registers;
