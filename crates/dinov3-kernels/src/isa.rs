//! Which instructions the kernels use. An [`Isa`] exists only for what this CPU can run, so holding one is the proof.

use std::fmt;

/// An instruction set that this CPU supports.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Level);

/// Private to the crate, so that no one outside can make an [`Isa`] without detection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Level {
    Scalar,
    Avx2,
    Avx512,
    /// With the dot product of bytes.
    Avx512Vnni,
    /// With the dot products of bytes and of bf16: every CPU that has the latter has the former.
    Avx512Bf16,
}

const LEVELS: [Level; 5] = [Level::Scalar, Level::Avx2, Level::Avx512, Level::Avx512Vnni, Level::Avx512Bf16];

/// `DINOV3_ISA` names an instruction set that is unknown or that this CPU lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    wanted: String,
    known: bool,
}

impl fmt::Display for IsaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known {
            write!(formatter, "DINOV3_ISA={}: this CPU does not support it", self.wanted)?;
        } else {
            write!(formatter, "DINOV3_ISA={}: no such instruction set", self.wanted)?;
        }
        formatter.write_str("; supported here:")?;
        for isa in Isa::all_supported() {
            write!(formatter, " {}", isa.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for IsaError {}

impl Isa {
    /// Portable code, on every CPU.
    pub const SCALAR: Isa = Isa(Level::Scalar);

    /// The best instruction set of this CPU, or the one that `DINOV3_ISA` names. A name that cannot be honoured is
    /// passed over here; [`Isa::try_from_env`] reports it.
    pub fn detect() -> Isa {
        Isa::try_from_env().unwrap_or_else(|_| Isa::best())
    }

    /// Like [`Isa::detect`], and an error if `DINOV3_ISA` names what this CPU cannot run.
    pub fn try_from_env() -> Result<Isa, IsaError> {
        match std::env::var_os("DINOV3_ISA") {
            Some(wanted) if !wanted.is_empty() => Isa::from_name(&wanted.to_string_lossy()),
            _ => Ok(Isa::best()),
        }
    }

    /// The instruction set with this [`Isa::name`], if the CPU has it.
    pub fn from_name(wanted: &str) -> Result<Isa, IsaError> {
        let level = LEVELS.into_iter().find(|&level| Isa(level).name() == wanted);
        match level {
            Some(level) if supported(level) => Ok(Isa(level)),
            _ => Err(IsaError { wanted: wanted.to_owned(), known: level.is_some() }),
        }
    }

    fn best() -> Isa {
        LEVELS.into_iter().rev().find(|&level| supported(level)).map_or(Isa::SCALAR, Isa)
    }

    /// All that this CPU supports, from the plainest to the best.
    pub fn all_supported() -> Vec<Isa> {
        LEVELS.into_iter().filter(|&level| supported(level)).map(Isa).collect()
    }

    /// The name that `DINOV3_ISA` takes.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
            Level::Avx512Bf16 => "avx512bf16",
        }
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Isa({})", self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn supported(level: Level) -> bool {
    let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = || {
        avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
    };
    let vnni = || avx512() && is_x86_feature_detected!("avx512vnni");
    match level {
        Level::Scalar => true,
        Level::Avx2 => avx2(),
        Level::Avx512 => avx512(),
        Level::Avx512Vnni => vnni(),
        Level::Avx512Bf16 => vnni() && is_x86_feature_detected!("avx512bf16"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn supported(level: Level) -> bool {
    level == Level::Scalar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_unknown_names_are_refused() {
        for isa in Isa::all_supported() {
            assert_eq!(Isa::from_name(isa.name()), Ok(isa));
        }
        assert_eq!(Isa::all_supported()[0], Isa::SCALAR);
        let error = Isa::from_name("mmx").unwrap_err().to_string();
        assert!(error.contains("mmx") && error.contains("scalar"), "{error}");
    }
}
