//! Which part of a plan this process makes: as it was told, or as the machinery of array jobs says.

use std::num::NonZero;

/// Part `index`, from 0, of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub index: u32,
    pub count: NonZero<u32>,
}

impl Shard {
    const WHOLE: Self = Self { index: 0, count: NonZero::<u32>::MIN };

    /// `I/N`, from `0/N`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            Some((index.trim().parse::<u32>().ok()?, count.trim().parse::<NonZero<u32>>().ok()?))
        });
        let (index, count) = numbers.ok_or("expected I/N, I from 0: 0/8 to 7/8")?;
        Self::new(index, count)
            .ok_or_else(|| format!("{text}: shards are counted from 0, the last one is {}/{count}", count.get() - 1))
    }

    fn new(index: u32, count: NonZero<u32>) -> Option<Self> {
        (index < count.get()).then_some(Self { index, count })
    }
}

/// What this process makes, and where that was said.
///
/// # Errors
/// What does not agree.
pub fn chosen(
    asked: Option<Shard>,
    shards: Option<NonZero<u32>>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<(Shard, String), String> {
    let mut said: Vec<(Shard, String)> = asked.map(|shard| (shard, "--shard".to_owned())).into_iter().collect();
    for found in [of_slurm(variable)?, of_aws_batch(variable)?] {
        said.extend(found);
    }
    match (number(variable, "JOB_COMPLETION_INDEX")?, shards) {
        (Some(index), Some(count)) => {
            let shard = Shard::new(index, count).ok_or(format!(
                "JOB_COMPLETION_INDEX={index} is not below --shards {count}: say as many shards as the job has completions"
            ))?;
            said.push((shard, format!("JOB_COMPLETION_INDEX={index} and --shards {count}")));
        }
        (Some(index), None) if said.is_empty() => {
            return Err(format!(
                "JOB_COMPLETION_INDEX={index} says which part, and not of how many: add --shards N, the job's completions"
            ));
        }
        (None, Some(count)) if said.is_empty() => {
            return Err(format!(
                "--shards {count} needs to know which of them: --shard I/{count}, or the environment of an array job"
            ));
        }
        (_, Some(count)) => {
            if let Some((shard, source)) = said.iter().find(|(shard, _)| shard.count != count) {
                return Err(format!("{source} says {} shards, and --shards {count}", shard.count));
            }
        }
        (_, None) => {}
    }
    let mut said = said.into_iter();
    let Some((first, source)) = said.next() else { return Ok((Shard::WHOLE, String::new())) };
    match said.find(|(other, _)| *other != first) {
        Some((other, other_source)) => Err(format!(
            "{source} says shard {}/{}, and {other_source} says {}/{}: unset what is not meant",
            first.index, first.count, other.index, other.count
        )),
        None => Ok((first, source)),
    }
}

fn number(variable: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<u32>, String> {
    match variable(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| format!("{name}={text} is no number: --shard I/N says it otherwise")),
    }
}

/// Tasks are numbered from MIN in steps of STEP.
fn of_slurm(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(Shard, String)>, String> {
    let task = |name: &str| number(variable, &format!("SLURM_ARRAY_TASK_{name}"));
    let (Some(id), Some(count)) = (task("ID")?, task("COUNT")?) else { return Ok(None) };
    let (first, step) = (task("MIN")?.unwrap_or(0), task("STEP")?.unwrap_or(1).max(1));
    let index = id.checked_sub(first).filter(|offset| offset.is_multiple_of(step)).map(|offset| offset / step);
    let last = task("MAX")?;
    let is_regular = last.is_none_or(|last| last.checked_sub(first).is_some_and(|span| span / step + 1 == count));
    let shard = index.zip(NonZero::new(count)).and_then(|(index, count)| Shard::new(index, count));
    match shard.filter(|_| is_regular) {
        Some(shard) => Ok(Some((shard, format!("SLURM_ARRAY_TASK_ID={id} of {count} tasks from {first}")))),
        None => Err(format!(
            "SLURM_ARRAY_TASK_ID={id} of {count} tasks from {first} to {} in steps of {step} is not a whole array (a part of \
             one that is run again?): say --shard I/N, or unset SLURM_ARRAY_TASK_ID",
            last.unwrap_or(first)
        )),
    }
}

fn of_aws_batch(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(Shard, String)>, String> {
    let index = number(variable, "AWS_BATCH_JOB_ARRAY_INDEX")?;
    let count = number(variable, "AWS_BATCH_JOB_ARRAY_SIZE")?.and_then(NonZero::new);
    let (Some(index), Some(count)) = (index, count) else { return Ok(None) };
    let shard = Shard::new(index, count)
        .ok_or(format!("AWS_BATCH_JOB_ARRAY_INDEX={index} is not below AWS_BATCH_JOB_ARRAY_SIZE={count}"))?;
    Ok(Some((shard, format!("AWS_BATCH_JOB_ARRAY_INDEX={index} of {count}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen_in(shard: Option<&str>, shards: u32, environment: &[(&str, &str)]) -> Result<(u32, u32), String> {
        let variable =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        let asked = shard.map(|text| Shard::parse(text).unwrap());
        chosen(asked, NonZero::new(shards), &variable).map(|(shard, _)| (shard.index, shard.count.get()))
    }

    fn slurm<'a>(id: &'a str, count: &'a str, min: &'a str, max: &'a str, step: &'a str) -> [(&'a str, &'a str); 5] {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_COUNT", count),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
        ]
    }

    #[test]
    fn shards_are_counted_from_zero() {
        assert_eq!(Shard::parse("2/3").map(|shard| (shard.index, shard.count.get())), Ok((2, 3)));
        for wrong in ["", "3", "3/3", "1/0", "-1/2", "a/b", "1/2/3"] {
            assert!(Shard::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn array_jobs_say_which_part_is_theirs() {
        assert_eq!(chosen_in(None, 0, &[]), Ok((0, 1)));
        assert_eq!(chosen_in(None, 0, &slurm("4", "8", "1", "8", "1")), Ok((3, 8)));
        assert_eq!(chosen_in(None, 0, &slurm("0", "8", "0", "7", "1")), Ok((0, 8)));
        assert_eq!(chosen_in(None, 0, &slurm("20", "3", "10", "30", "10")), Ok((1, 3)));
        let aws = [("AWS_BATCH_JOB_ARRAY_INDEX", "2"), ("AWS_BATCH_JOB_ARRAY_SIZE", "5")];
        assert_eq!(chosen_in(None, 0, &aws), Ok((2, 5)));
        assert_eq!(chosen_in(None, 6, &[("JOB_COMPLETION_INDEX", "5")]), Ok((5, 6)));
        // The same said twice.
        assert_eq!(chosen_in(Some("2/5"), 5, &aws), Ok((2, 5)));
    }

    #[test]
    fn what_does_not_agree_is_refused() {
        // A part of an array, as --array=1,3,7.
        assert!(chosen_in(None, 0, &slurm("3", "3", "1", "7", "1")).unwrap_err().contains("not a whole array"));
        assert!(chosen_in(Some("0/8"), 0, &slurm("4", "8", "1", "8", "1")).unwrap_err().contains("SLURM"));
        assert!(chosen_in(None, 0, &[("JOB_COMPLETION_INDEX", "5")]).unwrap_err().contains("--shards N"));
        assert!(chosen_in(None, 5, &[("JOB_COMPLETION_INDEX", "5")]).is_err());
        assert!(chosen_in(None, 5, &[]).is_err());
        assert!(chosen_in(Some("0/8"), 4, &[]).is_err());
        assert!(chosen_in(None, 0, &[("AWS_BATCH_JOB_ARRAY_INDEX", "x"), ("AWS_BATCH_JOB_ARRAY_SIZE", "5")]).is_err());
    }
}
