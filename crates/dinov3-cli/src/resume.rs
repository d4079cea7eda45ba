//! Runs that were interrupted and go on: what the commands with a journal share.

use std::path::Path;

use anyhow::Result;
use dinov3::sink::{EmbeddingLayout, Journal, JournalError};
use serde_json::{Map, Value};

use crate::arguments::JournalArguments;
use crate::failure::{Outcome, usage};

/// The journal of an output file, which is that of a run that may go on.
pub fn open_journal(output: &Path, arguments: &JournalArguments) -> Result<Journal> {
    let journal = Journal::open(output)?;
    let rows = journal.rows();
    if arguments.fresh {
        // Its rows go when the new run can start, and not before.
        return Ok(journal);
    }
    journal.check().map_err(or_fresh)?;
    if rows > 0 && !arguments.resume {
        return Err(usage(format!(
            "{}: an interrupted run has finished {rows} rows; continue it with --resume, or start anew with --fresh",
            output.display()
        )));
    }
    Ok(journal)
}

/// After a run of which some items failed: what the journal, which stays then, is good for.
pub fn note_missing(outcome: Outcome, journal: &Path) {
    if outcome == Outcome::SomeFailed && journal.exists() {
        eprintln!(
            "note: what is done is kept beside it, too: the same command with --resume makes just what is missing"
        );
    }
}

/// With what can be done about it.
fn or_fresh(error: JournalError) -> anyhow::Error {
    match error {
        JournalError::Differs { .. } => usage(format!("{error}; repeat its command, or start anew with --fresh")),
        JournalError::Unreadable { .. } => usage(format!("{error}; start anew with --fresh")),
        other => other.into(),
    }
}

/// Makes sure that the rows of the interrupted run are what this command would make.
pub fn agree(
    journal: &mut Journal,
    arguments: &JournalArguments,
    fingerprint: Map<String, Value>,
    layout: &EmbeddingLayout,
) -> Result<()> {
    if arguments.fresh {
        if journal.rows() > 0 {
            eprintln!("forgetting {} rows of an interrupted run", journal.rows());
        }
        journal.discard();
    }
    let damaged_bytes = journal.damaged_bytes();
    journal.agree(fingerprint, layout).map_err(or_fresh)?;
    if journal.rows() > 0 {
        eprintln!("continuing: {} rows are there, those of unchanged inputs are taken", journal.rows());
    }
    if damaged_bytes > 0 {
        eprintln!(
            "note: the journal was damaged; its last {damaged_bytes} bytes are lost and what they held is encoded anew"
        );
    }
    Ok(())
}
