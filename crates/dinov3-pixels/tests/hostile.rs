//! Broken and oversized files: refused with an error, never with a panic, and without the memory they ask for.

use std::path::PathBuf;

use dinov3_pixels::{DecodeOptions, DeepGrey, Limits, Orientation, PixelError, decode, image_size};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn fixtures() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "tsv"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn mutated_files_do_not_panic() {
    // Small enough that a changed header cannot ask for much.
    let options = DecodeOptions::default()
        .with_limits(Limits::default().with_max_pixels(200_000))
        .with_deep_grey(DeepGrey::Clip)
        .with_orientation(Orientation::Apply);
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut runs, mut refused) = (0, 0);
    for (name, bytes) in fixtures() {
        for round in 0..2_000 {
            let mut changed = bytes.clone();
            match round % 4 {
                // The first bytes hold the numbers that sizes are computed from.
                0 => {
                    let at = random.below(changed.len().min(200));
                    changed[at] = random.below(256) as u8;
                }
                1 => {
                    for _ in 0..1 + random.below(8) {
                        let at = random.below(changed.len());
                        changed[at] = random.below(256) as u8;
                    }
                }
                2 => changed.truncate(random.below(changed.len())),
                _ => {
                    let at = random.below(changed.len().saturating_sub(4));
                    let extreme = [[0; 4], [0xff; 4], [0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0x80]][random.below(4)];
                    let end = (at + 4).min(changed.len());
                    changed[at..end].copy_from_slice(&extreme[..end - at]);
                }
            }
            let outcome = std::panic::catch_unwind(|| {
                let _ = image_size(&changed);
                decode(&changed, &options).is_err()
            });
            match outcome {
                Ok(is_error) => refused += usize::from(is_error),
                Err(_) => panic!("{name} round {round} panicked"),
            }
            runs += 1;
        }
    }
    println!("{runs} changed files, {refused} refused, no panic");
}

#[test]
fn limits_can_be_set() {
    let (_, bytes) = fixtures().into_iter().find(|(name, _)| name == "rgb.png").unwrap();
    let with = |limits| decode(&bytes, &DecodeOptions::default().with_limits(limits));
    assert!(with(Limits::default().with_max_pixels(45 * 31)).is_ok());
    assert!(matches!(
        with(Limits::default().with_max_pixels(45 * 31 - 1)),
        Err(PixelError::LimitExceeded { quantity: "the number of pixels", value: 1395, limit: 1394 })
    ));
    assert!(matches!(with(Limits::default().with_max_side_px(44)), Err(PixelError::LimitExceeded { .. })));
    assert!(matches!(with(Limits::default().with_max_file_bytes(100)), Err(PixelError::LimitExceeded { .. })));
}

#[test]
fn other_files_are_named_by_their_first_bytes() {
    for bytes in [&b"GIF89a"[..], b"", b"\xff\xd8", b"RIFFxxxxWAVE", b"<svg>"] {
        assert!(matches!(decode(bytes, &DecodeOptions::default()), Err(PixelError::UnknownFormat { .. })));
    }
}
