//! One sink for all files of chips.
//!
//! Every row goes into the [`Journal`] as soon as it is there. At the end the format asks for rows in its own order, their
//! vectors taken from the journal one by one. So the output is the same whatever order chips came in, and however often
//! the run was interrupted; and memory holds the keys alone: about 70 bytes and the id per chip. The disk holds every row
//! twice until the journal goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use dinov3_engine::{ImageFeatures, ItemError, Sink, SinkError, Summary};
use serde_json::Value;

use crate::chip::{Chip, ChipCell, ChipRow};
use crate::embedding::{Failure, Provenance, Report};
use crate::error::OutputError;
use crate::geoparquet::{ChipColumns, GeoParquet};
use crate::journal::{Journal, JournalError, Stamp};
use crate::journaled::JournalKey;
use crate::layout::EmbeddingLayout;
use crate::zarr::{ChipStore, ChipStoreOptions};

/// Before a row's details in the journal: raised when [`ChipRow`] changes.
const DETAILS_VERSION: u8 = 1;

/// How chips become a file. Dropped before `finish`, it leaves nothing behind.
pub(crate) trait ChipFormat: Send {
    /// The place of a row in the order of the file, or why it cannot stand in it. Rows with the same place are in the
    /// order of their ids.
    fn admit(&mut self, row: &ChipRow, cell: Option<ChipCell<'_>>) -> Result<u128, String>;

    /// Makes the output appear.
    fn finish(self: Box<Self>, rows: ChipRows<'_>, provenance: Value) -> Result<(), SinkError>;
}

/// The rows of a run, for the format that writes them.
pub(crate) struct ChipRows<'a> {
    layout: &'a EmbeddingLayout,
    journal: &'a mut Journal,
    places: &'a BTreeMap<(u128, Box<str>), u64>,
}

impl ChipRows<'_> {
    pub(crate) fn layout(&self) -> &EmbeddingLayout {
        self.layout
    }

    /// All rows in order, each with the values of its vectors.
    pub(crate) fn for_each(
        &mut self,
        mut take: impl FnMut(ChipRow, &[f32]) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        for ((_, id), &place) in self.places {
            let (row, values) = read_row(self.journal, place, id)?;
            take(row, &values)?;
        }
        Ok(())
    }

    /// The rows from one place up to another, with their places.
    pub(crate) fn between(&mut self, start: u128, end: u128) -> Result<Vec<(u128, ChipRow, Vec<f32>)>, OutputError> {
        let empty = || Box::<str>::from("");
        let mut found = Vec::new();
        for ((order, id), &place) in self.places.range((start, empty())..(end, empty())) {
            let failed = |error: JournalError| OutputError::Journal { source: Box::new(error) };
            let (row, values) = read_row(self.journal, place, id).map_err(failed)?;
            found.push((*order, row, values));
        }
        Ok(found)
    }
}

fn read_row(journal: &mut Journal, place: u64, id: &str) -> Result<(ChipRow, Vec<f32>), JournalError> {
    let found = journal.row_at(place, id)?;
    let row = parse_details(&found.details, id).ok_or_else(|| journal.damaged(id))?;
    Ok((row, found.values))
}

/// Writes one row per chip into a file.
pub struct ChipSink {
    layout: EmbeddingLayout,
    journal: Journal,
    /// The rows of this run in the order of the file, and their places in the journal.
    rows: BTreeMap<(u128, Box<str>), u64>,
    failures: Vec<Failure>,
    keeps_journal: bool,
    /// `None` after the end and after an error.
    open: Option<Open>,
}

struct Open {
    format: Box<dyn ChipFormat>,
    provenance: Provenance,
}

impl std::fmt::Debug for ChipSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChipSink")
            .field("layout", &self.layout)
            .field("journal", &self.journal)
            .field("rows", &self.rows.len())
            .field("open", &self.open.is_some())
            .finish_non_exhaustive()
    }
}

impl ChipSink {
    /// Starts a GeoParquet file, the output of this journal, which was [agreed on](Journal::agree) with the same layout.
    /// Values that a row takes from elsewhere than its pixels (datetime, ids of items) belong into the fingerprint: known
    /// rows keep them.
    ///
    /// # Errors
    /// If the file could not be put there at the end.
    pub fn geoparquet(
        journal: Journal,
        layout: EmbeddingLayout,
        columns: ChipColumns,
        provenance: Provenance,
    ) -> Result<Self, OutputError> {
        let format = GeoParquet::create(journal.output(), columns)?;
        Ok(Self::new(journal, layout, Box::new(format), provenance))
    }

    /// Starts a Zarr store, likewise. Every chip must be a [cell](Chip::cell) of a grid whose reference system has an EPSG
    /// code or a WKT 2, and whose axes are parallel to those of that system.
    ///
    /// # Errors
    /// If the store could not be put there at the end.
    pub fn zarr(
        journal: Journal,
        layout: EmbeddingLayout,
        options: ChipStoreOptions,
        provenance: Provenance,
    ) -> Result<Self, OutputError> {
        let format = ChipStore::create(journal.output(), options)?;
        Ok(Self::new(journal, layout, Box::new(format), provenance))
    }

    fn new(journal: Journal, layout: EmbeddingLayout, format: Box<dyn ChipFormat>, provenance: Provenance) -> Self {
        let open = Some(Open { format, provenance });
        Self { layout, journal, rows: BTreeMap::new(), failures: Vec::new(), keeps_journal: false, open }
    }

    /// Leaves the journal where it is when the file is there: whoever still has something to do with the file removes it
    /// then, with [`remove_journal`](crate::remove_journal). It also stays where chips have failed, for a run that makes
    /// just those.
    pub fn keeping_the_journal(self) -> Self {
        Self { keeps_journal: true, ..self }
    }

    /// Writes a row that comes from no encoder, into a file that needs no cells.
    ///
    /// # Errors
    /// If it cannot stand in the file, or cannot be stored.
    pub fn row(&mut self, row: &ChipRow, vectors: &[&[f32]]) -> Result<(), SinkError> {
        self.with_open(|sink| sink.append_row(&row.id, row, None, None, vectors))
    }

    /// The journal, for [`JournaledSource`](crate::JournaledSource).
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The number of rows of this run that neither a killed process nor a power failure can take away, and of those
    /// without a [stamp](crate::Stamped), kept up to date.
    pub fn safe_rows(&self) -> Arc<AtomicUsize> {
        self.journal.safe_rows()
    }

    /// Ends a run that failed and says how many rows the next one will find.
    ///
    /// # Errors
    /// If the journal cannot be brought to disk.
    pub fn keep(mut self) -> Result<usize, JournalError> {
        // First, so that its temporary file goes.
        self.open = None;
        self.journal.sync()?;
        Ok(self.journal.rows())
    }

    /// Writes a row into the journal.
    fn append<K: Chip>(&mut self, key: &JournalKey<K>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let name = key.key.row_name();
        let row = key.key.chip_row();
        let vectors = self.layout.vectors(&name, features)?;
        self.append_row(&name, &row, key.key.cell(), key.stamp(), &vectors)
    }

    fn append_row(
        &mut self,
        name: &str,
        row: &ChipRow,
        cell: Option<ChipCell<'_>>,
        stamp: Option<Stamp>,
        vectors: &[&[f32]],
    ) -> Result<(), SinkError> {
        let details = details_of(row).map_err(|problem| OutputError::Chip { row: name.to_owned(), problem })?;
        // Before it is on the disk, where it would spoil every later run.
        let order = admit(&mut self.open, name, row, cell)?;
        let place = self.journal.append_row(name, stamp, &details, vectors)?;
        self.note(name, order, place)
    }

    /// Takes a row that is in the journal.
    fn take_known<K: Chip>(&mut self, key: &JournalKey<K>) -> Result<(), SinkError> {
        let name = key.key.row_name();
        let (place, found) = self.journal.known_row(&name)?;
        let row = parse_details(&found.details, &name).ok_or_else(|| self.journal.damaged(&name))?;
        let order = admit(&mut self.open, &name, &row, key.key.cell())?;
        self.note(&name, order, place)
    }

    fn note(&mut self, name: &str, order: u128, place: u64) -> Result<(), SinkError> {
        if self.rows.insert((order, name.into()), place).is_some() {
            let problem = "it comes twice".to_owned();
            return Err(OutputError::Chip { row: name.to_owned(), problem }.into());
        }
        Ok(())
    }

    /// After an error the output is closed.
    fn with_open<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, SinkError>) -> Result<T, SinkError> {
        if self.open.is_none() {
            return Err(OutputError::Closed.into());
        }
        act(self).inspect_err(|_| self.open = None)
    }
}

/// The place of a row in the file, or why it cannot stand there.
fn admit(open: &mut Option<Open>, name: &str, row: &ChipRow, cell: Option<ChipCell<'_>>) -> Result<u128, OutputError> {
    let refuse = |problem: String| OutputError::Chip { row: name.to_owned(), problem };
    if row.id != name {
        return Err(refuse(format!("its row is called {}", row.id)));
    }
    let open = open.as_mut().ok_or(OutputError::Closed)?;
    open.format.admit(row, cell).map_err(refuse)
}

impl<K: Chip> Sink<JournalKey<K>> for ChipSink {
    fn write(&mut self, key: &JournalKey<K>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        self.with_open(|sink| sink.append(key, features))
    }

    fn known(&mut self, key: &JournalKey<K>) -> Result<(), SinkError> {
        self.with_open(|sink| sink.take_known(key))
    }

    fn failed(&mut self, key: &JournalKey<K>, error: &ItemError) -> Result<(), SinkError> {
        self.with_open(|sink| {
            sink.failures.push(Failure { path: key.key.row_name().into_owned(), error: error.to_string() });
            Ok(())
        })
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        let Open { format, provenance } = self.open.take().ok_or(OutputError::Closed)?;
        self.journal.sync()?;
        let mut failures = std::mem::take(&mut self.failures);
        failures.sort_by(|a, b| a.path.cmp(&b.path));
        let report = Report::new(provenance(summary), summary, Some(&self.layout), failures);
        let rows = ChipRows { layout: &self.layout, journal: &mut self.journal, places: &self.rows };
        format.finish(rows, report.complete())?;
        match self.keeps_journal || !summary.failed.is_empty() {
            true => Ok(()),
            false => Ok(self.journal.remove()?),
        }
    }
}

/// A row, as it stands in the journal.
fn details_of(row: &ChipRow) -> Result<Vec<u8>, String> {
    postcard::to_extend(row, vec![DETAILS_VERSION]).map_err(|error| error.to_string())
}

fn parse_details(details: &[u8], name: &str) -> Option<ChipRow> {
    let row: ChipRow = postcard::from_bytes(details.strip_prefix(&[DETAILS_VERSION])?).ok()?;
    (row.id == name).then_some(row)
}
