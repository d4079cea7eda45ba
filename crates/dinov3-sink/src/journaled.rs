//! A run that can be continued: a source that skips what the journal holds, and a sink that keeps the journal.

use std::borrow::Cow;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use dinov3_engine::{ImageFeatures, Item, ItemError, Sink, SinkError, Source, Summary};

use crate::embedding::EmbeddingSink;
use crate::journal::{Journal, JournalError, KnownRows, Stamp};
use crate::name::RowName;

/// A key whose image may change between two runs.
pub trait Stamped: RowName {
    /// What differs after a change; nothing if that cannot be told, as for a URL. Such a row is not kept in the
    /// journal, and the image is always encoded anew.
    fn stamp(&self) -> Option<Stamp>;
}

impl Stamped for std::path::PathBuf {
    fn stamp(&self) -> Option<Stamp> {
        Stamp::of_file(self)
    }
}

/// A key with the stamp that its image had before it was loaded.
#[derive(Debug)]
pub struct JournalKey<K> {
    /// The source's own key.
    pub key: K,
    stamp: OnceLock<Option<Stamp>>,
}

impl<K> JournalKey<K> {
    /// A key whose image was not asked for its stamp. Its row is found by this run only, which is enough for a sink
    /// that is fed without a [`JournaledSource`].
    pub fn unstamped(key: K) -> Self {
        Self { key, stamp: OnceLock::new() }
    }

    /// The stamp, if the image has one and it was asked for.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.stamp.get().copied().flatten()
    }
}

impl<K: RowName> RowName for JournalKey<K> {
    fn row_name(&self) -> Cow<'_, str> {
        self.key.row_name()
    }
}

/// Wraps a source: images whose rows are in the journal, and which have not changed since, are not loaded.
pub struct JournaledSource<'s, S> {
    source: &'s S,
    /// `None` without a journal.
    known: Option<Arc<KnownRows>>,
}

impl<'s, S> JournaledSource<'s, S> {
    /// A source that skips what `journal` holds; without one, it skips nothing.
    pub fn new(source: &'s S, journal: Option<&Journal>) -> Self {
        Self { source, known: journal.map(Journal::known) }
    }
}

impl<S: Source<Key: Stamped>> Source for JournaledSource<'_, S> {
    type Key = JournalKey<S::Key>;

    fn keys(&self) -> Box<dyn Iterator<Item = Self::Key> + Send + '_> {
        Box::new(self.source.keys().map(JournalKey::unstamped))
    }

    fn len_hint(&self) -> Option<usize> {
        self.source.len_hint()
    }

    fn is_known(&self, key: &Self::Key) -> bool {
        let Some(known) = &self.known else { return false };
        // Here and not in `keys`, because asking the disk takes its time; and before the image is read.
        let stamp = *key.stamp.get_or_init(|| key.key.stamp());
        stamp.is_some_and(|stamp| known.has(&key.key.row_name(), stamp))
    }

    fn load(&self, key: &Self::Key) -> Result<Option<Item>, ItemError> {
        self.source.load(&key.key)
    }
}

/// Wraps an output: every row goes into the journal first, and known rows come from there. When the output is
/// there, the journal goes.
#[derive(Debug)]
pub struct JournaledSink {
    output: EmbeddingSink,
    journal: Option<Journal>,
}

impl JournaledSink {
    /// An output with a journal that was [agreed on](Journal::agree); without one, just the output.
    pub fn new(output: EmbeddingSink, journal: Option<Journal>) -> Self {
        Self { output, journal }
    }

    /// The number of rows of this run that neither a killed process nor a power failure can take away, and of those
    /// without a [stamp](Stamped), kept up to date; nothing without a journal.
    pub fn safe_rows(&self) -> Option<Arc<AtomicUsize>> {
        self.journal.as_ref().map(Journal::safe_rows)
    }

    /// Ends a run that failed and says how many rows the next one will find.
    ///
    /// # Errors
    /// If the journal cannot be brought to disk.
    pub fn keep(self) -> Result<usize, JournalError> {
        // First, so that its temporary files go.
        drop(self.output);
        let Some(mut journal) = self.journal else { return Ok(0) };
        journal.sync()?;
        Ok(journal.rows())
    }
}

impl<K: RowName> Sink<JournalKey<K>> for JournaledSink {
    fn write(&mut self, key: &JournalKey<K>, features: ImageFeatures<'_>) -> Result<(), SinkError> {
        let name = key.key.row_name();
        let vectors = self.output.layout().vectors(&name, features)?;
        if let Some(journal) = &mut self.journal {
            journal.row(&name, key.stamp(), &vectors)?;
        }
        self.output.row(&name, &vectors)
    }

    fn known(&mut self, key: &JournalKey<K>) -> Result<(), SinkError> {
        let name = key.key.row_name();
        // The source knows rows from the journal only.
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let (_, row) = journal.known_row(&name)?;
        let vectors = self.output.layout().split(&row.values);
        self.output.row(&name, &vectors)
    }

    fn failed(&mut self, key: &JournalKey<K>, error: &ItemError) -> Result<(), SinkError> {
        self.output.failed(&key.key, error)
    }

    fn finish(&mut self, summary: &Summary) -> Result<(), SinkError> {
        if let Some(journal) = &mut self.journal {
            journal.sync()?;
        }
        Sink::<K>::finish(&mut self.output, summary)?;
        if let Some(journal) = &mut self.journal {
            journal.remove()?;
        }
        Ok(())
    }
}
