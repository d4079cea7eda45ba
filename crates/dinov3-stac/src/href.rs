//! Paths as they stand in documents.

use std::path::{Component, Path};

/// A path as it stands in a link: what has a meaning in a URL, and what is not ASCII, is escaped.
pub fn href(path: &str) -> String {
    let mut href = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => href.push(char::from(byte)),
            other => href.push_str(&format!("%{other:02X}")),
        }
    }
    href
}

/// A path as a `file://` URI; what is a URI stays. A path that is not absolute is one from the current folder.
pub fn uri_of(source: &str) -> String {
    if source.contains("://") {
        return source.to_owned();
    }
    let path = std::path::absolute(source).unwrap_or_else(|_| source.into());
    let text = path.to_string_lossy().replace('\\', "/");
    // Of a drive, `C:` begins the path.
    let (drive, path) = match text.split_once(':') {
        Some((drive, path)) if drive.len() == 1 => (format!("/{drive}:"), path.to_owned()),
        _ => (String::new(), text),
    };
    format!("file://{drive}{}", href(&path))
}

/// The path of a `file://` URI of this machine, with its escapes as the bytes that they stand for; nothing of other texts, and
/// where these are no text.
pub fn path_of_uri(uri: &str) -> Option<String> {
    let place = uri.strip_prefix("file://")?;
    let path = place.strip_prefix("localhost").filter(|rest| rest.starts_with('/')).unwrap_or(place);
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|digits| first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let escaped = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

/// The way from a folder to a file, both absolute; nothing where they have no folder in common but the root.
pub fn relative_href(folder: &Path, file: &Path) -> Option<String> {
    let parts = |path: &Path| -> Vec<String> {
        let named = path.components().filter(|part| !matches!(part, Component::CurDir));
        named.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let (from, to) = (parts(folder), parts(file));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    if common < 2 {
        return None;
    }
    let up = "../".repeat(from.len() - common);
    let start = if up.is_empty() { "./" } else { "" };
    Some(format!("{start}{up}{}", href(&to[common..].join("/"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_parts_of_urls() {
        assert_eq!(href("a/b c#1%ä.tif"), "a/b%20c%231%25%C3%A4.tif");
    }

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri_of("https://example.org/a b.tif"), "https://example.org/a b.tif");
        if cfg!(unix) {
            assert_eq!(uri_of("/scenes/a b#1.tif"), "file:///scenes/a%20b%231.tif");
        }
    }

    #[test]
    fn uris_of_files_are_paths_again() {
        for path in ["/scenes/a b#1%.tif", "/ä/松.tif", "/plain.tif"] {
            assert_eq!(path_of_uri(&uri_of(path)).as_deref(), Some(path));
        }
        // As people write them, too.
        assert_eq!(path_of_uri("file:///a b%.tif").as_deref(), Some("/a b%.tif"));
        assert_eq!(path_of_uri("file://localhost/a%20b.tif").as_deref(), Some("/a b.tif"));
        assert_eq!(path_of_uri("file:///%ff"), None);
        assert_eq!(path_of_uri("https://h/a.tif"), None);
    }

    #[test]
    fn documents_and_sources_can_be_moved_together() {
        let link = |folder: &str, file: &str| relative_href(Path::new(folder), Path::new(file));
        assert_eq!(link("/data/out", "/data/scenes/a b.tif").unwrap(), "../scenes/a%20b.tif");
        assert_eq!(link("/data", "/data/a.tif").unwrap(), "./a.tif");
        assert_eq!(link("/out", "/data/a.tif"), None);
    }
}
