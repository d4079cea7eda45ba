//! Why a request has no answer.

use std::net::IpAddr;

/// Why a request has no answer, or its answer no end. URLs are told without user names, passwords and queries:
/// those may be signatures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// A text that is no `http` or `https` URL.
    #[error("'{url}' is no URL that can be fetched: {reason}")]
    BadUrl {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host has no address, or nothing listens there.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What the operating system said.
        reason: String,
    },
    /// The proxy refused, or its setting is no URL.
    #[error("the proxy of the environment (HTTPS_PROXY, NO_PROXY) does not work: {reason}")]
    Proxy {
        /// What it said.
        reason: String,
    },
    /// No secure connection.
    #[error(
        "{host} gives no secure connection: {reason}; if a proxy signs with a certificate of its own, name that in \
         SSL_CERT_FILE"
    )]
    Tls {
        /// Host and port.
        host: String,
        /// What the TLS library said.
        reason: String,
    },
    /// The file of root certificates cannot be used.
    #[error("{path} (from {variable}) gives no root certificates: {reason}")]
    RootCertificates {
        /// The environment variable.
        variable: &'static str,
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// It took too long.
    #[error("{url} did not answer in time: {limit}")]
    TimedOut {
        /// The URL.
        url: String,
        /// Which limit was exceeded.
        limit: String,
    },
    /// The connection ended before the answer did.
    #[error("the connection to {url} broke off: {reason}")]
    BrokenOff {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// Not HTTP.
    #[error("{url} does not answer in HTTP: {reason}")]
    Protocol {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
    },
    /// A private, loopback or otherwise local address where only public ones are allowed.
    #[error("{host} is at the local address {address}, and only public addresses are allowed here")]
    LocalAddress {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// More redirects than are followed.
    #[error("{url} redirects more than {most} times")]
    TooManyRedirects {
        /// The first URL.
        url: String,
        /// The limit.
        most: u32,
    },
    /// The answer is longer than allowed.
    #[error("{url} gives more than {limit_bytes} bytes")]
    TooLong {
        /// The URL.
        url: String,
        /// The limit.
        limit_bytes: u64,
    },
}

impl HttpError {
    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::BrokenOff { .. })
    }
}
