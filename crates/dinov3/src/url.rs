//! Pictures by URL: bytes with limits of size and time, and no way into the local network through a redirect.

use std::collections::BTreeSet;
use std::time::Duration;

use dinov3_engine::{ItemError, ItemErrorKind};
use dinov3_http::{Addresses, Client, ClientOptions, Request, Url, is_transient_status};

pub use dinov3_http::{HttpError, Retries};

/// Redirects that are followed.
const MOST_REDIRECTS: u32 = 5;

/// How URLs are fetched.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UrlOptions {
    /// Longest time for a URL with its redirects, per attempt.
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
        }
    }
}

/// Fetches URLs, from many threads at once.
#[derive(Clone, Debug)]
pub struct UrlReader {
    client: Client,
    options: UrlOptions,
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
        Ok(Self { client: Client::new(client)?, options })
    }

    /// The bytes behind a URL.
    ///
    /// # Errors
    /// If it is none, does not answer with status 200 in time, leads to an address that is not allowed, or gives more
    /// bytes than `limit_bytes`.
    pub fn read(&self, url: &str, limit_bytes: u64) -> Result<Vec<u8>, ItemError> {
        let parsed = Url::parse(url).map_err(|error| item_error(&error))?;
        let mut request = Request::get(&parsed);
        request.most_redirects = MOST_REDIRECTS;
        request.addresses = match (self.options.allow_local_addresses, self.options.trusted.contains(url)) {
            (true, _) => Addresses::Any,
            (false, true) => Addresses::PublicAfterRedirect,
            (false, false) => Addresses::Public,
        };
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
                Some(wait) if transient => std::thread::sleep(wait),
                _ => return Err(error),
            }
        }
    }
}

fn status(status: u16) -> ItemError {
    ItemError::new(ItemErrorKind::Read, format!("the server answers with status {status}"))
}

fn item_error(error: &HttpError) -> ItemError {
    let kind = match error {
        HttpError::TooLong { .. } => ItemErrorKind::Limit,
        _ => ItemErrorKind::Read,
    };
    ItemError::new(kind, error.to_string())
}
