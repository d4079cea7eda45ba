//! A Hugging Face Hub on this machine: two servers, the hub and the storage that it redirects large files to, with
//! faults on request.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::http_server::{HttpReply, HttpRequest, HttpServer};

/// The commit that `main` means.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files by `org/name` and their name.
pub type Repositories = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// Changes a sound reply.
type Fault = Box<dyn FnMut(&HttpRequest, HttpReply) -> HttpReply + Send>;

/// The hub.
pub struct FakeHub {
    /// Answers as `huggingface.co` does.
    pub hub: HttpServer,
    /// Gives the bytes of large files, under their SHA-256.
    pub storage: HttpServer,
    hub_fault: Arc<Mutex<Option<Fault>>>,
    storage_fault: Arc<Mutex<Option<Fault>>>,
}

impl FakeHub {
    /// A hub with these repositories.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start(repositories: Repositories) -> Self {
        let (hub_fault, storage_fault) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let blobs: BTreeMap<String, Vec<u8>> =
            repositories.values().flat_map(BTreeMap::values).map(|bytes| (sha256(bytes), bytes.clone())).collect();
        let fault = Arc::clone(&storage_fault);
        let storage = HttpServer::start(move |request| {
            let name = request.path.trim_start_matches('/').split('?').next().unwrap_or_default();
            let reply = match blobs.get(name) {
                Some(bytes) => part(request, bytes),
                None => HttpReply::new(403, "no such object"),
            };
            faulty(&fault, request, reply)
        });
        let (fault, place) = (Arc::clone(&hub_fault), storage.url());
        let hub = HttpServer::start(move |request| {
            let reply = resolve(request, &repositories, &place);
            faulty(&fault, request, reply)
        });
        Self { hub, storage, hub_fault, storage_fault }
    }

    /// A hub with one repository.
    pub fn with(repository: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let files = files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        Self::start(BTreeMap::from([(repository.to_string(), files)]))
    }

    /// From now on the hub's replies pass through here.
    ///
    /// # Panics
    /// If the server's thread did.
    pub fn break_hub(&self, fault: impl FnMut(&HttpRequest, HttpReply) -> HttpReply + Send + 'static) {
        *self.hub_fault.lock().expect("the server did not panic") = Some(Box::new(fault));
    }

    /// From now on the storage's replies pass through here.
    ///
    /// # Panics
    /// If the server's thread did.
    pub fn break_storage(&self, fault: impl FnMut(&HttpRequest, HttpReply) -> HttpReply + Send + 'static) {
        *self.storage_fault.lock().expect("the server did not panic") = Some(Box::new(fault));
    }

    /// No faults any more.
    ///
    /// # Panics
    /// If the server's thread did.
    pub fn mend(&self) {
        *self.hub_fault.lock().expect("the server did not panic") = None;
        *self.storage_fault.lock().expect("the server did not panic") = None;
    }

    /// GET requests to the storage until now.
    pub fn downloads(&self) -> usize {
        self.storage.requests().iter().filter(|request| request.method == "GET").count()
    }
}

fn faulty(fault: &Mutex<Option<Fault>>, request: &HttpRequest, reply: HttpReply) -> HttpReply {
    match fault.lock().expect("faults do not panic").as_mut() {
        Some(fault) => fault(request, reply),
        None => reply,
    }
}

fn resolve(request: &HttpRequest, repositories: &Repositories, storage: &str) -> HttpReply {
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    let code = |code: &str| HttpReply::new(404, "").with("X-Error-Code", code);
    match parts.as_slice() {
        ["api", "models", owner, name, "refs"] if repositories.contains_key(&format!("{owner}/{name}")) => {
            HttpReply::new(200, r#"{"branches": [{"name": "main"}], "tags": [{"name": "v1.0"}]}"#)
        }
        ["api", "models", owner, name, "revision", _] => {
            let Some(files) = repositories.get(&format!("{owner}/{name}")) else { return code("RepoNotFound") };
            let files: Vec<_> = files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            HttpReply::new(200, serde_json::json!({"siblings": files}).to_string())
        }
        [owner, name, "resolve", revision, file] => {
            let Some(files) = repositories.get(&format!("{owner}/{name}")) else {
                // What the hub says to strangers, so as not to tell which private repositories exist.
                return HttpReply::new(401, "").with("X-Error-Code", "RepoNotFound");
            };
            if !["main", "v1.0", COMMIT].contains(revision) {
                return code("RevisionNotFound");
            }
            let Some(bytes) = files.get(*file) else { return code("EntryNotFound").with("X-Repo-Commit", COMMIT) };
            if file.ends_with(".safetensors") {
                let sha256 = sha256(bytes);
                return HttpReply::redirect(format!("{storage}/{sha256}?signature=secret"))
                    .with("X-Repo-Commit", COMMIT)
                    .with("X-Linked-Etag", format!("\"{sha256}\""))
                    .with("X-Linked-Size", bytes.len().to_string());
            }
            part(request, bytes).with("X-Repo-Commit", COMMIT).with("ETag", format!("\"{}\"", git_sha1(bytes)))
        }
        _ => HttpReply::new(404, ""),
    }
}

/// The whole, or what `Range: bytes=N-` asks for.
fn part(request: &HttpRequest, bytes: &[u8]) -> HttpReply {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match range {
        None => HttpReply::new(200, bytes),
        Some(start) if start < bytes.len() => HttpReply::new(206, &bytes[start..])
            .with("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len())),
        Some(_) => HttpReply::new(416, ""),
    }
}

/// Lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// git's name of a blob.
pub fn git_sha1(bytes: &[u8]) -> String {
    hexadecimal(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
