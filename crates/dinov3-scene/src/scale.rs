//! From samples to the scale on which 0 is black and 1 is white: declared, never guessed.

use dinov3_raster::SampleType;

/// What the samples of a scene mean, as it is declared.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Scale {
    /// 8-bit levels of a picture: 255 is white.
    U8,
    /// Surface reflectance: `low` is black and `high` is white; what lies beyond is clipped. How samples become reflectance
    /// is said by the product.
    Reflectance {
        /// The reflectance that is black.
        low: f64,
        /// The reflectance that is white, above `low`.
        high: f64,
    },
    /// `low` is black and `high` is white; what lies beyond is clipped.
    Range {
        /// The sample that is black.
        low: f64,
        /// The sample that is white, above `low`.
        high: f64,
    },
    /// The percentiles that are black and white: of each band, over the whole scene.
    Percentile {
        /// Share of the pixels in percent that are black.
        low: f64,
        /// Share of the pixels in percent below white, above `low`.
        high: f64,
    },
}

impl Scale {
    /// Reflectance up to 0.3: land is mostly darker, and `DN / 10000` alone puts it where the weights expect night.
    pub const REFLECTANCE: Self = Self::Reflectance { low: 0.0, high: 0.3 };

    /// Reads `u8`, `reflectance`, `reflectance LOW,HIGH`, `range LOW,HIGH` or `percentile P,Q`.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = match text.find([' ', ':', '=']) {
            Some(at) => (&text[..at], text[at + 1..].trim()),
            None => (text, ""),
        };
        match (kind, rest) {
            ("u8", "") => return Ok(Self::U8),
            ("reflectance", "") => return Ok(Self::REFLECTANCE),
            ("reflectance" | "range" | "percentile", _) => {}
            _ => return Err("expected u8, reflectance LOW,HIGH, range LOW,HIGH or percentile P,Q".to_string()),
        }
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers = rest.split_once(',').and_then(|(low, high)| number(low).zip(number(high)));
        let Some((low, high)) = numbers else {
            return Err(format!("{kind}: expected two numbers, what is black and what is white, as {kind} 0,1"));
        };
        if low >= high {
            return Err(format!("{kind} {low},{high}: the first must be below the second"));
        }
        match kind {
            "reflectance" => Ok(Self::Reflectance { low, high }),
            "range" => Ok(Self::Range { low, high }),
            _ if low < 0.0 || high > 100.0 => Err(format!("percentile {low},{high}: both must be 0 to 100")),
            _ => Ok(Self::Percentile { low, high }),
        }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U8 => formatter.write_str("u8"),
            Self::Reflectance { low, high } => write!(formatter, "reflectance {low},{high}"),
            Self::Range { low, high } => write!(formatter, "range {low},{high}"),
            Self::Percentile { low, high } => write!(formatter, "percentile {low},{high}"),
        }
    }
}

/// How samples become a physical quantity, in the form in which products publish it:
/// `(sample * factor + addend) / divisor`, in f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// What samples are multiplied with.
    pub factor: f64,
    /// What is added then: Sentinel-2's `BOA_ADD_OFFSET`.
    pub addend: f64,
    /// What the sum is divided by: Sentinel-2's `BOA_QUANTIFICATION_VALUE`.
    pub divisor: f64,
}

impl Calibration {
    /// Samples as they are.
    pub const NONE: Self = Self { factor: 1.0, addend: 0.0, divisor: 1.0 };

    /// The quantity that a sample stands for.
    pub fn apply(&self, sample: f64) -> f64 {
        (sample * self.factor + self.addend) / self.divisor
    }
}

impl std::fmt::Display for Calibration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { factor, addend, divisor } = *self;
        let product = if factor == 1.0 { "DN".to_owned() } else { format!("DN * {factor}") };
        let sum = match addend {
            0.0 => product,
            below if below < 0.0 => format!("{product} - {}", -below),
            above => format!("{product} + {above}"),
        };
        match divisor {
            1.0 => formatter.write_str(&sum),
            _ if addend == 0.0 => write!(formatter, "{sum} / {divisor}"),
            _ => write!(formatter, "({sum}) / {divisor}"),
        }
    }
}

/// What is done with the samples of red, green and blue: a [`Scale`] of which everything is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transfer {
    /// Levels of a picture, as timm takes them.
    Levels,
    /// Each channel by itself.
    Linear([Stretch; 3]),
}

/// A calibration, and what is black and white of its result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretch {
    pub calibration: Calibration,
    pub low: f64,
    pub high: f64,
}

impl Transfer {
    /// A sample on the scale of 0 to 1, in f64 until the end; NaN stays NaN.
    pub fn unit(&self, channel: usize, sample: f64) -> f32 {
        match self {
            Self::Levels => (sample / 255.0) as f32,
            Self::Linear(stretches) => {
                let Stretch { calibration, low, high } = stretches[channel];
                ((calibration.apply(sample) - low) / (high - low)).clamp(0.0, 1.0) as f32
            }
        }
    }

    /// The same for all values that a sample of 8 or 16 bits can have; nothing for levels and for other samples.
    pub fn tables(&self, sample_type: SampleType) -> Option<[Vec<f32>; 3]> {
        let last = match (self, sample_type) {
            (Self::Linear(_), SampleType::U8) => u16::from(u8::MAX),
            (Self::Linear(_), SampleType::U16) => u16::MAX,
            _ => return None,
        };
        Some([0, 1, 2].map(|channel| (0..=last).map(|sample| self.unit(channel, sample.into())).collect()))
    }

    /// The same black and white for the samples of all channels.
    #[cfg(test)]
    pub fn range(low: f64, high: f64) -> Self {
        Self::Linear([Stretch { calibration: Calibration::NONE, low, high }; 3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read_and_written_alike() {
        for text in ["u8", "range 0,3000", "range -0.5,0.25", "reflectance 0,0.4", "percentile 2,98"] {
            assert_eq!(Scale::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Scale::parse("range:0,1"), Ok(Scale::Range { low: 0.0, high: 1.0 }));
        assert_eq!(Scale::parse("reflectance").unwrap().to_string(), "reflectance 0,0.3");
        for wrong in [
            "",
            "u16",
            "u8 1,2",
            "range",
            "range 1",
            "range 1,1",
            "range 2,1",
            "range a,b",
            "range 0,inf",
            "range 0,nan",
            "reflectance 0.3",
            "percentile",
            "percentile -1,98",
            "percentile 2,101",
            "ranges 0,1",
        ] {
            assert!(Scale::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_beyond_the_range_are_clipped() {
        let transfer = Transfer::range(1000.0, 4000.0);
        let values = [0.0, 1000.0, 2500.0, 4000.0, 65535.0].map(|sample| transfer.unit(0, sample));
        assert_eq!(values, [0.0, 0.0, 0.5, 1.0, 1.0]);
        assert!(transfer.unit(0, f64::NAN).is_nan());
    }

    #[test]
    fn calibrations_are_those_of_the_products() {
        let sentinel = Calibration { factor: 1.0, addend: -1000.0, divisor: 10000.0 };
        assert_eq!((sentinel.apply(1000.0), sentinel.apply(4000.0)), (0.0, 0.3));
        assert_eq!(sentinel.to_string(), "(DN - 1000) / 10000");
        let landsat = Calibration { factor: 0.000_027_5, addend: -0.2, divisor: 1.0 };
        // The example of USGS: 18639 gives 0.313.
        assert!((landsat.apply(18639.0) - 0.313).abs() < 0.0005);
        assert_eq!(landsat.to_string(), "DN * 0.0000275 - 0.2");
        assert_eq!(Calibration { factor: 1.0, addend: 0.0, divisor: 1e4 }.to_string(), "DN / 10000");
        assert_eq!(Calibration::NONE.to_string(), "DN");
    }
}
