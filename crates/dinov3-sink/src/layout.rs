//! Which columns a row has, agreed before the first row.

use dinov3_engine::ImageFeatures;
use dinov3_model::encoder::{Pooling, Request};
use dinov3_model::spec::ModelSpec;

use crate::error::OutputError;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColumnContent {
    /// The embedding of that pooling.
    Embedding(Pooling),
    /// Class scores of that pooling.
    Logits(Pooling),
    /// The vectors of all patches, one after the other: what a journal of windows holds, and no table.
    Patches,
}

/// One vector per row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column {
    /// `embedding`, `embedding_token`, ..., `logits`.
    pub name: String,
    /// What its values are.
    pub content: ColumnContent,
    /// Values per row.
    pub width: usize,
}

/// The columns of an embedding file: one per requested pooling, in request order, then class scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddingLayout {
    columns: Vec<Column>,
}

impl EmbeddingLayout {
    /// Columns for `poolings` of `embed_dim` values each and, if wanted, for class scores: their pooling and number.
    ///
    /// # Errors
    /// If a row would be empty, a pooling comes twice, or a column would not be a vector.
    pub fn new(poolings: &[Pooling], embed_dim: usize, logits: Option<(Pooling, usize)>) -> Result<Self, OutputError> {
        let mut columns = Vec::new();
        for (position, &pooling) in poolings.iter().enumerate() {
            if poolings[..position].contains(&pooling) {
                return Err(OutputError::DuplicatePooling { pooling });
            }
            let name = match position {
                0 => "embedding".to_owned(),
                _ => format!("embedding_{pooling}"),
            };
            let content = ColumnContent::Embedding(pooling);
            columns.push(Column { name, content, width: embed_dim });
        }
        if let Some((pooling, width)) = logits {
            let (name, content) = ("logits".to_owned(), ColumnContent::Logits(pooling));
            columns.push(Column { name, content, width });
        }
        if columns.is_empty() {
            return Err(OutputError::NoColumns);
        }
        for column in &columns {
            if let ColumnContent::Embedding(pooling @ Pooling::None) | ColumnContent::Logits(pooling @ Pooling::None) =
                column.content
            {
                return Err(OutputError::NotAVector { pooling });
            }
            let width = column.width;
            // Arrow counts the values of a row with an i32.
            if width == 0 || i32::try_from(width).is_err() {
                let column = column.name.clone();
                return Err(OutputError::ColumnWidth { column, width });
            }
        }
        Ok(Self { columns })
    }

    /// What a journal keeps of a window: so many values.
    pub fn patches(values: usize) -> Self {
        Self { columns: vec![Column { name: "patches".to_owned(), content: ColumnContent::Patches, width: values }] }
    }

    /// The columns that this model gives for this request. Tokens and taps in the request are ignored.
    ///
    /// # Errors
    /// As [`EmbeddingLayout::new`].
    pub fn for_request(spec: &ModelSpec, request: &Request) -> Result<Self, OutputError> {
        let logits = request.logits.map(|pooling| (pooling, spec.num_classes()));
        Self::new(&request.poolings, spec.embed_dim(), logits)
    }

    /// The columns in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The names of the columns, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }

    /// The values of one row, one vector after the other, as vectors. Values that are missing make empty ones.
    pub(crate) fn split<'v>(&self, mut values: &'v [f32]) -> Vec<&'v [f32]> {
        let vector = |column: &Column| {
            let (vector, rest) = values.split_at_checked(column.width).unwrap_or_default();
            values = rest;
            vector
        };
        self.columns.iter().map(vector).collect()
    }

    /// The vectors of one image, in the order of the columns.
    pub(crate) fn vectors<'f>(&self, row: &str, features: ImageFeatures<'f>) -> Result<Vec<&'f [f32]>, OutputError> {
        let vector = |(position, column): (usize, &Column)| {
            let view = match column.content {
                // Columns and poolings are both in request order, and class scores come last.
                ColumnContent::Embedding(pooling) => {
                    features.pooled(position).filter(|(found, _)| *found == pooling).map(|(_, view)| view)
                }
                ColumnContent::Logits(_) => features.logits(),
                ColumnContent::Patches => features.maps().next().map(|found| found.map),
            };
            match view {
                Some(view) if view.shape == [column.width] => Ok(view.data),
                view => Err(OutputError::RowMismatch {
                    row: row.to_owned(),
                    column: column.name.clone(),
                    expected: column.width,
                    found: view.map_or(0, |view| view.data.len()),
                }),
            }
        };
        self.columns.iter().enumerate().map(vector).collect()
    }
}
