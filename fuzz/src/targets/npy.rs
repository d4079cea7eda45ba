//! `.npy` files.

use dinov3_pixels::npy::parse_header;

use super::has_a_reason;
use crate::Target;

/// The header of an `.npy` file, and whether the file is a batch of images.
pub(super) const NPY: Target = Target {
    name: "npy",
    run: |bytes| match parse_header(bytes) {
        Ok(header) => {
            assert!(header.data_offset <= bytes.len(), "the values begin beyond the end");
            match header.images(bytes.len()) {
                Ok([count, height_px, width_px]) => {
                    assert_eq!(count * 3 * height_px * width_px * 4, bytes.len() - header.data_offset);
                    assert!(count * height_px * width_px > 0);
                }
                Err(reason) => has_a_reason(&reason),
            }
        }
        Err(reason) => has_a_reason(&reason),
    },
    seeds: || {
        let file = |version: u8, header: &str, values: usize| {
            let mut bytes = b"\x93NUMPY".to_vec();
            bytes.extend([version, 0]);
            match version {
                1 => bytes.extend((header.len() as u16).to_le_bytes()),
                _ => bytes.extend((header.len() as u32).to_le_bytes()),
            }
            bytes.extend(header.as_bytes());
            bytes.extend(std::iter::repeat_n(0.5_f32.to_le_bytes(), values).flatten());
            bytes
        };
        vec![
            file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 2, 1), }   \n", 12),
            file(2, "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 3, 1, 1), }\n", 3),
            file(3, "{\"descr\": \"|u1\", \"fortran_order\": False, \"shape\": (), }\n", 1),
            file(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4294967296, 3, 4294967296, 1)}", 3),
        ]
    },
    longest_bytes: 4096,
    words: &[
        b"'descr': '<f4'",
        b"'fortran_order': False",
        b"'fortran_order': True",
        b"'shape': (",
        b"1, 3, 1, 1)",
        b"4294967296",
        b"18446744073709551615",
        b"9223372036854775808",
        b"\xc3\xa9",
        b"\"descr\"",
        b"()",
        b"[('a', '<f4')]",
    ],
};
