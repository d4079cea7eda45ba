//! Files on web servers.

use std::ops::Range;
use std::time::Duration;

use dinov3_http::{Addresses, Client, HttpError, Request, Response, Retries, Url, is_transient_status};

use super::remote::{Part, RangeServer, Version};
use super::too_long;
use crate::RasterError;

/// A server that gives whole files only may give one of this size, once.
const LARGEST_WHOLE_BYTES: u64 = 16 << 20;
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A file behind `http` or `https`.
pub(crate) struct WebFile {
    pub client: Client,
    pub url: Url,
    pub retries: Retries,
    pub addresses: Addresses,
}

/// Why one attempt failed.
struct Failure {
    error: RasterError,
    /// Whether another attempt may succeed.
    is_transient: bool,
    /// How long the server wants to be left alone.
    wait: Option<Duration>,
}

impl WebFile {
    fn location(&self) -> String {
        self.url.shown()
    }

    /// All of it, as the server gives it without being asked for a part.
    pub fn read_whole(&self, limit_bytes: u64) -> Result<Vec<u8>, RasterError> {
        self.with_retries(|| {
            let mut request = Request::get(&self.url);
            request.addresses = self.addresses;
            let response = self.client.send(&request).map_err(|error| self.failed(error))?;
            match response.status {
                200 => response.into_bytes(limit_bytes).map_err(|error| match error {
                    HttpError::TooLong { .. } => {
                        Failure { error: too_long(self.location(), limit_bytes), is_transient: false, wait: None }
                    }
                    error => self.failed(error),
                }),
                status => Err(self.refused(status, &response)),
            }
        })
    }

    fn with_retries<T>(&self, attempt: impl Fn() -> Result<T, Failure>) -> Result<T, RasterError> {
        let mut failures = 0;
        loop {
            let failure = match attempt() {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            failures += 1;
            match self.retries.wait_after(failures) {
                Some(wait) if failure.is_transient => {
                    std::thread::sleep(failure.wait.unwrap_or(wait).min(LONGEST_WAIT));
                }
                _ => return Err(failure.error),
            }
        }
    }

    fn attempt(&self, range: &Range<u64>) -> Result<Part, Failure> {
        let mut request = Request::get(&self.url);
        request.addresses = self.addresses;
        request.headers.push(("Range", format!("bytes={}-{}", range.start, range.end - 1)));
        let response = self.client.send(&request).map_err(|error| self.failed(error))?;
        match response.status {
            206 => self.part(response, range),
            200 => self.whole(response),
            status => Err(self.refused(status, &response)),
        }
    }

    /// The part that was asked for.
    fn part(&self, response: Response, range: &Range<u64>) -> Result<Part, Failure> {
        let header = response.header("content-range").unwrap_or_default();
        let Some((start, end, length_bytes)) = parse_content_range(header) else {
            return Err(self.permanent("it gives a part without saying which (Content-Range)".to_string()));
        };
        if start != range.start || end != range.end.min(length_bytes) || end <= start {
            return Err(
                self.permanent(format!("it was asked for bytes {}-{} and gives {start}-{end}", range.start, range.end))
            );
        }
        let version = version(&response, length_bytes);
        let bytes = response.into_bytes(end - start).map_err(|error| self.failed(error))?;
        if bytes.len() as u64 != end - start {
            let error = RasterError::Io { location: self.location(), reason: "the answer was cut short".to_string() };
            return Err(Failure { error, is_transient: true, wait: None });
        }
        Ok(Part { start, bytes, version })
    }

    /// All of it, from a server that knows no ranges.
    fn whole(&self, response: Response) -> Result<Part, Failure> {
        let Some(length_bytes) = response.length_bytes() else {
            return Err(self.permanent("it gives no part of a file, and does not say how long the file is".to_string()));
        };
        if length_bytes > LARGEST_WHOLE_BYTES {
            let error = RasterError::NoRanges { location: self.location(), length_bytes };
            return Err(Failure { error, is_transient: false, wait: None });
        }
        let version = version(&response, length_bytes);
        let bytes = response.into_bytes(length_bytes).map_err(|error| self.failed(error))?;
        Ok(Part { start: 0, bytes, version })
    }

    fn refused(&self, status: u16, response: &Response) -> Failure {
        let location = self.location();
        let error = match status {
            404 | 410 => RasterError::NotFound { location },
            401 | 403 | 407 => RasterError::Denied { location, reason: format!("the server answers {status}") },
            412 => RasterError::Changed { location, reason: "the server says so".to_string() },
            416 => RasterError::Changed { location, reason: "it is empty or became shorter".to_string() },
            _ => RasterError::Io { location, reason: format!("the server answers {status}") },
        };
        let wait =
            response.header("retry-after").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        Failure { error, is_transient: is_transient_status(status), wait }
    }

    fn failed(&self, error: HttpError) -> Failure {
        let is_transient = error.is_transient();
        Failure {
            error: RasterError::Io { location: self.location(), reason: error.to_string() },
            is_transient,
            wait: None,
        }
    }

    fn permanent(&self, reason: String) -> Failure {
        let error = RasterError::Io { location: self.location(), reason };
        Failure { error, is_transient: false, wait: None }
    }
}

impl RangeServer for WebFile {
    fn get(&self, range: Range<u64>, known: Option<&Version>) -> Result<Part, RasterError> {
        self.with_retries(|| self.attempt(&range)).map_err(|error| match (known, error) {
            // Of a file of which nothing is known, not even the first byte is there.
            (None, RasterError::Changed { location, .. }) => {
                RasterError::Io { location, reason: "it is empty".to_string() }
            }
            (_, error) => error,
        })
    }
}

fn version(response: &Response, length_bytes: u64) -> Version {
    let header = |name: &str| response.header(name).map(str::to_string);
    Version { length_bytes, tag: header("etag"), modified: header("last-modified") }
}

/// `bytes 0-99/1000`: start, end (exclusive) and the file's length.
fn parse_content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, length) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, length): (u64, u64, u64) =
        (first.trim().parse().ok()?, last.trim().parse().ok()?, length.trim().parse().ok()?);
    (first <= last && last < length).then(|| (first, last + 1, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(parse_content_range("bytes 0-99/1000"), Some((0, 100, 1000)));
        for wrong in ["", "bytes */1000", "bytes 0-99/*", "bytes 9-0/1000", "bytes 0-1000/1000", "items 0-9/10"] {
            assert_eq!(parse_content_range(wrong), None, "{wrong}");
        }
    }
}
