//! Where rasters are opened: what they share.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dinov3_http::{Addresses, Client, ClientOptions, Retries, Url};

use crate::RasterError;
use crate::cache::BlockCache;
use crate::geotiff::GeoTiff;
use crate::location::Location;
use crate::raster::Raster;
use crate::source::{ByteSource, FetchPool, LocalFile, MemoryFile, RemoteFile, WebFile, too_long};
#[cfg(feature = "object-stores")]
use crate::source::{StoreFolder, Stores};
use crate::stack::Stack;

/// Limits and settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Memory for decoded blocks, over all rasters of an opener. See
    /// [`crate::RasterProfile::row_of_windows_bytes`] for what avoids decoding twice.
    pub block_cache_bytes: u64,
    /// The largest decoded block. A file of larger ones is refused when it is opened.
    pub largest_block_bytes: u64,
    /// The largest window, with its mask.
    pub largest_window_bytes: u64,
    /// Requests that are under way at once.
    pub concurrent_requests: usize,
    /// Attempts after a failure that may pass: a broken connection, 429, 5xx.
    pub retries: Retries,
    /// Longest silence of a server.
    pub silence_timeout: Duration,
    /// Which addresses `http(s)` URLs may lead to.
    pub addresses: Addresses,
    /// Settings of object stores by the names of the `object_store` crate (`aws_region`, `aws_skip_signature`,
    /// `aws_request_payer`, `azure_storage_account_name`, ...); they win over the environment's `AWS_*`, `GOOGLE_*` and
    /// `AZURE_*`. GDAL's `AWS_NO_SIGN_REQUEST` and `AWS_REQUEST_PAYER=requester` are understood too.
    pub store_settings: BTreeMap<String, String>,
}

impl Default for Options {
    /// 64 MiB of blocks, none above 256 MiB; windows of up to 1 GiB; 16 requests at once, each tried five times, 30 seconds
    /// of silence; redirects lead to public addresses only.
    fn default() -> Self {
        Self {
            block_cache_bytes: 64 << 20,
            largest_block_bytes: 256 << 20,
            largest_window_bytes: 1 << 30,
            concurrent_requests: 16,
            retries: Retries::default(),
            silence_timeout: Duration::from_secs(30),
            addresses: Addresses::PublicAfterRedirect,
            store_settings: BTreeMap::new(),
        }
    }
}

/// Opens rasters. Those of one opener share the memory for decoded blocks, connections and threads. Clones are the same
/// opener.
#[derive(Clone)]
pub struct Opener {
    shared: Arc<Shared>,
    addresses: Addresses,
}

struct Shared {
    options: Options,
    cache: Arc<BlockCache>,
    pool: Arc<FetchPool>,
    client: OnceLock<Client>,
    #[cfg(feature = "object-stores")]
    stores: OnceLock<Stores>,
}

impl Opener {
    /// An opener with these limits; costs nothing until something is opened.
    pub fn new(options: Options) -> Self {
        let shared = Shared {
            cache: Arc::new(BlockCache::new(options.block_cache_bytes)),
            pool: Arc::new(FetchPool::new(options.concurrent_requests)),
            options,
            client: OnceLock::new(),
            #[cfg(feature = "object-stores")]
            stores: OnceLock::new(),
        };
        let addresses = shared.options.addresses;
        Self { shared: Arc::new(shared), addresses }
    }

    /// The same opener for URLs that a stranger chose: all of them lead to public addresses, unless [`Addresses::Any`] was
    /// allowed.
    #[must_use]
    pub fn for_strangers(&self) -> Self {
        let addresses = match self.addresses {
            Addresses::Any => Addresses::Any,
            _ => Addresses::Public,
        };
        Self { shared: Arc::clone(&self.shared), addresses }
    }

    /// Opens what a user writes: a path, or a URL with `http`, `https`, `s3`, `gs` or `az`.
    ///
    /// # Errors
    /// If it names nothing that can be read, or a file that is not read here; the error then has the command that makes
    /// one that is.
    pub fn open(&self, location: &str) -> Result<Box<dyn Raster>, RasterError> {
        self.open_location(&Location::parse(location)?)
    }

    /// The same for a location that was parsed.
    ///
    /// # Errors
    /// Those of [`Opener::open`].
    pub fn open_location(&self, location: &Location) -> Result<Box<dyn Raster>, RasterError> {
        let remote = |server| -> Result<Arc<dyn ByteSource>, RasterError> {
            Ok(Arc::new(RemoteFile::open(server, location.shown(), Arc::clone(&self.shared.pool))?))
        };
        let source: Arc<dyn ByteSource> = match location {
            Location::File(path) => Arc::new(LocalFile::open(path)?),
            Location::Web(url) => remote(Box::new(self.web_file(url)?))?,
            #[cfg(feature = "object-stores")]
            Location::Object { store, bucket, key } => {
                remote(Box::new(self.stores()?.object(*store, bucket, key, location.shown())?))?
            }
            #[cfg(not(feature = "object-stores"))]
            Location::Object { .. } => {
                let reason = "this program was built without object stores".to_string();
                return Err(RasterError::Location { location: location.shown(), reason });
            }
        };
        self.open_source(location, source)
    }

    /// The objects of a store whose keys begin alike, to write to: `s3://BUCKET/PREFIX`, `gs://...` or `az://...`.
    ///
    /// # Errors
    /// If it names nothing of the kind, or if the store's settings are wrong.
    #[cfg(feature = "object-stores")]
    pub fn store_folder(&self, text: &str) -> Result<StoreFolder, RasterError> {
        // An object in it names its bucket and prefix.
        let text = match text.trim_end_matches('/') {
            folder if folder.contains("://") => folder,
            _ => return Err(Location::parse(text).err().unwrap_or_else(|| not_in_a_store(text.to_owned()))),
        };
        match Location::parse(&format!("{text}/object"))? {
            Location::Object { store, bucket, key } => {
                let prefix = key.strip_suffix("object").unwrap_or_default().trim_end_matches('/');
                let folder = Location::Object { store, bucket: bucket.clone(), key: prefix.to_owned() };
                let shown = folder.shown().trim_end_matches('/').to_owned();
                self.stores()?.folder(store, &bucket, prefix, shown)
            }
            other => Err(not_in_a_store(other.shown())),
        }
    }

    /// Opens a file that is in memory; `name` is for messages.
    ///
    /// # Errors
    /// Those of [`Opener::open`].
    pub fn open_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<Box<dyn Raster>, RasterError> {
        let location = Location::File(name.into());
        self.open_source(&location, Arc::new(MemoryFile { location: name.to_string(), bytes }))
    }

    /// Several rasters of the same ground as the bands of one, or the only one as it is.
    ///
    /// # Errors
    /// Those of [`Stack::new`].
    pub fn stack(&self, mut rasters: Vec<Box<dyn Raster>>) -> Result<Box<dyn Raster>, RasterError> {
        match rasters.len() {
            1 => Ok(rasters.remove(0)),
            _ => Ok(Box::new(Stack::new(rasters, self.shared.options.largest_window_bytes)?)),
        }
    }

    /// All bytes of a file that is no raster: a catalogue's page, metadata beside a scene.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than the limit.
    pub fn read_whole(&self, location: &Location, limit_bytes: u64) -> Result<Vec<u8>, RasterError> {
        match location {
            Location::File(path) => {
                let file = LocalFile::open(path)?;
                match file.length_bytes() {
                    length if length > limit_bytes => Err(too_long(location.shown(), limit_bytes)),
                    length => file.read(0..length),
                }
            }
            Location::Web(url) => self.web_file(url)?.read_whole(limit_bytes),
            #[cfg(feature = "object-stores")]
            Location::Object { store, bucket, key } => {
                self.stores()?.object(*store, bucket, key, location.shown())?.read_whole(limit_bytes)
            }
            #[cfg(not(feature = "object-stores"))]
            Location::Object { .. } => {
                let reason = "this program was built without object stores".to_string();
                Err(RasterError::Location { location: location.shown(), reason })
            }
        }
    }

    fn open_source(&self, location: &Location, source: Arc<dyn ByteSource>) -> Result<Box<dyn Raster>, RasterError> {
        let cache = Arc::clone(&self.shared.cache);
        Ok(Box::new(GeoTiff::open(location.clone(), source, cache, &self.shared.options)?))
    }

    fn web_file(&self, url: &Url) -> Result<WebFile, RasterError> {
        let (retries, addresses) = (self.shared.options.retries, self.addresses);
        Ok(WebFile { client: self.client()?, url: url.clone(), retries, addresses })
    }

    fn client(&self) -> Result<Client, RasterError> {
        if let Some(client) = self.shared.client.get() {
            return Ok(client.clone());
        }
        let mut options = ClientOptions::default();
        options.silence_timeout = self.shared.options.silence_timeout;
        options.idle_connections = self.shared.options.concurrent_requests;
        let client = Client::new(options).map_err(|error| RasterError::Settings { reason: error.to_string() })?;
        Ok(self.shared.client.get_or_init(|| client).clone())
    }

    #[cfg(feature = "object-stores")]
    fn stores(&self) -> Result<&Stores, RasterError> {
        if let Some(stores) = self.shared.stores.get() {
            return Ok(stores);
        }
        let stores = Stores::new(self.client()?, self.shared.options.store_settings.clone())?;
        Ok(self.shared.stores.get_or_init(|| stores))
    }
}
#[cfg(feature = "object-stores")]
fn not_in_a_store(location: String) -> RasterError {
    let reason = "results go into folders of this machine and of object stores".to_string();
    RasterError::Location { location, reason }
}
