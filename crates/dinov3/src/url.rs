//! Pictures by URL: bytes with limits of size and time, and no way into the local network through a redirect.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use dinov3_engine::{CancelToken, ItemError, ItemErrorKind};
use dinov3_http::{Addresses, Client, ClientOptions, Request, Url, is_transient_status};

pub use dinov3_http::{HttpError, Retries, without_user};

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 5;
/// How often a reader that waits looks at its cancel token.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// How URLs are fetched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UrlOptions {
    /// Longest time for a URL with its redirects and all attempts.
    pub total_timeout: Duration,
    /// How often a failed request is repeated.
    pub retries: Retries,
    /// Whether everything may lead to private, loopback and link-local addresses.
    pub allow_local_addresses: bool,
    /// URLs that may themselves be at such an address, though what they redirect to may not: those that a person
    /// typed, unlike those of a list from somewhere.
    pub trusted: BTreeSet<String>,
    /// Whether HTTPS_PROXY and its kin are read.
    pub proxy_from_environment: bool,
    /// Ends all waiting, so that silent servers cannot hold up the end of a run.
    pub cancel: CancelToken,
}

impl Default for UrlOptions {
    /// 60 seconds, two retries, public addresses alone, proxies from the environment.
    fn default() -> Self {
        Self {
            total_timeout: Duration::from_secs(60),
            retries: Retries { most: 2, ..Retries::default() },
            allow_local_addresses: false,
            trusted: BTreeSet::new(),
            proxy_from_environment: true,
            cancel: CancelToken::new(),
        }
    }
}

/// Fetches URLs, from many threads at once.
#[derive(Clone, Debug)]
pub struct UrlReader {
    client: Arc<Client>,
    options: Arc<UrlOptions>,
}

impl UrlReader {
    /// A reader with these options.
    ///
    /// # Errors
    /// If the environment's proxy or root certificates cannot be used.
    pub fn new(options: UrlOptions) -> Result<Self, HttpError> {
        let mut client = ClientOptions::default();
        client.total_timeout = Some(options.total_timeout);
        client.silence_timeout = options.total_timeout.min(Duration::from_secs(30));
        client.connect_timeout = options.total_timeout.min(client.connect_timeout);
        client.proxy_from_environment = options.proxy_from_environment;
        Ok(Self { client: Arc::new(Client::new(client)?), options: Arc::new(options) })
    }

    /// The bytes behind a URL.
    ///
    /// # Errors
    /// If it is none, does not answer with status 200 in time, leads to an address that is not allowed, or gives more
    /// bytes than `limit_bytes`; and if it was cancelled.
    pub fn read(&self, url: &str, limit_bytes: u64) -> Result<Vec<u8>, ItemError> {
        let (sender, receiver) = mpsc::channel();
        let (reader, wanted) = (self.clone(), url.to_owned());
        // A thread of its own, because nothing else can leave a server that is silent.
        let fetch = move || {
            let _ = sender.send(reader.fetch(&wanted, limit_bytes));
        };
        let failed = |message: String| ItemError::new(ItemErrorKind::Read, message);
        std::thread::Builder::new().spawn(fetch).map_err(|error| failed(error.to_string()))?;
        loop {
            match receiver.recv_timeout(CANCEL_POLL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if !self.options.cancel.is_cancelled() => {}
                Err(RecvTimeoutError::Timeout) => return Err(failed("cancelled".to_owned())),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ItemError::new(ItemErrorKind::Panicked, "fetching panicked"));
                }
            }
        }
    }

    fn fetch(&self, url: &str, limit_bytes: u64) -> Result<Vec<u8>, ItemError> {
        let parsed = Url::parse(url).map_err(|error| item_error(&error, ""))?;
        let item_error = |error: &HttpError| item_error(error, &parsed.shown());
        let deadline = Instant::now() + self.options.total_timeout;
        let mut request = Request::get(&parsed);
        request.most_redirects = MOST_REDIRECTS;
        request.addresses = match (self.options.allow_local_addresses, self.options.trusted.contains(url)) {
            (true, _) => Addresses::Any,
            (false, true) => Addresses::PublicAfterRedirect,
            (false, false) => Addresses::Public,
        };
        request.deadline = Some(deadline);
        let mut failures = 0;
        loop {
            let (error, transient) = match self.client.send(&request) {
                Ok(response) if response.status == 200 => match response.into_bytes(limit_bytes) {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => (item_error(&error), error.is_transient()),
                },
                Ok(response) => (status(response.status), is_transient_status(response.status)),
                Err(error) => (item_error(&error), error.is_transient()),
            };
            failures += 1;
            match self.options.retries.wait_after(failures) {
                Some(wait) if transient && Instant::now() + wait < deadline => std::thread::sleep(wait),
                _ => return Err(error),
            }
            if self.options.cancel.is_cancelled() {
                return Err(error);
            }
        }
    }
}

fn status(status: u16) -> ItemError {
    ItemError::new(ItemErrorKind::Read, format!("the server answers with status {status}"))
}

/// Without the URL, which the receiver has; what it was redirected to is told.
fn item_error(error: &HttpError, shown: &str) -> ItemError {
    let kind = match error {
        HttpError::TooLong { .. } => ItemErrorKind::Limit,
        _ => ItemErrorKind::Read,
    };
    let message = match error {
        HttpError::BadUrl { reason, .. } => format!("no URL that can be fetched: {reason}"),
        error => error.to_string().replace(&format!(" to {shown} broke off"), " broke off"),
    };
    ItemError::new(kind, message.strip_prefix(&format!("{shown} ")).unwrap_or(&message))
}

#[cfg(test)]
mod tests {
    use dinov3_testing::http_server::{HttpReply, HttpServer};

    use super::*;

    fn options(total_ms: u64) -> UrlOptions {
        let total_timeout = Duration::from_millis(total_ms);
        let proxy_from_environment = false;
        UrlOptions { total_timeout, allow_local_addresses: true, proxy_from_environment, ..UrlOptions::default() }
    }

    #[test]
    fn all_attempts_share_one_limit() {
        let server = HttpServer::start(|_| HttpReply { delay: Duration::from_secs(3), ..HttpReply::new(200, "x") });
        let start = Instant::now();
        let error = UrlReader::new(options(600)).unwrap().read(&server.url(), 10).unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(1700), "{:?}", start.elapsed());
        assert!(error.to_string().starts_with("did not answer in time"), "{error}");
    }

    #[test]
    fn a_cancelled_reader_waits_for_nobody() {
        let server = HttpServer::start(|_| HttpReply { delay: Duration::from_secs(3), ..HttpReply::new(200, "x") });
        let options = options(60_000);
        let cancel = options.cancel.clone();
        let reader = UrlReader::new(options).unwrap();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| reader.read(&server.url(), 10).unwrap_err());
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }

    #[test]
    fn failures_do_not_repeat_the_url_nor_tell_its_password() {
        let server = HttpServer::start(|_| HttpReply::new(200, vec![0; 20]));
        let reader = UrlReader::new(options(5000)).unwrap();
        let url = format!("{}/a.png?key=1", server.url().replace("://", "://user:secret@"));
        assert_eq!(reader.read(&url, 10).unwrap_err().to_string(), "gives more than 10 bytes");
        let error = reader.read("http://user:secret@h:99999/", 10).unwrap_err().to_string();
        assert_eq!(error, "no URL that can be fetched: a port is a number from 1 to 65535");
    }
}
