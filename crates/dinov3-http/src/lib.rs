//! One blocking HTTP client for everything that comes over the network: weights from a hub, pictures by URL.
//!
//! It follows redirects itself, because two promises hang on them: headers marked as secret reach the first origin
//! only, and a redirect does not lead to a private address unless that is allowed. The address is checked where the
//! connection is made, so a name that resolves differently the second time gains nothing.
//!
//! Proxies come from `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`; root certificates are Mozilla's, built
//! in, or those of the file that `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` names.

mod addresses;
mod client;
mod error;
mod retry;
mod url;

pub use addresses::is_public;
pub use client::{Addresses, Client, ClientOptions, Redirects, Request, Response};
pub use error::HttpError;
pub use retry::{Retries, is_transient_status};
pub use url::{Url, without_user};
