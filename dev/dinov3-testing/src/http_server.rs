//! A server on this machine that answers as a test says: in full, cut short, late, elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What came with it, of the length that it announced.
    pub body: Vec<u8>,
}

impl HttpRequest {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What it is told.
#[derive(Clone, Debug, Default)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// Headers; `Content-Length` is added where none is given.
    pub headers: Vec<(String, String)>,
    /// The body; a `HEAD` is told its length alone.
    pub body: Vec<u8>,
    /// Ends the connection after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// Waits before the body.
    pub delay: Duration,
}

impl HttpReply {
    /// A status with a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// A redirect.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::new(302, "").with("Location", location)
    }

    /// With a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_string(), value.into()));
        self
    }
}

type Handler = dyn Fn(&HttpRequest) -> HttpReply + Send + Sync;

/// A server on a port of its own; it ends with this value.
pub struct HttpServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
    stop: Arc<AtomicBool>,
}

impl HttpServer {
    /// Starts one.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start(handler: impl Fn(&HttpRequest) -> HttpReply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of this machine");
        let address = listener.local_addr().expect("the port has an address");
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                // A client that leaves is none of the server's business.
                let answer = move |stream: TcpStream| answer(stream, &seen, &*handler);
                std::thread::spawn(move || stream.and_then(answer));
            }
        });
        Self { address, requests, stop }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked until now.
    ///
    /// # Panics
    /// If the server's thread did.
    pub fn requests(&self) -> Vec<HttpRequest> {
        self.requests.lock().expect("the server did not panic").clone()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address);
    }
}

fn answer(mut stream: TcpStream, seen: &Mutex<Vec<HttpRequest>>, handler: &Handler) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?.take(1 << 26));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_string);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut request = HttpRequest { method, path, headers: Vec::new(), body: Vec::new() };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
    }
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.by_ref().take(length).read_to_end(&mut request.body)?;
    seen.lock().map_err(|_| std::io::Error::other("poisoned"))?.push(request.clone());
    let reply = handler(&request);
    let mut head = format!("HTTP/1.1 {} Told\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        std::thread::sleep(reply.delay);
        stream.write_all(&reply.body[..reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len())])?;
    }
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // What the client still sends is taken, so that closing does not destroy what was told.
    let _ = stream.read(&mut [0; 1024]);
    Ok(())
}

/// The answer of a server that knows ranges: a part of `file`, with an `ETag`.
pub fn part_of(file: &[u8], request: &HttpRequest) -> HttpReply {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let parsed = range.and_then(|(first, last)| Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?)));
    match parsed {
        None => HttpReply::new(200, file).with("ETag", "\"1\""),
        Some((first, _)) if first >= file.len() => HttpReply::new(416, ""),
        Some((first, last)) => {
            let end = (last + 1).min(file.len());
            let range = format!("bytes {first}-{}/{}", end - 1, file.len());
            HttpReply::new(206, &file[first..end]).with("Content-Range", range).with("ETag", "\"1\"")
        }
    }
}
