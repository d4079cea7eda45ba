//! Files on a web server of this machine: how many requests, and what happens when it misbehaves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dinov3_geo::PixelWindow;
use dinov3_http::{Addresses, Retries};
use dinov3_raster::{Opener, Options, Raster, RasterError, RasterWindow};
use dinov3_testing::geotiff::{TiffFile, TiffImage, TiffValue, utm_tags};
use dinov3_testing::http_server::{HttpReply, HttpRequest, HttpServer, part_of};

fn options() -> Options {
    let mut options = Options::default();
    options.addresses = Addresses::Any;
    options.retries = Retries { most: 3, first_wait: Duration::from_millis(5) };
    options.silence_timeout = Duration::from_millis(500);
    options
}

/// 1000 x 700 pixels in 32 x 22 noisy tiles: each a kilobyte or so.
fn scene() -> TiffFile {
    let image = TiffImage {
        width_px: 1000,
        height_px: 700,
        block_px: (32, 32),
        sample: |band, x, y| {
            u64::from((x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503) ^ (band * 977)) >> 7 & 255)
        },
        tags: utm_tags(),
        ..TiffImage::default()
    };
    TiffFile::of(image)
}

/// What a local file gives for the same window.
fn truth(bytes: &[u8], window: PixelWindow, bands: &[usize]) -> RasterWindow {
    Opener::new(Options::default()).open_bytes("scene.tif", bytes.to_vec()).unwrap().read(window, bands).unwrap()
}

fn serve(bytes: Vec<u8>) -> HttpServer {
    HttpServer::start(move |request| part_of(&bytes, request))
}

fn open(server: &HttpServer) -> Box<dyn Raster> {
    Opener::new(options()).open(&format!("{}/scene.tif?token=secret", server.url())).unwrap()
}

#[test]
fn a_window_costs_its_tiles_and_one_request_for_the_index() {
    for has_index_at_end in [false, true] {
        let bytes = TiffFile { has_index_at_end, ..scene() }.to_bytes();
        let server = serve(bytes.clone());
        let raster = open(&server);
        let opened = server.requests().len();
        assert_eq!(opened, if has_index_at_end { 2 } else { 1 });
        let window = PixelWindow::new(400, 300, 200, 200);
        assert_eq!(raster.read(window, &[0, 1, 2]).unwrap(), truth(&bytes, window, &[0, 1, 2]));
        let tiles = 7 * 7;
        let requests = server.requests();
        assert!(requests.len() as f64 <= 1.1 * tiles as f64 + 2.0, "{} requests", requests.len());
        // Tiles of a row lie side by side.
        assert_eq!(requests.len() - opened, 7);
        assert!(requests.iter().all(|request| request.method == "GET"));
        // What is decoded is not fetched again.
        raster.read(PixelWindow::new(450, 350, 100, 100), &[1]).unwrap();
        assert_eq!(server.requests().len(), requests.len());
    }
}

#[test]
fn all_windows_of_a_scene_fetch_every_tile_once() {
    let bytes = scene().to_bytes();
    let server = serve(bytes.clone());
    let raster = open(&server);
    let windows: Vec<PixelWindow> =
        (0..3).flat_map(|row| (0..4).map(move |column| PixelWindow::new(column * 250, row * 250, 250, 250))).collect();
    for (index, window) in windows.iter().enumerate() {
        raster.prefetch(&windows[index..(index + 4).min(windows.len())], &[0, 1, 2]);
        assert_eq!(raster.read(*window, &[0, 1, 2]).unwrap(), truth(&bytes, *window, &[0, 1, 2]));
    }
    let requests = server.requests();
    assert!(requests.len() <= 32 * 22 / 2, "{} requests", requests.len());
    let asked: usize = requests.iter().map(|request| range_of(request).1 - range_of(request).0).sum();
    assert!(asked <= bytes.len() + bytes.len() / 10 + (64 << 10), "{asked} of {} bytes", bytes.len());
}

#[test]
fn windows_that_are_announced_together_share_requests() {
    let bytes = scene().to_bytes();
    let server = serve(bytes.clone());
    let raster = open(&server);
    let opened = server.requests().len();
    let windows: Vec<PixelWindow> = (0..4).map(|column| PixelWindow::new(column * 250, 250, 250, 250)).collect();
    raster.prefetch(&windows, &[0, 1, 2]);
    for window in &windows {
        assert_eq!(raster.read(*window, &[0, 1, 2]).unwrap(), truth(&bytes, *window, &[0, 1, 2]));
    }
    // Whole rows of tiles, one after the other in the file.
    assert_eq!(server.requests().len() - opened, 1);
}

#[test]
fn threads_that_read_the_same_tiles_fetch_them_once() {
    let large = TiffImage { width_px: 2048, height_px: 1024, block_px: (256, 256), ..scene().images[0].clone() };
    let server = serve(TiffFile::of(large).to_bytes());
    let raster = open(&server);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let raster = &raster;
            scope.spawn(move || {
                for tile in 0..32 {
                    // While one thread decodes a tile, others begin to read it.
                    std::thread::sleep(Duration::from_micros(300 * thread));
                    let corner = (tile % 8 * 256 + 32 * thread as i64, tile / 8 * 256);
                    raster.read(PixelWindow::new(corner.0, corner.1, 32, 32), &[0, 1, 2]).unwrap();
                }
            });
        }
    });
    let requests = server.requests().len();
    assert!(requests as f64 <= 1.1 * 32.0 + 2.0, "{requests} requests for 32 tiles");
}

fn range_of(request: &HttpRequest) -> (usize, usize) {
    let range = request.header("range").unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    (first.parse().unwrap(), last.parse::<usize>().unwrap() + 1)
}

#[test]
fn requests_are_under_way_at_the_same_time() {
    let bytes = TiffFile::of(TiffImage { is_planar: true, bands: 16, tags: Vec::new(), ..scene().images[0].clone() })
        .to_bytes();
    let file = bytes.clone();
    let server =
        HttpServer::start(move |request| HttpReply { delay: Duration::from_millis(100), ..part_of(&file, request) });
    let raster = open(&server);
    let start = Instant::now();
    let bands: Vec<usize> = (0..16).collect();
    let window = PixelWindow::new(600, 400, 32, 32);
    raster.read(window, &bands).unwrap();
    assert!(server.requests().len() > 16);
    assert!(start.elapsed() < Duration::from_millis(100 * 16 / 2), "{:?}", start.elapsed());
    // Prefetching returns before anything arrives, and the reader then waits for it instead of asking again.
    let next = PixelWindow::new(100, 600, 32, 32);
    let (before, start) = (server.requests().len(), Instant::now());
    raster.prefetch(&[next], &bands);
    assert!(start.elapsed() < Duration::from_millis(90));
    assert_eq!(raster.read(next, &bands).unwrap(), truth(&bytes, next, &bands));
    let after_prefetch = server.requests().len() - before;
    assert!(after_prefetch <= 32, "{after_prefetch}");
}

#[test]
fn failures_that_pass_are_not_noticed() {
    let bytes = scene().to_bytes();
    let file = bytes.clone();
    let count = AtomicUsize::new(0);
    let server = HttpServer::start(move |request| {
        let reply = part_of(&file, request);
        let half = reply.body.len() / 2;
        match count.fetch_add(1, Ordering::Relaxed) % 5 {
            0 => HttpReply::new(503, "later"),
            1 => HttpReply { cut_after: Some(half), ..reply },
            2 => HttpReply::new(429, "").with("Retry-After", "0"),
            3 => HttpReply { delay: Duration::from_millis(700), ..reply },
            _ => reply,
        }
    });
    let mut options = options();
    options.retries = Retries { most: 30, first_wait: Duration::from_millis(1) };
    let raster = Opener::new(options).open(&server.url()).unwrap();
    let window = PixelWindow::new(400, 300, 64, 64);
    assert_eq!(raster.read(window, &[0, 1, 2]).unwrap(), truth(&bytes, window, &[0, 1, 2]));
}

#[test]
fn failures_that_stay_are_told_without_secrets() {
    let bytes = scene().to_bytes();
    for status in [500, 404, 403] {
        let file = bytes.clone();
        let opened = Arc::new(AtomicUsize::new(0));
        let server = HttpServer::start(move |request| match opened.fetch_add(1, Ordering::Relaxed) {
            0 => part_of(&file, request),
            _ => HttpReply::new(status, "no"),
        });
        let url = server.url().replace("http://", "http://user:secret@");
        let raster = Opener::new(options()).open(&format!("{url}/scene.tif?sig=secret")).unwrap();
        assert!(!raster.profile().location.contains("secret"), "{}", raster.profile().location);
        raster.prefetch(&[PixelWindow::new(500, 500, 50, 50)], &[0]);
        let error = raster.read(PixelWindow::new(500, 500, 50, 50), &[0]).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        match status {
            500 => assert!(matches!(error, RasterError::Io { .. }), "{error}"),
            404 => assert!(matches!(error, RasterError::NotFound { .. }), "{error}"),
            _ => assert!(matches!(error, RasterError::Denied { .. }), "{error}"),
        }
    }
}

#[test]
fn a_server_comes_back_and_so_does_the_raster() {
    let bytes = scene().to_bytes();
    let file = bytes.clone();
    let is_down = Arc::new(Mutex::new(false));
    let down = Arc::clone(&is_down);
    let server = HttpServer::start(move |request| match *down.lock().unwrap() {
        true => HttpReply::new(500, ""),
        false => part_of(&file, request),
    });
    let raster = open(&server);
    let window = PixelWindow::new(500, 500, 50, 50);
    *is_down.lock().unwrap() = true;
    assert!(raster.read(window, &[0]).is_err());
    *is_down.lock().unwrap() = false;
    assert_eq!(raster.read(window, &[0]).unwrap(), truth(&bytes, window, &[0]));
}

#[test]
fn a_file_that_changes_is_an_error() {
    let bytes = scene().to_bytes();
    for longer in [false, true] {
        let file = bytes.clone();
        let count = AtomicUsize::new(0);
        let server = HttpServer::start(move |request| {
            let mut reply = match longer && count.load(Ordering::Relaxed) > 0 {
                true => part_of(&[&file[..], b"more"].concat(), request),
                false => part_of(&file, request),
            };
            if count.fetch_add(1, Ordering::Relaxed) > 0 && !longer {
                reply.headers.retain(|(name, _)| name != "ETag");
                reply = reply.with("ETag", "\"2\"");
            }
            reply
        });
        let raster = open(&server);
        let error = raster.read(PixelWindow::new(500, 500, 50, 50), &[0]).unwrap_err();
        assert!(matches!(error, RasterError::Changed { .. }), "{error}");
    }
}

#[test]
fn an_empty_file_is_told_as_one() {
    let error = Opener::new(options()).open(&serve(Vec::new()).url()).err().unwrap();
    assert!(error.to_string().ends_with("it is empty"), "{error}");
}

#[test]
fn servers_without_ranges_give_small_files_only() {
    let bytes = scene().to_bytes();
    let file = bytes.clone();
    let server = HttpServer::start(move |_| HttpReply::new(200, file.clone()));
    let raster = open(&server);
    let window = PixelWindow::new(400, 300, 64, 64);
    assert_eq!(raster.read(window, &[0]).unwrap(), truth(&bytes, window, &[0]));
    assert_eq!(server.requests().len(), 1);
    let large = HttpServer::start(|_| HttpReply::new(200, "II*").with("Content-Length", (1u64 << 40).to_string()));
    let error = Opener::new(options()).open(&large.url()).err().unwrap();
    assert!(matches!(error, RasterError::NoRanges { length_bytes, .. } if length_bytes == 1 << 40), "{error}");
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_errors() {
    type Wrong = fn(&[u8], &HttpRequest) -> HttpReply;
    let wrong: [Wrong; 4] = [
        |file, request| {
            let mut reply = part_of(file, request);
            reply.headers.retain(|(name, _)| name != "Content-Range");
            reply
        },
        |file, request| {
            let reply = part_of(file, request);
            let mut other = HttpReply::new(206, &reply.body[1..]);
            other.headers = reply.headers;
            other
        },
        |file, _| HttpReply::new(206, &file[..100]).with("Content-Range", format!("bytes 0-99/{}", file.len())),
        |_, _| HttpReply::new(204, ""),
    ];
    for (index, wrong) in wrong.into_iter().enumerate() {
        let file = scene().to_bytes();
        let server = HttpServer::start(move |request| wrong(&file, request));
        let error = Opener::new(options()).open(&server.url()).err();
        assert!(matches!(error, Some(RasterError::Io { .. })), "{index}: {error:?}");
    }
}

#[test]
fn a_large_index_takes_few_requests() {
    let image = TiffImage {
        width_px: 100_000,
        height_px: 100_000,
        bands: 1,
        block_px: (256, 256),
        is_absent: |_| true,
        tags: vec![(42113, TiffValue::Ascii("0"))],
        ..TiffImage::default()
    };
    let bytes = TiffFile { is_big: true, ..TiffFile::of(image) }.to_bytes();
    assert!(bytes.len() > 2_400_000);
    let server = serve(bytes);
    let raster = open(&server);
    assert!(raster.is_empty(PixelWindow::new(70_000, 70_000, 1000, 1000)));
    raster.read(PixelWindow::new(70_000, 70_000, 256, 256), &[0]).unwrap();
    assert!(server.requests().len() <= 4, "{}", server.requests().len());
}
