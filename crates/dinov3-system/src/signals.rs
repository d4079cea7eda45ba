//! Signals that would end the process where an error is wanted.
#![allow(unsafe_code)]

/// Lets a write beyond the largest file that this process may have (`ulimit -f`) fail with an error, so that it can
/// be told like a full disk. Otherwise the process would be killed. For programs; does nothing where there is no such
/// signal.
pub fn fail_beyond_file_size_limit() {
    #[cfg(unix)]
    // SAFETY: ignoring a signal installs no handler, and SIGXFSZ is delivered by no other means than a failing write.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
