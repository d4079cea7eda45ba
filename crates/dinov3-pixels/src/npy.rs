//! The header of an `.npy` file: pixels that are normalised already.

/// A header, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// Type text, `<f4` and the like.
    pub descr: String,
    /// Whether the first dimension varies fastest.
    pub fortran_order: bool,
    /// Extents.
    pub shape: Vec<usize>,
    /// Position of the first value in the file.
    pub data_offset: usize,
}

/// Reads the header of an `.npy` file (NumPy's format versions 1 to 3).
///
/// # Errors
/// What is wrong with it.
pub fn parse_header(bytes: &[u8]) -> Result<NpyHeader, String> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("not an .npy file")?;
    let (length, start) = match rest {
        [1, _, low, high, ..] => (usize::from(u16::from_le_bytes([*low, *high])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        [version, ..] => return Err(format!("format version {version} is unknown")),
        [] => return Err("the header is cut short".to_string()),
    };
    // NumPy itself refuses headers above 10,000 bytes.
    if length > 10_000 {
        return Err(format!("the header is {length} bytes, above the limit of 10000"));
    }
    let text = bytes.get(start..start + length).ok_or("the header is cut short")?;
    let text = std::str::from_utf8(text).map_err(|_| "the header is not text")?;
    let field = |name: &str| -> Result<&str, String> {
        let key = [format!("'{name}'"), format!("\"{name}\"")];
        let at = key.iter().find_map(|key| Some(text.find(key.as_str())? + key.len()));
        let value = at.and_then(|at| text[at..].trim_start().strip_prefix(':'));
        value.map(str::trim_start).ok_or(format!("the header has no '{name}'"))
    };
    let descr = field("descr")?;
    let quote = descr.chars().next().filter(|&c| c == '\'' || c == '"').ok_or("structured types are not images")?;
    let descr = descr[1..].split(quote).next().unwrap_or_default().to_string();
    let fortran_order = match field("fortran_order")? {
        value if value.starts_with("True") => true,
        value if value.starts_with("False") => false,
        _ => return Err("'fortran_order' is neither True nor False".to_string()),
    };
    let shape = field("shape")?.strip_prefix('(').and_then(|shape| shape.split(')').next()).ok_or("no shape")?;
    let shape = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let shape: Result<Vec<usize>, _> = shape.map(str::parse).collect();
    let shape = shape.map_err(|_| "the shape is not a list of whole numbers")?;
    Ok(NpyHeader { descr, fortran_order, shape, data_offset: start + length })
}

impl NpyHeader {
    /// `[N, H, W]` of a batch of images in a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// If the values are not f32, C order, [N, 3, H, W], or the file has another size than they take.
    pub fn images(&self, file_bytes: usize) -> Result<[usize; 3], String> {
        if self.descr != "<f4" {
            return Err(format!("the type is '{}', expected little-endian f32 ('<f4')", self.descr));
        }
        if self.fortran_order {
            return Err("Fortran order; save numpy.ascontiguousarray(x)".to_string());
        }
        let [count, 3, height_px, width_px] = self.shape[..] else {
            return Err(format!("the shape is {:?}, expected [N, 3, H, W]", self.shape));
        };
        if self.shape.contains(&0) {
            return Err(format!("the shape {:?} holds no pixels", self.shape));
        }
        let values = self.shape.iter().try_fold(4usize, |bytes, &extent| bytes.checked_mul(extent));
        let found = file_bytes.saturating_sub(self.data_offset);
        if values != Some(found) {
            let needed = values.map_or("more than can be".to_string(), |bytes| bytes.to_string());
            return Err(format!("shape {:?} needs {needed} bytes, found {found}", self.shape));
        }
        Ok([count, height_px, width_px])
    }
}
