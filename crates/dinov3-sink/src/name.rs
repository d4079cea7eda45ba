//! How an image is called in an output file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// What names a row. The name is what the user gave, as UTF-8.
///
/// On Unix a path may hold any bytes. It is written as it is, unless it is not valid UTF-8 or contains the two
/// characters `\x`. Then it is escaped: a byte that is not part of valid UTF-8 becomes `\xHH` with two upper-case
/// hexadecimal digits, and a backslash becomes `\\`. So a name is escaped exactly if it contains `\x`, different
/// paths have different names, and [`row_name_bytes`] gives the path back. Elsewhere what is not Unicode is
/// replaced by U+FFFD, and nothing is escaped.
pub trait RowName {
    /// The name.
    fn row_name(&self) -> Cow<'_, str>;
}

impl RowName for Path {
    #[cfg(unix)]
    fn row_name(&self) -> Cow<'_, str> {
        use std::os::unix::ffi::OsStrExt;
        escaped(self.as_os_str().as_bytes())
    }

    #[cfg(not(unix))]
    fn row_name(&self) -> Cow<'_, str> {
        self.to_string_lossy()
    }
}

impl RowName for PathBuf {
    fn row_name(&self) -> Cow<'_, str> {
        self.as_path().row_name()
    }
}

impl RowName for str {
    fn row_name(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl RowName for String {
    fn row_name(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl<T: RowName + ?Sized> RowName for &T {
    fn row_name(&self) -> Cow<'_, str> {
        (**self).row_name()
    }
}

/// The part of a name that files and groups are called after: without folders and ending, without dots, dashes and
/// underscores at its start, `longest` characters at most, of which those that are not safe everywhere are `_`; `scene`
/// where nothing is left.
pub fn safe_stem(name: &str, longest: usize) -> String {
    let last = name.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or_default();
    let stem = match last.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && ending.len() <= 5 => stem,
        _ => last,
    };
    let safe = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => character,
        _ => '_',
    };
    let stem: String = stem.trim_start_matches(['.', '-', '_']).chars().map(safe).take(longest).collect();
    if stem.is_empty() { "scene".to_owned() } else { stem }
}

#[cfg_attr(not(unix), allow(dead_code))]
fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(name) = std::str::from_utf8(bytes)
        && !name.contains(r"\x")
    {
        return Cow::Borrowed(name);
    }
    let mut name = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        name.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            name.push_str(&format!("\\x{byte:02X}"));
        }
    }
    Cow::Owned(name)
}

/// The bytes of the path that was written as `name` on Unix.
pub fn row_name_bytes(name: &str) -> Vec<u8> {
    if !name.contains(r"\x") {
        return name.as_bytes().to_vec();
    }
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hexadecimal = |digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (byte, length) = match after {
            [b'\\', ..] if first == b'\\' => (b'\\', 2),
            [b'x', high, low, ..] if first == b'\\' => match hexadecimal(&[*high, *low]) {
                Some(byte) => (byte, 4),
                None => (first, 1),
            },
            _ => (first, 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_it_is_escaped() {
        for (bytes, name) in [
            (&b"a/b c.jpg"[..], "a/b c.jpg"),
            ("Bäume/松.png".as_bytes(), "Bäume/松.png"),
            (br"back\slash.jpg", r"back\slash.jpg"),
            (br"a\xFF.jpg", r"a\\xFF.jpg"),
            (b"a\xFF.jpg", r"a\xFF.jpg"),
            (b"\\a\xE4\\", r"\\a\xE4\\"),
            (b"cut \xE6\x9D", r"cut \xE6\x9D"),
            (b"", ""),
        ] {
            assert_eq!(escaped(bytes), name);
            assert_eq!(row_name_bytes(name), bytes);
        }
    }

    #[test]
    fn different_names_stay_different() {
        // Every string of up to five of the bytes that matter.
        let alphabet = [b'\\', b'x', b'F', 0xFF, 0xC3, 0xA4];
        let mut all = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..5 {
            let to = all.len();
            for index in from..to {
                for byte in alphabet {
                    let mut longer = all[index].clone();
                    longer.push(byte);
                    all.push(longer);
                }
            }
            from = to;
        }
        for bytes in &all {
            assert_eq!(&row_name_bytes(&escaped(bytes)), bytes);
        }
    }
}
