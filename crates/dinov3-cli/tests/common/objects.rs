//! An object store that a test looks into.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dinov3_testing::http_server::{HttpReply, HttpServer, part_of};
use snapbox::cmd::Command;

/// Speaks as much of S3 as is needed to write objects, read and remove them.
pub struct Objects {
    stored: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    server: HttpServer,
}

/// The objects of a bucket that a query asks for, and the folders beside them.
fn listed(objects: &BTreeMap<String, Vec<u8>>, bucket: &str, query: &str) -> HttpReply {
    let prefix = query.split(['?', '&']).find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = format!("{}/{}", bucket.trim_end_matches('/'), prefix.replace("%2F", "/"));
    let (mut found, mut folders) = (String::new(), std::collections::BTreeSet::new());
    let key = |path: &str| path.trim_start_matches(bucket).trim_start_matches('/').to_owned();
    for (path, content) in objects {
        let Some(rest) = path.strip_prefix(&prefix) else { continue };
        match rest.split_once('/') {
            Some((folder, _)) => _ = folders.insert(key(&format!("{prefix}{folder}/"))),
            None => {
                let (key, size) = (key(path), content.len());
                let time = "2024-06-01T10:20:30.000Z";
                found += &format!(
                    "<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>\"1\"</ETag><Size>{size}</Size></Contents>"
                );
            }
        }
    }
    for folder in folders {
        found += &format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
    }
    HttpReply::new(200, format!("<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"))
}

impl Objects {
    pub fn start() -> Self {
        let stored: Arc<Mutex<BTreeMap<String, Vec<u8>>>> = Arc::default();
        let objects = Arc::clone(&stored);
        let server = HttpServer::start(move |request| {
            let mut objects = objects.lock().unwrap();
            let path = request.path.split('?').next().unwrap_or_default().to_owned();
            match (request.method.as_str(), objects.get(&path)) {
                ("PUT", _) => {
                    objects.insert(path, request.body.clone());
                    HttpReply::new(200, "").with("ETag", "\"1\"")
                }
                ("DELETE", _) => {
                    objects.remove(&path);
                    HttpReply::new(204, "")
                }
                ("GET", None) if request.path.contains("list-type=2") => listed(&objects, &path, &request.path),
                (_, Some(object)) => part_of(object, request).with("Last-Modified", "Sat, 01 Jun 2024 10:20:30 GMT"),
                _ => HttpReply::new(404, "<Error><Code>NoSuchKey</Code></Error>"),
            }
        });
        Self { stored, server }
    }

    /// A command that finds the store.
    pub fn known_to(&self, command: Command) -> Command {
        let variables = [
            ("AWS_ENDPOINT", self.server.url()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ];
        variables.into_iter().fold(command, |command, (name, value)| command.env(name, value))
    }

    /// `/BUCKET/KEY` of all, and what is in them.
    pub fn all(&self) -> BTreeMap<String, Vec<u8>> {
        self.stored.lock().unwrap().clone()
    }

    pub fn put(&self, path: &str, content: Vec<u8>) {
        self.stored.lock().unwrap().insert(path.to_owned(), content);
    }

    pub fn remove(&self, path: &str) {
        self.stored.lock().unwrap().remove(path);
    }

    /// What was written, in its order.
    pub fn puts(&self) -> Vec<String> {
        let puts = self.server.requests().into_iter().filter(|request| request.method == "PUT");
        puts.map(|request| request.path.split('?').next().unwrap_or_default().to_owned()).collect()
    }
}
