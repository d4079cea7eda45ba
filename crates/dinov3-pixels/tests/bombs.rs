//! Small files that promise or unpack to huge pictures. Alone in this file, because it measures the memory of the
//! process: that of Rust and that of libjpeg.

mod common;

use std::time::Duration;

use common::{bmp, deflated_zeros, jpeg, jpeg_scan, png, png_chunk, tiff, webp_lossless};
use dinov3_pixels::{DecodeOptions, PixelError, decode};

const TOO_LARGE: &str = "more than the limit";

/// Name, file, and what the refusal says; nothing if it is harmless and decoded.
fn bombs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let tiff_of = |width, height, changes: &[(u16, u16, u32, u32)]| tiff(width, height, changes);
    let in_limits = 10_000;
    vec![
        ("png of the largest size", png(65_535, 65_535, 8, 2, &[]), TOO_LARGE),
        ("jpeg of the largest size", jpeg(0xc0, 65_500, 65_500, &[jpeg_scan()]), TOO_LARGE),
        ("jpeg beyond libjpeg's size", jpeg(0xc0, 65_535, 65_535, &[jpeg_scan()]), "65500"),
        ("tiff of the largest size", tiff_of(65_535, 65_535, &[]), TOO_LARGE),
        ("tiff of 2^32 - 1 pixels a side", tiff_of(u32::MAX, u32::MAX, &[]), TOO_LARGE),
        ("bmp of the largest size", bmp(65_535, 65_535, 24, 0, &[0; 100]), TOO_LARGE),
        ("bmp of 2^31 - 1 pixels a side", bmp(i32::MAX as u32, i32::MAX as u32, 24, 0, &[]), TOO_LARGE),
        ("webp of the largest size", webp_lossless(16_383, 16_383, &[0; 47]), TOO_LARGE),
        // Within the limits, but with nothing behind the header: the memory must not be touched.
        ("png that ends", png(in_limits, in_limits, 8, 2, &[]), "PNG"),
        ("png that ends early", png(in_limits, in_limits, 8, 6, &[png_chunk(b"IDAT", &deflated_zeros(1000))]), "PNG"),
        ("jpeg that ends", jpeg(0xc0, 10_000, 10_000, &[jpeg_scan()]), "truncated"),
        ("progressive jpeg that ends", jpeg(0xc2, 10_000, 10_000, &[jpeg_scan()]), "truncated"),
        ("arithmetic jpeg that ends", jpeg(0xc9, 10_000, 10_000, &[jpeg_scan()]), "truncated"),
        ("tiff that ends", tiff_of(in_limits, in_limits, &[]), "TIFF"),
        ("tiff of deflated nothing", tiff_of(in_limits, in_limits, &[(259, 3, 1, 8)]), "TIFF"),
        ("tiff of many samples", tiff_of(in_limits, in_limits, &[(277, 3, 1, 60_000)]), TOO_LARGE),
        ("tiff of 2^32 - 1 strips", tiff_of(100, 100, &[(273, 4, u32::MAX, 8), (279, 4, u32::MAX, 8)]), "TIFF"),
        ("tiff of 10^7 strips", tiff_of(100, 100, &[(273, 4, 10_000_000, 8), (279, 4, 10_000_000, 8)]), "TIFF"),
        ("tiff of strips of no rows", tiff_of(1000, 1000, &[(278, 4, 1, 0)]), "TIFF"),
        ("tiff of tiles of 2^31 pixels", tiff_of(1000, 1000, &[(322, 4, 1, 1 << 31), (323, 4, 1, 1 << 31)]), "TIFF"),
        ("bmp that ends", bmp(in_limits, in_limits, 24, 0, &[]), "truncated"),
        ("run-length bmp that ends", bmp(in_limits, in_limits, 8, 1, &[0; 1100]), "truncated"),
        ("webp that ends", webp_lossless(in_limits, in_limits, &[]), "WebP"),
        // More bytes than the picture needs.
        ("png with 256 MB behind 8 x 8 pixels", png(8, 8, 8, 0, &[png_chunk(b"IDAT", &deflated_zeros(1 << 28))]), ""),
        ("png with 256 MB of text", png_with(b"zTXt", b"note\0\0"), ""),
        ("png with a colour profile of 256 MB", png_with(b"iCCP", b"icc\0\0"), ""),
        ("tiff whose lists are not there", endless_tiff(), "TIFF"),
        ("webp with a huge frame", webp_with_a_huge_frame(), TOO_LARGE),
        // Much work for few bytes.
        ("jpeg of 5000 scans", jpeg(0xc2, 64, 64, &vec![jpeg_scan(); 5000]), "progressive scans"),
        ("jpeg of 5000 scans over 4 Mpx", jpeg(0xc2, 2000, 2000, &vec![jpeg_scan(); 5000]), "JPEG"),
    ]
}

/// One pixel, and a list of eight million strips that is not there.
fn endless_tiff() -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x05\0".to_vec();
    for (tag, count) in [(256_u16, 1_u32), (257, 1), (262, 1), (273, 7_995_393), (279, 7_995_393)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(4_u16.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
    }
    bytes.extend([0; 200]);
    bytes
}

/// A canvas of one pixel around a lossy frame of 16,000 x 16,000.
fn webp_with_a_huge_frame() -> Vec<u8> {
    let mut bytes = b"RIFF\x5a\0\0\0WEBPVP8X\x0a\0\0\0".to_vec();
    bytes.extend([0; 10]);
    bytes.extend(b"VP8 \x40\0\0\0\x30\x01\0\x9d\x01\x2a\x80\x3e\x80\x3e");
    bytes.extend([0; 54]);
    bytes
}

/// A picture with a compressed chunk in front of its pixels.
fn png_with(kind: &[u8; 4], start: &[u8]) -> Vec<u8> {
    let bomb = png_chunk(kind, &[start, &deflated_zeros(1 << 28)].concat());
    png(8, 8, 8, 0, &[bomb, png_chunk(b"IDAT", &deflated_zeros(8 * 9))])
}

#[test]
fn bombs_take_neither_memory_nor_time() {
    // The machinery's own memory is there before the first measurement.
    let _ = decode(&png(8, 8, 8, 0, &[png_chunk(b"IDAT", &deflated_zeros(8 * 9))]), &DecodeOptions::default());
    let mut faults = Vec::new();
    for (name, bytes, reason) in bombs() {
        reset_peak_memory();
        let (memory_before, time_before) = (memory_kilobytes("VmRSS:"), cpu_time());
        let result = decode(&bytes, &DecodeOptions::default());
        let (time, peak) = (cpu_time() - time_before, memory_kilobytes("VmHWM:"));
        let extra = peak.saturating_sub(memory_before);
        println!("{name}: {} bytes, {} ms, {extra} kB", bytes.len(), time.as_millis());
        let said = result.as_ref().err().map(ToString::to_string);
        let as_expected = match &said {
            None => reason.is_empty(),
            Some(text) => !reason.is_empty() && text.contains(reason),
        };
        let by_its_header = matches!(result, Err(PixelError::LimitExceeded { .. }));
        let late = time > Duration::from_millis(200);
        if !as_expected || (reason == TOO_LARGE && !by_its_header) || late || extra > 64 << 10 {
            faults.push(format!("{name}: {} ms, {extra} kB, {said:?}", time.as_millis()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The time that this thread was computing: a busy machine does not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0))
}

/// Lets the system forget the largest memory so far, where it can.
fn reset_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A line of the system's account of this process; 0 where there is none.
fn memory_kilobytes(entry: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(entry));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
