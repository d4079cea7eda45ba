//! Small files that declare huge pictures. Alone in this file, because it measures the memory of the process.

use dinov3_pixels::{DecodeOptions, PixelError, decode};

fn largest_png() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend(65_535_u32.to_be_bytes());
    bytes.extend(65_535_u32.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn largest_jpeg() -> Vec<u8> {
    // libjpeg itself stops at 65500 pixels a side.
    let mut bytes = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\x03\x01\x11\0\x02\x11\0\x03\x11\0".to_vec();
    bytes.extend(b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0");
    bytes.extend([0; 64]);
    bytes
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

fn largest_tiff() -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x08\0".to_vec();
    let tags: [(u16, u16, u32); 8] = [
        (256, 4, 65_535),
        (257, 4, 65_535),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (278, 4, 65_535),
        (279, 4, 100),
    ];
    for (tag, kind, value) in tags {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 200]);
    bytes
}

fn largest_bmp() -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend([1, 0, 24, 0]);
    bytes.extend([0; 100]);
    bytes
}

fn largest_webp() -> Vec<u8> {
    // Lossless: 14 bits for each side less one; the WebP crate reads all ones as zero.
    let mut bytes = b"RIFF\x40\0\0\0WEBPVP8L\x34\0\0\0\x2f".to_vec();
    bytes.extend((16_382_u32 | 16_382 << 14).to_le_bytes());
    bytes.extend([0; 47]);
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

#[test]
fn bombs_are_refused_by_their_header() {
    let start = std::time::Instant::now();
    for (name, bytes) in [
        ("png", largest_png()),
        ("jpeg", largest_jpeg()),
        ("tiff", largest_tiff()),
        ("tiff list", endless_tiff()),
        ("bmp", largest_bmp()),
        ("webp", largest_webp()),
        ("webp frame", webp_with_a_huge_frame()),
    ] {
        let result = decode(&bytes, &DecodeOptions::default());
        assert!(matches!(result, Err(PixelError::LimitExceeded { .. })), "{name}: {result:?}");
    }
    let elapsed = start.elapsed();
    println!("seven bombs refused in {elapsed:?}");
    assert!(elapsed.as_millis() < 200, "{elapsed:?}");
    // This test is alone in its process, so the peak is its own; the bombs ask for up to 12 GB each.
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        println!("peak memory {kilobytes} kB");
        assert!(kilobytes < 64 << 10, "peak memory {kilobytes} kB");
    }
}
