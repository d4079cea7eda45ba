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
    let mut alone = Vec::new();
    for task in
        [of_slurm(variable, asked, shards)?, of_aws_batch(variable)?, of_kubernetes(variable)?].into_iter().flatten()
    {
        let Task { index, count, source } = task;
        let source = match (count, shards) {
            (None, Some(count)) => format!("{source} and --shards {count}"),
            _ => source,
        };
        let Some(count) = count.or(shards) else {
            alone.push((index, source));
            continue;
        };
        let shard = Shard::new(index, count).ok_or_else(|| {
            format!("{source}: {index} is not below {count}; say as many shards as the job has tasks")
        })?;
        said.push((shard, source));
    }
    if let Some((shard, source)) = said.iter().find(|(shard, _)| shards.is_some_and(|count| count != shard.count)) {
        let count = shards.unwrap_or(shard.count);
        return Err(format!("{source} says {} shards, and --shards {count}", shard.count));
    }
    let Some((first, source)) = said.first() else {
        return match (alone.first(), shards) {
            (Some((_, source)), _) => Err(format!(
                "{source} says which part, and not of how many: add --shards N, the job's number of tasks, or --shard I/N"
            )),
            (None, Some(count)) => Err(format!(
                "--shards {count} needs to know which of them: --shard I/{count}, or the environment of an array job"
            )),
            (None, None) => Ok((Shard::WHOLE, String::new())),
        };
    };
    if let Some((other, other_source)) = said.iter().find(|(other, _)| other != first) {
        return Err(format!(
            "{source} says shard {}/{}, and {other_source} says {}/{}: unset what is not meant",
            first.index, first.count, other.index, other.count
        ));
    }
    if let Some((_, other_source)) = alone.iter().find(|(index, _)| *index != first.index) {
        return Err(format!(
            "{source} says shard {}/{}, and {other_source} says another: unset what is not meant",
            first.index, first.count
        ));
    }
    Ok((*first, source.clone()))
}

/// What the machinery of an array job says.
struct Task {
    /// From 0.
    index: u32,
    /// Unless it says just which one.
    count: Option<NonZero<u32>>,
    source: String,
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
fn of_slurm(
    variable: &dyn Fn(&str) -> Option<String>,
    asked: Option<Shard>,
    shards: Option<NonZero<u32>>,
) -> Result<Option<Task>, String> {
    let task = |name: &str| number(variable, &format!("SLURM_ARRAY_TASK_{name}"));
    let Some(id) = task("ID")? else { return Ok(None) };
    let min = task("MIN")?;
    // IDs may start anywhere: without the first one, `--shards` would not say which part this is.
    let said = task("COUNT")?.or(min.and(shards).map(NonZero::get));
    let Some(count) = said else {
        return match asked {
            Some(_) => Ok(None),
            None => Err(format!(
                "SLURM_ARRAY_TASK_ID={id} says which part, and without SLURM_ARRAY_TASK_COUNT not of how many: say --shard I/N, \
                 I from 0, or unset it"
            )),
        };
    };
    let (first, step) = (min.unwrap_or(0), task("STEP")?.unwrap_or(1).max(1));
    let index = id.checked_sub(first).filter(|offset| offset.is_multiple_of(step)).map(|offset| offset / step);
    let last = task("MAX")?;
    let is_regular = last.is_none_or(|last| last.checked_sub(first).is_some_and(|span| span / step + 1 == count));
    let shard = index.zip(NonZero::new(count)).and_then(|(index, count)| Shard::new(index, count));
    match shard.filter(|_| is_regular) {
        Some(Shard { index, count }) => Ok(Some(Task {
            index,
            count: Some(count),
            source: format!("SLURM_ARRAY_TASK_ID={id} of {count} tasks from {first}"),
        })),
        None => Err(format!(
            "SLURM_ARRAY_TASK_ID={id} of {count} tasks from {first} to {} in steps of {step} is not a whole array (a part of \
             one that is run again?): say --shard I/N, or unset SLURM_ARRAY_TASK_ID",
            last.unwrap_or(first)
        )),
    }
}

fn of_aws_batch(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Task>, String> {
    let Some(index) = number(variable, "AWS_BATCH_JOB_ARRAY_INDEX")? else { return Ok(None) };
    let count = number(variable, "AWS_BATCH_JOB_ARRAY_SIZE")?.and_then(NonZero::new);
    let of = count.map_or_else(String::new, |count| format!(" of {count}"));
    Ok(Some(Task { index, count, source: format!("AWS_BATCH_JOB_ARRAY_INDEX={index}{of}") }))
}

/// Of how many it does not say.
fn of_kubernetes(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Task>, String> {
    let index = number(variable, "JOB_COMPLETION_INDEX")?;
    Ok(index.map(|index| Task { index, count: None, source: format!("JOB_COMPLETION_INDEX={index}") }))
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
    fn an_index_alone_is_no_part() {
        let aws = [("AWS_BATCH_JOB_ARRAY_INDEX", "2")];
        assert!(chosen_in(None, 0, &aws).unwrap_err().contains("not of how many: add --shards N"));
        assert_eq!(chosen_in(None, 3, &aws), Ok((2, 3)));
        assert_eq!(chosen_in(Some("2/3"), 0, &aws), Ok((2, 3)));
        assert!(chosen_in(Some("1/3"), 0, &aws).unwrap_err().contains("unset what is not meant"));
        let slurm = [("SLURM_ARRAY_TASK_ID", "2")];
        assert!(chosen_in(None, 0, &slurm).unwrap_err().contains("say --shard I/N"));
        // Whether the first one is 0 or 1 is not known.
        assert!(chosen_in(None, 3, &slurm).unwrap_err().contains("say --shard I/N"));
        assert_eq!(chosen_in(Some("1/3"), 0, &slurm), Ok((1, 3)));
        let from_one = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_MIN", "1")];
        assert_eq!(chosen_in(None, 3, &from_one), Ok((1, 3)));
        let kubernetes = [("JOB_COMPLETION_INDEX", "2")];
        assert_eq!(chosen_in(Some("2/3"), 0, &kubernetes), Ok((2, 3)));
        assert!(chosen_in(Some("0/3"), 0, &kubernetes).unwrap_err().contains("unset what is not meant"));
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
