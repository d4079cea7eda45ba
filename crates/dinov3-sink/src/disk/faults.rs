//! Operations that fail on request, on the thread that requested it.

use std::cell::Cell;
use std::io;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One operation fails, the next ones work: EIO.
    Once,
    /// This operation and every later one fail, as on a disk that is and stays full: ENOSPC.
    FullDisk,
    /// Half of what shall be written is, then the disk is full.
    ShortWrite,
    /// Nothing works any more: what a killed process leaves, also behind its destructors.
    Dead,
}

#[derive(Clone, Copy)]
struct Plan {
    fault: Fault,
    /// Operations until then.
    left: usize,
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static HALF: Cell<bool> = const { Cell::new(false) };
}

/// Lets the operation after `left` further ones fail.
pub(crate) fn plan(fault: Fault, left: usize) {
    PLAN.set(Some(Plan { fault, left }));
}

/// Ends the plan; whether its time had come.
pub(crate) fn end() -> bool {
    HALF.set(false);
    PLAN.take().is_none_or(|plan| plan.left == 0)
}

pub(crate) fn may_fail() -> io::Result<()> {
    let Some(mut plan) = PLAN.get() else { return Ok(()) };
    if plan.left > 0 {
        plan.left -= 1;
        PLAN.set(Some(plan));
        return Ok(());
    }
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    match plan.fault {
        Fault::Once => {
            PLAN.set(None);
            Err(io::Error::from_raw_os_error(EIO))
        }
        Fault::ShortWrite => {
            HALF.set(true);
            PLAN.set(Some(Plan { fault: Fault::FullDisk, left: 0 }));
            Ok(())
        }
        Fault::FullDisk => Err(io::Error::from_raw_os_error(ENOSPC)),
        Fault::Dead => Err(io::Error::other("the process is dead")),
    }
}

/// How many of these bytes are written.
pub(crate) fn writable(bytes: usize) -> usize {
    if HALF.take() { bytes / 2 } else { bytes }
}
