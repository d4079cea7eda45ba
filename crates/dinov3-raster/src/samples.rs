//! Samples of the types that rasters have.

/// The type of a raster's samples as they are given; 16-bit floats are given as [`SampleType::F32`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampleType {
    /// Unsigned, 1 to 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 9 to 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// IEEE 754 binary32, or binary16 widened.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl SampleType {
    /// numpy's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// Bytes of a sample in memory.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Whether values may have fractions.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }
}

/// Samples of one type.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Samples {
    /// See [`SampleType::U8`].
    U8(Vec<u8>),
    /// See [`SampleType::I8`].
    I8(Vec<i8>),
    /// See [`SampleType::U16`].
    U16(Vec<u16>),
    /// See [`SampleType::I16`].
    I16(Vec<i16>),
    /// See [`SampleType::U32`].
    U32(Vec<u32>),
    /// See [`SampleType::I32`].
    I32(Vec<i32>),
    /// See [`SampleType::F32`].
    F32(Vec<f32>),
    /// See [`SampleType::F64`].
    F64(Vec<f64>),
}

/// The same expression for the vector of any type.
macro_rules! for_samples {
    ($samples:expr, $values:ident => $expression:expr) => {
        match $samples {
            $crate::samples::Samples::U8($values) => $expression,
            $crate::samples::Samples::I8($values) => $expression,
            $crate::samples::Samples::U16($values) => $expression,
            $crate::samples::Samples::I16($values) => $expression,
            $crate::samples::Samples::U32($values) => $expression,
            $crate::samples::Samples::I32($values) => $expression,
            $crate::samples::Samples::F32($values) => $expression,
            $crate::samples::Samples::F64($values) => $expression,
        }
    };
}
pub(crate) use for_samples;

impl Samples {
    /// How many.
    pub fn len(&self) -> usize {
        for_samples!(self, values => values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn sample_type(&self) -> SampleType {
        match self {
            Self::U8(_) => SampleType::U8,
            Self::I8(_) => SampleType::I8,
            Self::U16(_) => SampleType::U16,
            Self::I16(_) => SampleType::I16,
            Self::U32(_) => SampleType::U32,
            Self::I32(_) => SampleType::I32,
            Self::F32(_) => SampleType::F32,
            Self::F64(_) => SampleType::F64,
        }
    }

    /// One of them as a number; every type fits.
    ///
    /// # Panics
    /// If `index` is not below [`Samples::len`].
    pub fn get(&self, index: usize) -> f64 {
        match self {
            Self::U8(values) => values[index].into(),
            Self::I8(values) => values[index].into(),
            Self::U16(values) => values[index].into(),
            Self::I16(values) => values[index].into(),
            Self::U32(values) => values[index].into(),
            Self::I32(values) => values[index].into(),
            Self::F32(values) => values[index].into(),
            Self::F64(values) => values[index],
        }
    }

    /// `count` times the same value, rounded and clamped to the type as GDAL does it.
    pub fn filled(sample_type: SampleType, value: f64, count: usize) -> Self {
        // `as` saturates, and NaN becomes 0.
        let rounded = value.round();
        match sample_type {
            SampleType::U8 => Self::U8(vec![rounded as u8; count]),
            SampleType::I8 => Self::I8(vec![rounded as i8; count]),
            SampleType::U16 => Self::U16(vec![rounded as u16; count]),
            SampleType::I16 => Self::I16(vec![rounded as i16; count]),
            SampleType::U32 => Self::U32(vec![rounded as u32; count]),
            SampleType::I32 => Self::I32(vec![rounded as i32; count]),
            SampleType::F32 => Self::F32(vec![narrowed(value); count]),
            SampleType::F64 => Self::F64(vec![value; count]),
        }
    }

    /// The bytes, in the machine's order.
    pub fn to_ne_bytes(&self) -> Vec<u8> {
        for_samples!(self, values => values.iter().flat_map(|value| value.to_ne_bytes()).collect())
    }
}

/// A finite number stays finite: GDAL clamps too.
pub(crate) fn narrowed(value: f64) -> f32 {
    if value.is_finite() { value.clamp(f32::MIN.into(), f32::MAX.into()) as f32 } else { value as f32 }
}

/// A sample as it lies in a decoded block.
pub(crate) trait Stored: Copy {
    /// Its size.
    const SIZE_BYTES: usize;
    /// What it is given as.
    type Given: Copy;
    /// Reads one; `bytes` has [`Stored::SIZE_BYTES`].
    fn read(bytes: &[u8]) -> Self::Given;
}

macro_rules! stored {
    ($($type:ty),+) => {$(
        impl Stored for $type {
            const SIZE_BYTES: usize = size_of::<$type>();
            type Given = $type;
            fn read(bytes: &[u8]) -> $type {
                bytes.try_into().map(<$type>::from_ne_bytes).unwrap_or_default()
            }
        }
    )+};
}
stored!(u8, i8, u16, i16, u32, i32, f32, f64);

impl Stored for half::f16 {
    const SIZE_BYTES: usize = 2;
    type Given = f32;
    fn read(bytes: &[u8]) -> f32 {
        bytes.try_into().map(half::f16::from_ne_bytes).unwrap_or_default().to_f32()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_are_rounded_and_clamped() {
        assert_eq!(Samples::filled(SampleType::U8, -9999.0, 1), Samples::U8(vec![0]));
        assert_eq!(Samples::filled(SampleType::I16, 40_000.0, 2), Samples::I16(vec![32_767; 2]));
        assert_eq!(Samples::filled(SampleType::U8, f64::NAN, 1), Samples::U8(vec![0]));
        assert_eq!(Samples::filled(SampleType::F32, f64::MAX, 1), Samples::F32(vec![f32::MAX]));
        assert!(Samples::filled(SampleType::F32, f64::NAN, 1).get(0).is_nan());
    }
}
