//! Which instructions the kernels use. An [`Isa`] exists only for what this CPU can run, so holding one is the proof.
//!
//! The sets are a ladder. Each rung has what the ones below have, with two exceptions: AVX-VNNI is the 256-bit form of
//! AVX-512's dot product of bytes, and AMX leaves all but matrix products of bf16 and bytes to AVX-512.
//!
//! A rung for NEON belongs between the portable code and AVX2: a `Level`, a `Simd` of four registers of four lanes, an arm
//! of `dispatch`. Until there is a machine to test it on, aarch64 runs the portable code, which the compiler vectorises.

use std::fmt;
use std::sync::OnceLock;

use crate::selftest;

/// An instruction set that this CPU supports.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Isa(Level);

/// Private to the crate, so that no one outside can make an [`Isa`] without detection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Level {
    Scalar,
    Avx2,
    /// AVX2 with the dot product of bytes.
    AvxVnni,
    Avx512,
    /// With the dot product of bytes.
    Avx512Vnni,
    /// With the dot products of bytes and of bf16: every CPU that has the latter has the former.
    Avx512Bf16,
    /// All that `Avx512Bf16` has, and matrix products on tiles.
    Amx,
    /// Portable code, and matrix products on emulated tiles: for tests.
    AmxEmulated,
}

/// From the plainest to the best.
const LADDER: [Level; 7] =
    [Level::Scalar, Level::Avx2, Level::AvxVnni, Level::Avx512, Level::Avx512Vnni, Level::Avx512Bf16, Level::Amx];

/// `DINOV3_ISA` names an instruction set that is unknown or that this CPU lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsaError {
    wanted: String,
    /// What this machine lacks; `None` if the name is unknown.
    lacks: Option<&'static str>,
}

impl fmt::Display for IsaError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = &self.wanted;
        match self.lacks {
            Some(lacks) => write!(formatter, "DINOV3_ISA={wanted}: this machine lacks {lacks}")?,
            None => {
                write!(formatter, "DINOV3_ISA={wanted}: no such instruction set; there are")?;
                for level in LADDER {
                    write!(formatter, " {}", level.name())?;
                }
            }
        }
        formatter.write_str("; supported here:")?;
        for isa in Isa::all_supported() {
            write!(formatter, " {}", isa.name())?;
        }
        Ok(())
    }
}

impl std::error::Error for IsaError {}

/// An instruction set that the kernels know, and what speaks against it here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// Its [`Isa::name`].
    pub name: &'static str,
    /// The instruction set, if this machine supports it.
    pub isa: Option<Isa>,
    /// Why it is not chosen by itself: what the machine lacks, or that its self-test has failed.
    pub obstacle: Option<String>,
}

impl Isa {
    /// Portable code, on every CPU.
    pub const SCALAR: Isa = Isa(Level::Scalar);
    /// Portable code with matrix products on emulated AMX tiles, on every CPU, far slower than all others: so that what
    /// AMX adds is tested where there is none. Not part of [`Isa::all_supported`].
    pub const AMX_EMULATED: Isa = Isa(Level::AmxEmulated);

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
        let mut known = LADDER.into_iter().chain([Level::AmxEmulated]);
        let Some(level) = known.find(|level| level.name() == wanted) else {
            return Err(IsaError { wanted: wanted.to_owned(), lacks: None });
        };
        match level.lacks() {
            None => Ok(Isa(level)),
            lacks => Err(IsaError { wanted: wanted.to_owned(), lacks }),
        }
    }

    /// The last one that nothing speaks against.
    fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        let free = |level: &Level| level.lacks().is_none() && level.distrust().is_none();
        *BEST.get_or_init(|| LADDER.into_iter().rev().find(free).map_or(Isa::SCALAR, Isa))
    }

    /// All that this CPU supports, from the plainest to the best.
    pub fn all_supported() -> Vec<Isa> {
        LADDER.into_iter().filter(|level| level.lacks().is_none()).map(Isa).collect()
    }

    /// Every instruction set that the kernels know, from the plainest to the best, with what speaks against it. The last
    /// one with no obstacle is what [`Isa::detect`] takes if nobody forces another.
    pub fn candidates() -> Vec<Candidate> {
        let candidate = |level: Level| {
            let lacks = level.lacks();
            let obstacle = match lacks {
                Some(lacks) => Some(format!("this machine lacks {lacks}")),
                None => level.distrust().map(|reason| format!("its self-test failed: {reason}")),
            };
            Candidate { name: level.name(), isa: lacks.is_none().then_some(Isa(level)), obstacle }
        };
        LADDER.into_iter().map(candidate).collect()
    }

    /// The name that `DINOV3_ISA` takes.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether there are instructions that multiply bf16 numbers. Without them bf16 halves the weights and is not faster.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self.0, Level::Avx512Bf16 | Level::Amx)
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

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Scalar => "scalar",
            Level::Avx2 => "avx2",
            Level::AvxVnni => "avxvnni",
            Level::Avx512 => "avx512",
            Level::Avx512Vnni => "avx512vnni",
            Level::Avx512Bf16 => "avx512bf16",
            Level::Amx => "amx",
            Level::AmxEmulated => "amx-emulated",
        }
    }

    /// The first thing that this machine lacks for it.
    #[cfg(target_arch = "x86_64")]
    fn lacks(self) -> Option<&'static str> {
        // The first feature that the CPU, or the operating system for its registers, does not report.
        macro_rules! first_missing {
            ($($feature:tt)+) => {
                [$(($feature, is_x86_feature_detected!($feature))),+].into_iter().find(|(_, there)| !there).map(|(name, _)| name)
            };
        }
        match self {
            Level::Scalar | Level::AmxEmulated => None,
            Level::Avx2 => first_missing!("avx2" "fma"),
            Level::AvxVnni => Level::Avx2.lacks().or(first_missing!("avxvnni")),
            Level::Avx512 => Level::Avx2.lacks().or(first_missing!("avx512f" "avx512bw" "avx512dq" "avx512vl")),
            Level::Avx512Vnni => Level::Avx512.lacks().or(first_missing!("avx512vnni")),
            Level::Avx512Bf16 => Level::Avx512Vnni.lacks().or(first_missing!("avx512bf16")),
            Level::Amx => Level::Avx512Bf16.lacks().or_else(crate::amx::cpu_lacks),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn lacks(self) -> Option<&'static str> {
        match self {
            Level::Scalar | Level::AmxEmulated => None,
            _ => Some("the instructions of x86-64"),
        }
    }

    /// Why a set that this machine supports is not chosen by itself. No machine that this code was tested on has AVX-VNNI or
    /// AMX, so the self-test of their products has to pass first: some milliseconds, once per process.
    fn distrust(self) -> Option<&'static str> {
        static AVX_VNNI: OnceLock<Option<String>> = OnceLock::new();
        static AMX: OnceLock<Option<String>> = OnceLock::new();
        let failure = match self {
            Level::AvxVnni => &AVX_VNNI,
            Level::Amx => &AMX,
            _ => return None,
        };
        failure.get_or_init(|| selftest::bf16_and_byte_products(Isa(self)).err()).as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_and_unknown_names_are_refused() {
        for isa in Isa::all_supported().into_iter().chain([Isa::AMX_EMULATED]) {
            assert_eq!(Isa::from_name(isa.name()), Ok(isa));
        }
        assert_eq!(Isa::all_supported()[0], Isa::SCALAR);
        assert!(!Isa::all_supported().contains(&Isa::AMX_EMULATED));
        let error = Isa::from_name("mmx").unwrap_err().to_string();
        assert!(error.contains("mmx: no such") && error.contains("scalar") && error.contains("avx512bf16"), "{error}");
    }

    #[test]
    fn candidates_say_what_stands_in_the_way() {
        let candidates = Isa::candidates();
        assert_eq!(candidates.len(), LADDER.len());
        for candidate in &candidates {
            match Isa::from_name(candidate.name) {
                Ok(isa) => assert_eq!(candidate.isa, Some(isa)),
                Err(error) => {
                    let obstacle = candidate.obstacle.as_deref().unwrap();
                    assert!(error.to_string().contains(obstacle), "{error} {obstacle}");
                }
            }
        }
        let best = candidates.iter().rfind(|candidate| candidate.obstacle.is_none()).unwrap();
        assert_eq!(best.isa, Some(Isa::best()));
    }
}
