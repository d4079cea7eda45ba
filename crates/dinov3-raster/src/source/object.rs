//! Objects of S3, Google Cloud Storage and Azure, by the `object_store` crate over our own HTTP client.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dinov3_http::{Client, HttpError as OurHttpError};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig};
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
        let wrong = |error: object_store::Error| RasterError::Settings {
            reason: format!("{location}: {}", without_secrets(&error.to_string())),
        };
        let path = Path::parse(key).map_err(|error| RasterError::Location {
            location: location.clone(),
            reason: without_secrets(&error.to_string()),
        })?;
        let connector = Connector { client: self.client.clone() };
        let url = |scheme: &str| format!("{scheme}://{bucket}");
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(300), ..BackoffConfig::default() },
            max_retries: 5,
            retry_timeout: Duration::from_secs(120),
        };
        let object_store: Arc<dyn ObjectStore> = match store {
            Store::S3 => {
                let builder = AmazonS3Builder::from_env().with_url(url("s3"));
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
        };
        Ok(StoredObject { store: object_store, path, location, runtime: Arc::clone(&self.runtime) })
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
        answer.map_err(|error| self.tell(error))
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
        match answer.map_err(|error| self.tell(error))? {
            Some(bytes) => Ok(bytes.into()),
            None => Err(too_long(self.location.clone(), limit_bytes)),
        }
    }

    fn tell(&self, error: object_store::Error) -> RasterError {
        let location = self.location.clone();
        let text = without_secrets(&error.to_string().replace(['\n', '\r'], " "));
        let reason = answered(&text).unwrap_or_else(|| text.clone());
        // A redirect, or a refusal to check a signature that was made for another region.
        if text.contains("incorrectly configured region") || text.contains("<Code>AuthorizationHeaderMalformed</Code>")
        {
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
        let Some(body) = body.as_bytes().cloned().or_else(|| body.is_empty().then(bytes::Bytes::new)) else {
            let reason = std::io::Error::other("a body in several pieces");
            return Err(HttpError::new(HttpErrorKind::Unknown, reason));
        };
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
