//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished with failed items.

use std::process::ExitCode;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done.
    Done,
    /// The output is there, without some items.
    SomeFailed,
}

/// Options that contradict each other, found after parsing.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error as an `anyhow` one.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// Prints the error, if any, and gives its code.
pub fn exit_code(result: anyhow::Result<Outcome>) -> ExitCode {
    let error = match result {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::SomeFailed) => return ExitCode::from(3),
        Err(error) => error,
    };
    // A reader that left, as `head` does, is no failure.
    if error.chain().any(is_broken_pipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", printable(&in_words_of_the_command(&told(&error))));
    ExitCode::from(if is_usage(&error) { 2 } else { 1 })
}

/// The error and its causes. A cause that the text before it quotes already is not said twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Control characters made visible, line ends apart: errors quote what strangers' files say, and a terminal obeys.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => shown.push('\n'),
            control if control.is_control() => shown.extend(control.escape_default()),
            other => shown.push(other),
        }
    }
    shown
}

/// The same for what has one line: a name or a label from elsewhere cannot look like another line.
pub fn printable_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

/// The library's errors name its options as Rust does; here they have other names.
pub fn in_words_of_the_command(text: &str) -> String {
    text.replace("DeepGrey::HighByte", "--deep-grey high-byte")
        .replace("DeepGrey::Clip", "--deep-grey clip")
        .replace("or pad on request", "or --pad")
        .replace("Options::most_tokens, ", "")
        .replace(
            "only public addresses are allowed here",
            "only public addresses are allowed here (--allow-local-addresses)",
        )
}

/// Whether another command line would do, whatever the files.
fn is_usage(error: &anyhow::Error) -> bool {
    use dinov3::sink::OutputError;
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(dinov3::OpenError::UnknownModel(_)))
            || matches!(cause.downcast_ref(), Some(dinov3::HeadError::NoClassToken { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(
                    OutputError::UnknownFormat { .. }
                        | OutputError::NotAVector { .. }
                        | OutputError::OneColumnOnly { .. }
                )
            )
            || matches!(
                cause.downcast_ref(),
                Some(dinov3::OpenError::Weights(dinov3::weights::WeightsError::BadSyntheticSpec { .. }))
            )
    })
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
        || error.downcast_ref::<dinov3::sink::OutputError>().is_some_and(dinov3::sink::OutputError::is_broken_pipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_command_the_terminal() {
        assert_eq!(printable("é: \u{1b}[2J\u{9b}\r\nb"), "é: \\u{1b}[2J\\u{9b}\\r\nb");
        assert_eq!(printable_line("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_said_twice() {
        let error = anyhow::Error::new(std::io::Error::other("disk full")).context("out.npy: disk full");
        assert_eq!(told(&error), "out.npy: disk full");
        let error = anyhow::Error::new(std::io::Error::other("disk full")).context("out.npy");
        assert_eq!(told(&error), "out.npy: disk full");
    }
}
