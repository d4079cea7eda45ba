//! Objects of S3, Google Cloud Storage and Azure, by the `object_store` crate over our own HTTP client.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dinov3_http::{Client, HttpError as OurHttpError};
use http_body_util::BodyExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, RetryConfig,
};
use tokio::runtime::Runtime;

use super::remote::{Part, RangeServer, Version};
use super::too_long;
use crate::RasterError;
use crate::location::{Store, without_secrets};

/// An answer longer than this is none of ours.
const LONGEST_ANSWER_BYTES: u64 = 256 << 20;

/// The stores of an opener: one for each bucket, with the credentials of the environment.
pub(crate) struct Stores {
    runtime: Arc<Runtime>,
    client: Client,
    settings: BTreeMap<String, String>,
}

impl Stores {
    /// `settings` are those of `object_store` (`aws_region`, `google_service_account`, ...) and win over the environment.
    pub fn new(client: Client, settings: BTreeMap<String, String>) -> Result<Self, RasterError> {
        // It keeps the time between attempts; requests run on the threads that ask.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("dinov3-store")
            .enable_time()
            .build()
            .map_err(|error| RasterError::Settings { reason: format!("no thread for object stores: {error}") })?;
        Ok(Self { runtime: Arc::new(runtime), client, settings })
    }

    /// One object.
    pub fn object(&self, store: Store, bucket: &str, key: &str, location: String) -> Result<StoredObject, RasterError> {
        let path = Path::parse(key).map_err(|error| RasterError::Location {
            location: location.clone(),
            reason: without_secrets(&error.to_string()),
        })?;
        let store = self.bucket(store, bucket, &location)?;
        Ok(StoredObject { store, path, location, runtime: Arc::clone(&self.runtime) })
    }

    /// A bucket or container; `location` is for messages.
    fn bucket(&self, store: Store, bucket: &str, location: &str) -> Result<Arc<dyn ObjectStore>, RasterError> {
        let wrong = |error: object_store::Error| RasterError::Settings {
            reason: format!("{location}: {}", without_secrets(&error.to_string())),
        };
        let connector = Connector { client: self.client.clone() };
        let url = |scheme: &str| format!("{scheme}://{bucket}");
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(300), ..BackoffConfig::default() },
            max_retries: 5,
            retry_timeout: Duration::from_secs(120),
        };
        Ok(match store {
            Store::S3 => {
                // Objects are removed one by one, and not every store has S3's way for many.
                let builder = AmazonS3Builder::from_env().with_url(url("s3")).with_disable_bulk_delete(true);
                let set = |builder: AmazonS3Builder, (name, value): (&String, &String)| match name.parse() {
                    Ok(name) => builder.with_config(name, value),
                    Err(_) => builder,
                };
                let builder = gdal_settings().iter().chain(&self.settings).fold(builder, set);
                Arc::new(builder.with_http_connector(connector).with_retry(retry).build().map_err(wrong)?)
            }
            Store::Google => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url("gs"));
                let set = |builder: GoogleCloudStorageBuilder, (name, value): (&String, &String)| match name.parse() {
                    Ok(name) => builder.with_config(name, value),
                    Err(_) => builder,
                };
                let builder = self.settings.iter().fold(builder, set);
                Arc::new(builder.with_http_connector(connector).with_retry(retry).build().map_err(wrong)?)
            }
            Store::Azure => {
                let scheme = if bucket.contains('@') { "abfss" } else { "az" };
                let builder = MicrosoftAzureBuilder::from_env().with_url(url(scheme));
                let set = |builder: MicrosoftAzureBuilder, (name, value): (&String, &String)| match name.parse() {
                    Ok(name) => builder.with_config(name, value),
                    Err(_) => builder,
                };
                let builder = self.settings.iter().fold(builder, set);
                Arc::new(builder.with_http_connector(connector).with_retry(retry).build().map_err(wrong)?)
            }
        })
    }
}

/// Larger files are sent in parts of this size.
const PART_BYTES: usize = 16 << 20;

/// Where results go: the objects of a bucket whose keys begin alike. An object is there whole or not at all.
pub struct StoreFolder {
    store: Arc<dyn ObjectStore>,
    /// Without a slash at its end.
    prefix: String,
    location: String,
    runtime: Arc<Runtime>,
}

impl Stores {
    /// The objects whose keys begin with `prefix/`; `location` is for messages.
    pub fn folder(
        &self,
        store: Store,
        bucket: &str,
        prefix: &str,
        location: String,
    ) -> Result<StoreFolder, RasterError> {
        let store = self.bucket(store, bucket, &location)?;
        Ok(StoreFolder { store, prefix: prefix.to_owned(), location, runtime: Arc::clone(&self.runtime) })
    }
}

impl StoreFolder {
    /// For messages and links: without secrets, and without a slash at its end.
    pub fn shown(&self) -> &str {
        &self.location
    }

    /// Writes an object.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn put(&self, name: &str, content: Vec<u8>) -> Result<(), RasterError> {
        let key = self.key(name)?;
        self.runtime
            .block_on(self.store.put(&key, content.into()))
            .map(drop)
            .map_err(|error| self.not_written(name, error))
    }

    /// Writes what `content` gives, in parts if it is large. Nothing is there until all of it is.
    ///
    /// # Errors
    /// If it cannot be read, or if the store does not take it.
    pub fn put_from(&self, name: &str, mut content: impl Read) -> Result<(), RasterError> {
        let unread =
            |error: std::io::Error| RasterError::Io { location: self.shown_object(name), reason: error.to_string() };
        let mut part = || -> Result<Vec<u8>, RasterError> {
            let mut bytes = Vec::new();
            content.by_ref().take(PART_BYTES as u64).read_to_end(&mut bytes).map_err(unread)?;
            Ok(bytes)
        };
        let first = part()?;
        if first.len() < PART_BYTES {
            return self.put(name, first);
        }
        let key = self.key(name)?;
        let told = |error| self.not_written(name, error);
        let mut upload = self.runtime.block_on(self.store.put_multipart(&key)).map_err(told)?;
        let mut send = || {
            let mut bytes = first.clone();
            while !bytes.is_empty() {
                self.runtime.block_on(upload.put_part(bytes.into())).map_err(told)?;
                bytes = part()?;
            }
            self.runtime.block_on(upload.complete()).map_err(told)
        };
        match send() {
            Ok(_) => Ok(()),
            Err(error) => {
                // Parts of what is not complete cost money; that this fails, too, helps nobody.
                let _ = self.runtime.block_on(upload.abort());
                Err(error)
            }
        }
    }

    /// The length of an object in bytes; nothing if there is none.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub fn size_bytes(&self, name: &str) -> Result<Option<u64>, RasterError> {
        let key = self.key(name)?;
        match self.runtime.block_on(self.store.head(&key)) {
            Ok(found) => Ok(Some(found.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.tell(name, error)),
        }
    }

    /// An object of at most `limit_bytes`; nothing if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is longer.
    pub fn get(&self, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, RasterError> {
        let key = self.key(name)?;
        let answer = self.runtime.block_on(async {
            let found = self.store.get(&key).await?;
            match found.meta.size > limit_bytes {
                true => Ok(None),
                false => found.bytes().await.map(|bytes| Some(Vec::from(bytes))),
            }
        });
        match answer {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(RasterError::Io {
                location: self.shown_object(name),
                reason: format!("it has more than {limit_bytes} bytes"),
            }),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.tell(name, error)),
        }
    }

    /// Hands out an object from its beginning, in pieces.
    ///
    /// # Errors
    /// If it cannot be read, or what `take` fails with.
    pub fn read<E: From<RasterError>>(
        &self,
        name: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let key = self.key(name)?;
        let told = |error| self.tell(name, error);
        let length = self.runtime.block_on(self.store.head(&key)).map_err(told)?.size;
        let mut start = 0;
        while start < length {
            let end = length.min(start + PART_BYTES as u64);
            let part = self.runtime.block_on(self.store.get_range(&key, start..end)).map_err(told)?;
            take(&part)?;
            start = end;
        }
        Ok(())
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// If the store does not.
    pub fn remove(&self, name: &str) -> Result<(), RasterError> {
        let key = self.key(name)?;
        match self.runtime.block_on(self.store.delete(&key)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.not_written(name, error)),
        }
    }

    /// The names of all objects in it and in those folders of it that `may_hold` some, in no order.
    ///
    /// # Errors
    /// If the store does not list them.
    pub fn names(&self, may_hold: impl Fn(&str) -> bool) -> Result<Vec<String>, RasterError> {
        let all = Path::parse(&self.prefix)
            .map_err(|error| RasterError::Location { location: self.location.clone(), reason: error.to_string() })?;
        self.names_under(all, "", may_hold)
    }

    /// The names of all objects below a folder, which begin with its own.
    ///
    /// # Errors
    /// If the store does not list them.
    pub fn names_below(&self, folder: &str) -> Result<Vec<String>, RasterError> {
        self.names_under(self.key(folder)?, folder, |_| true)
    }

    fn names_under(
        &self,
        key: Path,
        folder: &str,
        may_hold: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, RasterError> {
        let own = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        let (mut folders, mut names) = (vec![key], Vec::new());
        while let Some(folder_key) = folders.pop() {
            let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&folder_key)));
            let listed = listed.map_err(|error| self.tell(folder, error))?;
            let may_hold = |folder: &Path| folder.as_ref().strip_prefix(&own).is_some_and(&may_hold);
            folders.extend(listed.common_prefixes.into_iter().filter(may_hold));
            let keys = listed.objects.iter().map(|object| object.location.as_ref());
            names.extend(keys.filter_map(|key| key.strip_prefix(&own)).map(str::to_owned));
        }
        Ok(names)
    }

    fn key(&self, name: &str) -> Result<Path, RasterError> {
        let key = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(&key)
            .map_err(|error| RasterError::Location { location: self.shown_object(name), reason: error.to_string() })
    }

    fn shown_object(&self, name: &str) -> String {
        format!("{}/{name}", self.location)
    }

    fn tell(&self, name: &str, error: object_store::Error) -> RasterError {
        told(self.shown_object(name), error)
    }

    fn not_written(&self, name: &str, error: object_store::Error) -> RasterError {
        match self.tell(name, error) {
            // A bucket that does not exist, most likely.
            RasterError::NotFound { location } => {
                RasterError::Write { location, reason: "there is no such bucket or container".to_owned() }
            }
            RasterError::Io { location, reason } => RasterError::Write { location, reason },
            other => other,
        }
    }
}

/// What GDAL and rasterio call the settings that `object_store` calls otherwise.
fn gdal_settings() -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let yes = |name: &str, values: &[&str]| {
        std::env::var(name).is_ok_and(|value| values.contains(&value.to_ascii_lowercase().as_str()))
    };
    if yes("AWS_NO_SIGN_REQUEST", &["yes", "true", "on", "1"]) {
        settings.insert("aws_skip_signature".to_string(), "true".to_string());
    }
    if yes("AWS_REQUEST_PAYER", &["requester"]) {
        settings.insert("aws_request_payer".to_string(), "true".to_string());
    }
    if let Ok(endpoint) = std::env::var("AWS_S3_ENDPOINT")
        && !endpoint.contains("://")
    {
        settings.insert("aws_endpoint".to_string(), format!("https://{endpoint}"));
    }
    settings
}

/// An object of a store.
pub(crate) struct StoredObject {
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: String,
    /// Kept for as long as an object of it is open.
    runtime: Arc<Runtime>,
}

impl RangeServer for StoredObject {
    fn get(&self, range: Range<u64>, known: Option<&Version>) -> Result<Part, RasterError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: known.and_then(|version| version.tag.clone()),
            ..GetOptions::default()
        };
        let answer = self.runtime.block_on(async {
            let result = self.store.get_opts(&self.path, options).await?;
            let version = Version {
                length_bytes: result.meta.size,
                tag: result.meta.e_tag.clone(),
                modified: Some(result.meta.last_modified.to_rfc3339()),
            };
            let start = result.range.start;
            result.bytes().await.map(|bytes| Part { start, bytes: bytes.into(), version })
        });
        answer.map_err(|error| told(self.location.clone(), error))
    }
}

impl StoredObject {
    /// All of it.
    pub fn read_whole(&self, limit_bytes: u64) -> Result<Vec<u8>, RasterError> {
        let answer = self.runtime.block_on(async {
            let result = self.store.get_opts(&self.path, GetOptions::default()).await?;
            if result.meta.size > limit_bytes {
                return Ok(None);
            }
            result.bytes().await.map(Some)
        });
        match answer.map_err(|error| told(self.location.clone(), error))? {
            Some(bytes) => Ok(bytes.into()),
            None => Err(too_long(self.location.clone(), limit_bytes)),
        }
    }
}

/// An error of the crate in our words.
fn told(location: String, error: object_store::Error) -> RasterError {
    let text = without_secrets(&error.to_string().replace(['\n', '\r'], " "));
    let reason = answered(&text).unwrap_or_else(|| text.clone());
    // A redirect, or a refusal to check a signature that was made for another region.
    if text.contains("incorrectly configured region") || text.contains("<Code>AuthorizationHeaderMalformed</Code>") {
        let reason = match between(&text, "<Region>", "</Region>") {
            Some(region) => format!("its bucket is in another region: set AWS_REGION={region}"),
            None => "its bucket is in another region: set AWS_REGION".to_string(),
        };
        return RasterError::Io { location, reason };
    }
    if text.contains("169.254.169.254") || text.contains("/latest/api/token") {
        let reason = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                      AWS_NO_SIGN_REQUEST=YES for a bucket that is open to everyone";
        return RasterError::Denied { location, reason: reason.to_string() };
    }
    match error {
        object_store::Error::NotFound { .. } if text.contains("<Code>NoSuchBucket</Code>") => {
            RasterError::NotFound { location: format!("the bucket of {location}") }
        }
        object_store::Error::NotFound { .. } => RasterError::NotFound { location },
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            RasterError::Denied { location, reason }
        }
        object_store::Error::Precondition { .. } => {
            RasterError::Changed { location, reason: "its ETag is another".to_string() }
        }
        _ => RasterError::Io { location, reason },
    }
}

/// What a store says in its XML: S3, Google and Azure alike. The rest of it quotes the request.
fn answered(text: &str) -> Option<String> {
    let Some(code) = between(text, "<Code>", "</Code>") else {
        let (_, status) = text.split_once("Server returned non-2xx status code: ")?;
        return Some(format!("the store answers {}", status.split(':').next().unwrap_or_default().trim()));
    };
    let message = between(text, "<Message>", "</Message>").unwrap_or_default();
    let hint = match code {
        "AccessDenied" => " (AWS_REQUEST_PAYER=requester reads where readers pay)",
        _ => "",
    };
    Some(format!("the store answers {code}: {message}{hint}"))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    Some(rest.split_once(end)?.0)
}

/// Our HTTP client as `object_store` wants one. A request blocks the thread that polls it: each has a thread of its own.
#[derive(Clone, Debug)]
struct Connector {
    client: Client,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        // Not by `is_empty`, which in 0.14.2 says so of what is to be written, and the client then waits for the rest.
        let body = body.collect().await?.to_bytes();
        let told = |error: OurHttpError| {
            let kind = match error {
                OurHttpError::Unreachable { .. } => HttpErrorKind::Connect,
                OurHttpError::TimedOut { .. } => HttpErrorKind::Timeout,
                OurHttpError::BrokenOff { .. } => HttpErrorKind::Interrupted,
                _ => HttpErrorKind::Unknown,
            };
            HttpError::new(kind, error)
        };
        let response = self.client.exchange(head, &body).map_err(told)?;
        let mut answer = HttpResponse::new(HttpResponseBody::from(Vec::new()));
        *answer.status_mut() =
            response.status.try_into().map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        *answer.headers_mut() = response.headers().clone();
        *answer.body_mut() = response.into_bytes(LONGEST_ANSWER_BYTES).map_err(told)?.into();
        Ok(answer)
    }
}
