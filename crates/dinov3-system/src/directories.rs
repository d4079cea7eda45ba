//! Where the operating system keeps a user's caches.

use std::path::PathBuf;

/// The folder for this program's caches: `DINOV3_CACHE`, else `dinov3` in the user's cache folder. It may not
/// exist yet. `None` where no such folder is known.
pub fn cache_directory() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = variable("DINOV3_CACHE") {
        return Some(own);
    }
    let user = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    user.map(|folder| folder.join("dinov3"))
}
