//! The client: one request, its redirects, and the answer as a stream.

use std::io::Read;
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, BodyReader, Error, Proxy, http};

use crate::HttpError;
use crate::addresses::{PublicOnly, Refused, is_public};
use crate::url::Url;

/// Environment variables that name a file of root certificates, the first that is set.
const ROOT_CERTIFICATES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// Largest such file.
const LARGEST_CERTIFICATES_BYTES: u64 = 16 << 20;

/// What holds for all requests of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Longest time until a connection stands.
    pub connect_timeout: Duration,
    /// Longest silence: before the answer begins, and between two reads of it.
    pub silence_timeout: Duration,
    /// Longest time for a request with its redirects and its whole answer.
    pub total_timeout: Option<Duration>,
    /// Whether proxies are taken from the environment.
    pub proxy_from_environment: bool,
    /// Connections to one host that are kept for the next request.
    pub idle_connections: usize,
}

impl Default for ClientOptions {
    /// 10 seconds to connect and of silence, no total limit, proxies from the environment, 3 idle connections.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(10),
            total_timeout: None,
            proxy_from_environment: true,
            idle_connections: 3,
        }
    }
}

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// All.
    Any,
    /// All for the URL itself, public ones for what it redirects to.
    PublicAfterRedirect,
    /// Public ones.
    #[default]
    Public,
}

/// Which redirects are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirects {
    /// To the same scheme, host and port; others are given back as the answer.
    SameOrigin,
    /// To anywhere.
    Anywhere,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Where to.
    pub url: &'a Url,
    /// Asks for the headers alone.
    pub head_only: bool,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Headers that only the URL's own origin is told.
    pub secret_headers: Vec<(&'static str, String)>,
    /// Which redirects are followed.
    pub redirects: Redirects,
    /// How many are followed.
    pub most_redirects: u32,
    /// Which addresses may be connected to.
    pub addresses: Addresses,
    /// When it must be done, if that is before [`ClientOptions::total_timeout`]: one limit for several requests.
    pub deadline: Option<Instant>,
}

impl<'a> Request<'a> {
    /// A plain GET of a public address that follows 5 redirects.
    pub fn get(url: &'a Url) -> Self {
        Self {
            url,
            head_only: false,
            headers: Vec::new(),
            secret_headers: Vec::new(),
            redirects: Redirects::Anywhere,
            most_redirects: 5,
            addresses: Addresses::Public,
            deadline: None,
        }
    }
}

/// An answer; its body comes by [`Response::read`].
pub struct Response {
    /// The status.
    pub status: u16,
    /// Who answered, after redirects.
    pub url: Url,
    headers: http::HeaderMap,
    body: BodyReader<'static>,
}

/// A client. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    anywhere: Agent,
    public: Agent,
    /// The same without the proxy, for what the environment excepts from it.
    public_direct: Agent,
    proxy: Option<Proxy>,
    options: ClientOptions,
}

impl Client {
    /// A client with these options.
    ///
    /// # Errors
    /// If the environment names root certificates that cannot be used, or a proxy that is none.
    pub fn new(options: ClientOptions) -> Result<Self, HttpError> {
        let proxy = if options.proxy_from_environment { proxy_from_environment()? } else { None };
        Self::with_proxy(options, proxy)
    }

    fn with_proxy(options: ClientOptions, proxy: Option<Proxy>) -> Result<Self, HttpError> {
        let tls = TlsConfig::builder().root_certs(root_certificates()?).build();
        let config = |proxy: Option<Proxy>| {
            Config::builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .proxy(proxy)
                .tls_config(tls.clone())
                .timeout_connect(Some(options.connect_timeout))
                .timeout_recv_response(Some(options.silence_timeout))
                .timeout_per_read(Some(options.silence_timeout))
                .timeout_per_write(Some(options.silence_timeout))
                .max_idle_connections(options.idle_connections.max(10))
                .max_idle_connections_per_host(options.idle_connections)
                .accept_encoding("identity")
                .user_agent(concat!("dinov3/", env!("CARGO_PKG_VERSION")))
                .build()
        };
        let anywhere = |config| Agent::with_parts(config, DefaultConnector::default(), DefaultResolver::default());
        let public_only =
            |config| Agent::with_parts(config, DefaultConnector::default(), PublicOnly(DefaultResolver::default()));
        // Told of no proxy, its resolver cannot take the target for one.
        let public_direct = public_only(config(None));
        let (anywhere, public) = (anywhere(config(proxy.clone())), public_only(config(proxy.clone())));
        Ok(Self { anywhere, public, public_direct, proxy, options })
    }

    /// Sends a request and follows its redirects. Any status is an answer.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn send(&self, request: &Request<'_>) -> Result<Response, HttpError> {
        let own = self.options.total_timeout.map(|limit| Instant::now() + limit);
        let deadline = own.into_iter().chain(request.deadline).min();
        let mut url = request.url.clone();
        let mut followed = 0;
        loop {
            let public_only = match request.addresses {
                Addresses::Any => false,
                Addresses::PublicAfterRedirect => followed > 0,
                Addresses::Public => true,
            };
            let secrets: &[_] = if url.same_origin(request.url) { &request.secret_headers } else { &[] };
            let response = self.send_once(&url, request, secrets, public_only, deadline)?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let Some(location) = response.headers.get("location") else { return Ok(response) };
            // Often UTF-8, which no header should be; what that is not will not be found.
            let next = url.join(&String::from_utf8_lossy(location.as_bytes()))?;
            if request.redirects == Redirects::SameOrigin && !next.same_origin(request.url) {
                return Ok(response);
            }
            if followed == request.most_redirects {
                let (url, most) = (request.url.shown(), request.most_redirects);
                return Err(HttpError::TooManyRedirects { url, most });
            }
            followed += 1;
            url = next;
        }
    }

    /// Sends a request of any method with a body, to any address, and follows no redirect. Any status is an answer. For
    /// libraries that sign their own requests.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn exchange(&self, head: http::request::Parts, body: &[u8]) -> Result<Response, HttpError> {
        let url = Url::parse(&head.uri.to_string())?;
        let limit = self.options.total_timeout;
        let response = if body.is_empty() && matches!(head.method, http::Method::GET | http::Method::HEAD) {
            let message = http::Request::from_parts(head, ());
            self.anywhere.run(self.anywhere.configure_request(message).timeout_global(limit).build())
        } else {
            let message = http::Request::from_parts(head, body);
            self.anywhere.run(self.anywhere.configure_request(message).timeout_global(limit).build())
        };
        let response = response.map_err(|error| self.told(error, &url))?;
        Ok(Response::new(response, url))
    }

    fn send_once(
        &self,
        url: &Url,
        request: &Request<'_>,
        secrets: &[(&'static str, String)],
        public_only: bool,
        deadline: Option<Instant>,
    ) -> Result<Response, HttpError> {
        if public_only {
            self.refuse_local_target(url)?;
        }
        let mut message =
            http::Request::builder().method(if request.head_only { "HEAD" } else { "GET" }).uri(url.0.clone());
        for (name, value) in request.headers.iter().chain(secrets) {
            message = message.header(*name, value);
        }
        let message = message.body(()).map_err(|error| HttpError::Protocol {
            url: url.shown(),
            reason: format!("the request cannot be written: {error}"),
        })?;
        let agent = match (public_only, self.is_direct(url)) {
            (false, _) => &self.anywhere,
            (true, false) => &self.public,
            (true, true) => &self.public_direct,
        };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let message = agent.configure_request(message).timeout_global(left).build();
        let response = agent.run(message).map_err(|error| self.told(error, url))?;
        Ok(Response::new(response, url.clone()))
    }

    /// Whether no proxy is asked, so that our own resolver decides.
    fn is_direct(&self, url: &Url) -> bool {
        self.proxy.as_ref().is_none_or(|proxy| proxy.is_no_proxy(&url.0))
    }

    /// A proxy resolves names itself, out of our resolver's sight. What can be seen from here is checked before it
    /// is asked.
    fn refuse_local_target(&self, url: &Url) -> Result<(), HttpError> {
        if self.is_direct(url) {
            return Ok(());
        }
        let host = url.host().trim_matches(['[', ']']);
        let addresses: Vec<IpAddr> = match (host, url.port()).to_socket_addrs() {
            Ok(found) => found.map(|address| address.ip()).collect(),
            // Where only the proxy knows names, it also keeps the gate.
            Err(_) => Vec::new(),
        };
        match addresses.into_iter().find(|address| !is_public(*address)) {
            Some(address) => Err(HttpError::LocalAddress { host: url.host().to_string(), address }),
            None => Ok(()),
        }
    }

    fn told(&self, error: Error, url: &Url) -> HttpError {
        told(error, url, &self.options)
    }
}

fn told(error: Error, url: &Url, options: &ClientOptions) -> HttpError {
    let place = || format!("{}:{}", url.host(), url.port());
    match error {
        Error::HostNotFound => HttpError::Unreachable { host: place(), reason: "no such host".to_string() },
        Error::ConnectionFailed => HttpError::Unreachable { host: place(), reason: "no connection".to_string() },
        Error::Timeout(limit) => {
            let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
            let limit = match limit {
                ureq::Timeout::Connect | ureq::Timeout::Resolve => {
                    format!("no connection within {}", seconds(options.connect_timeout))
                }
                ureq::Timeout::Global | ureq::Timeout::PerCall => {
                    format!("not done within {}", options.total_timeout.map_or("the limit".to_string(), seconds))
                }
                _ => format!("silent for {}", seconds(options.silence_timeout)),
            };
            HttpError::TimedOut { url: url.shown(), limit }
        }
        Error::Tls(reason) => HttpError::Tls { host: place(), reason: reason.to_string() },
        Error::TlsRequired => HttpError::Tls { host: place(), reason: "no TLS".to_string() },
        Error::Rustls(reason) => HttpError::Tls { host: place(), reason: reason.to_string() },
        Error::Pem(reason) => HttpError::Tls { host: place(), reason: format!("{reason:?}") },
        Error::ConnectProxyFailed(reason) => HttpError::Proxy { reason },
        Error::InvalidProxyUrl => HttpError::Proxy { reason: "it is no URL".to_string() },
        Error::Io(error) => told_io(error, url),
        Error::Other(other) => match other.downcast::<Refused>() {
            Ok(refused) => HttpError::LocalAddress { host: url.host().to_string(), address: refused.0 },
            Err(other) => HttpError::Protocol { url: url.shown(), reason: other.to_string() },
        },
        other => HttpError::Protocol { url: url.shown(), reason: other.to_string() },
    }
}

fn told_io(error: std::io::Error, url: &Url) -> HttpError {
    use std::io::ErrorKind;
    let host = format!("{}:{}", url.host(), url.port());
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof => HttpError::BrokenOff { url: url.shown(), reason: error.to_string() },
        // rustls reports a certificate that it does not trust so.
        ErrorKind::InvalidData => HttpError::Tls { host, reason: error.to_string() },
        _ => HttpError::Unreachable { host, reason: error.to_string() },
    }
}

impl Response {
    fn new(response: http::Response<ureq::Body>, url: Url) -> Self {
        let (head, body) = response.into_parts();
        let body = body.into_with_config().limit(u64::MAX).reader();
        Self { status: head.status.as_u16(), url, headers: head.headers, body }
    }

    /// All headers.
    pub fn headers(&self) -> &http::HeaderMap {
        &self.headers
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Content-Length`.
    pub fn length_bytes(&self) -> Option<u64> {
        self.header("content-length")?.trim().parse().ok()
    }

    /// Reads on; 0 at the end. An answer that ends before its `Content-Length` is an error.
    ///
    /// # Errors
    /// If the connection breaks off or is silent for too long.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        loop {
            match self.body.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = error.to_string();
                    return Err(match Error::from(error) {
                        Error::Timeout(ureq::Timeout::Global) => HttpError::TimedOut {
                            url: self.url.shown(),
                            limit: "the whole answer took too long".to_string(),
                        },
                        Error::Timeout(_) => HttpError::TimedOut {
                            url: self.url.shown(),
                            limit: "silent in the middle of the answer".to_string(),
                        },
                        _ => HttpError::BrokenOff { url: self.url.shown(), reason },
                    });
                }
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// Those of [`Response::read`], and [`HttpError::TooLong`]; what a header announces is refused at once.
    pub fn into_bytes(mut self, limit_bytes: u64) -> Result<Vec<u8>, HttpError> {
        let too_long = |url: &Url| HttpError::TooLong { url: url.shown(), limit_bytes };
        let announced = self.length_bytes().unwrap_or(0);
        if announced > limit_bytes {
            return Err(too_long(&self.url));
        }
        // An announcement alone asks for no memory.
        let mut bytes = Vec::with_capacity(announced.min(1 << 20) as usize);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                return Ok(bytes);
            }
            if (bytes.len() + count) as u64 > limit_bytes {
                return Err(too_long(&self.url));
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
    }
}

fn proxy_from_environment() -> Result<Option<Proxy>, HttpError> {
    let proxy = Proxy::try_from_env();
    // The client would connect directly in silence.
    if proxy
        .as_ref()
        .is_some_and(|proxy| !matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https))
    {
        let reason = "SOCKS proxies are not spoken to; name an HTTP one".to_string();
        return Err(HttpError::Proxy { reason });
    }
    Ok(proxy)
}

/// Mozilla's, or those of the file that the environment names.
fn root_certificates() -> Result<RootCerts, HttpError> {
    let set =
        |name: &&'static str| std::env::var_os(name).filter(|value| !value.is_empty()).map(|value| (*name, value));
    let Some((variable, path)) = ROOT_CERTIFICATES.iter().find_map(set) else { return Ok(RootCerts::WebPki) };
    let path = std::path::PathBuf::from(path);
    let failed = |reason: String| HttpError::RootCertificates { variable, path: path.display().to_string(), reason };
    let information = std::fs::metadata(&path).map_err(|error| failed(error.to_string()))?;
    if !information.is_file() {
        return Err(failed("not a file".to_string()));
    }
    if information.len() > LARGEST_CERTIFICATES_BYTES {
        return Err(failed(format!("larger than {LARGEST_CERTIFICATES_BYTES} bytes")));
    }
    let pem = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => Err(failed("it holds no certificate in PEM".to_string())),
        false => Ok(RootCerts::from(certificates)),
    }
}

#[cfg(test)]
mod tests {
    use dinov3_testing::http_server::{HttpReply, HttpServer};

    use super::*;

    #[test]
    fn an_exception_from_the_proxy_does_not_lead_into_the_local_network() {
        let server = HttpServer::start(|_| HttpReply::new(200, "inside"));
        let place = server.url().replace("http://", "");
        let proxy = |exceptions: &str| {
            let (host, port) = place.split_once(':').unwrap();
            let builder = Proxy::builder(ureq::ProxyProtocol::Http).host(host).port(port.parse().unwrap());
            Client::with_proxy(ClientOptions::default(), Some(builder.no_proxy(exceptions).build().unwrap())).unwrap()
        };
        let url = Url::parse(&server.url()).unwrap();
        // The URL has the very address of the proxy, which may be local itself.
        for exceptions in ["127.0.0.1", "elsewhere.example"] {
            let error = proxy(exceptions).send(&Request::get(&url)).err().unwrap();
            assert!(matches!(error, HttpError::LocalAddress { .. }), "{exceptions}: {error}");
        }
        assert_eq!(server.requests().len(), 0);
        // The proxy itself is connected to, whatever is excepted.
        let public = Url::parse("http://192.88.98.1/").unwrap();
        let result = proxy("127.0.0.1").send(&Request::get(&public));
        assert!(!matches!(result, Err(HttpError::LocalAddress { .. })));
        assert!(!server.requests().is_empty());
    }
}
