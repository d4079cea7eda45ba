//! Where a raster is: a path, a URL, an object of a store.

use std::path::{Path, PathBuf};

use dinov3_http::{Url, without_user};

use crate::RasterError;

/// Where a raster is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// `http://` or `https://`.
    Web(Url),
    /// An object of a store.
    Object {
        /// Which kind of store.
        store: Store,
        /// The bucket or container, with `ACCOUNT@` or the like as it was written.
        bucket: String,
        /// The object's key.
        key: String,
    },
}

/// Kinds of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Amazon S3 and what speaks its language: `s3://bucket/key`.
    S3,
    /// Google Cloud Storage: `gs://bucket/key`.
    Google,
    /// Azure Blob Storage: `az://container/key`, `abfs://...`.
    Azure,
}

impl Location {
    /// Reads a path or a URL. Any text without `://` is a path.
    ///
    /// # Errors
    /// [`RasterError::Location`].
    pub fn parse(text: &str) -> Result<Self, RasterError> {
        let wrong = |reason: String| RasterError::Location { location: without_secrets(text), reason };
        if Url::looks_like_one(text) {
            return Url::parse(text).map(Self::Web).map_err(|error| wrong(error.to_string()));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(wrong("it is empty".to_string())),
                path => Ok(Self::File(PathBuf::from(path))),
            };
        };
        let store = match scheme.to_ascii_lowercase().as_str() {
            "file" => return Ok(Self::File(PathBuf::from(rest))),
            "s3" | "s3a" => Store::S3,
            "gs" => Store::Google,
            "az" | "abfs" | "abfss" | "azure" => Store::Azure,
            _ => return Err(wrong("known are paths, http(s)://, s3://, gs:// and az://".to_string())),
        };
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || key.is_empty() || key.ends_with('/') {
            return Err(wrong(
                "an object is written SCHEME://BUCKET/KEY, and a folder of them SCHEME://BUCKET/FOLDER/".to_string(),
            ));
        }
        Ok(Self::Object { store, bucket: bucket.to_string(), key: key.to_string() })
    }

    /// For messages and provenance: without user, password, query and fragment, which may be secrets.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Web(url) => url.shown(),
            Self::Object { store, bucket, key } => {
                let scheme = match store {
                    Store::S3 => "s3",
                    Store::Google => "gs",
                    Store::Azure => "az",
                };
                // `container@account` is where it lies; `user:password@bucket` and a signature behind the key are secrets.
                let bucket = match bucket.split_once('@') {
                    Some((user, bucket)) if user.contains(':') => bucket,
                    _ => bucket,
                };
                let key = match key.split_once('?') {
                    Some((key, query)) if query.contains('=') => key,
                    _ => key,
                };
                format!("{scheme}://{bucket}/{key}")
            }
        }
    }

    /// The `gdal_translate` command with these options that writes a copy that can be read here.
    pub fn translate(&self, options: &str) -> String {
        let source = match self {
            Self::File(path) => path.display().to_string(),
            Self::Web(url) => format!("/vsicurl/{}", url.shown()),
            Self::Object { store: Store::S3, bucket, key } => format!("/vsis3/{bucket}/{key}"),
            Self::Object { store: Store::Google, bucket, key } => format!("/vsigs/{bucket}/{key}"),
            Self::Object { store: Store::Azure, bucket, key } => format!("/vsiaz/{bucket}/{key}"),
        };
        let target = match self {
            Self::File(path) => path.with_file_name(cog_name(path)).display().to_string(),
            _ => cog_name(Path::new(&source)),
        };
        let space = if options.is_empty() { "" } else { " " };
        format!("gdal_translate -of COG{space}{options} {} {}", quoted(&source), quoted(&target))
    }
}

/// One name for several files: what they have in common once, and braces around what differs, as shells write it:
/// `T33_{B04,B03,B02}.tif`.
pub fn named_together(names: &[String]) -> String {
    let [first, others @ ..] = names else { return String::new() };
    if others.is_empty() {
        return first.clone();
    }
    let mut start = others.iter().fold(first.len(), |length, other| length.min(common(first.chars(), other.chars())));
    // A word is not torn apart.
    let is_word = |character: char| character.is_alphanumeric();
    start = first[..start]
        .rfind(|character| !is_word(character))
        .map_or(0, |at| at + first[at..].chars().next().map_or(0, char::len_utf8));
    let rests: Vec<&str> = names.iter().map(|name| &name[start..]).collect();
    let mut end = rests[1..]
        .iter()
        .fold(rests[0].len(), |length, other| length.min(common(rests[0].chars().rev(), other.chars().rev())));
    let tail = &rests[0][rests[0].len() - end..];
    end = tail.find(|character| !is_word(character)).map_or(0, |at| tail.len() - at);
    let middles: Vec<&str> = rests.iter().map(|rest| &rest[..rest.len() - end]).collect();
    format!("{}{{{}}}{}", &first[..start], middles.join(","), &rests[0][rests[0].len() - end..])
}

/// The names that [`named_together`] made one of; the name itself where there are no braces.
pub fn named_apart(name: &str) -> Vec<String> {
    let Some(((start, middle), end)) = name.rsplit_once('}').and_then(|(rest, end)| Some((rest.split_once('{')?, end)))
    else {
        return vec![name.to_owned()];
    };
    middle.split(',').map(|middle| format!("{start}{middle}{end}")).collect()
}

/// How many bytes of the first are those of the second.
fn common(a: impl Iterator<Item = char>, b: impl Iterator<Item = char>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

fn cog_name(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{stem}_cog.tif")
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "/._-+:=@,%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What outputs, markers and messages call a file that a user names so: a URL without what may be secret in it, a path as
/// it is. Twice is the same as once.
pub fn redacted(text: &str) -> String {
    match text.contains("://") {
        true => Location::parse(text).map_or_else(|_| without_secrets(text), |location| location.shown()),
        false => text.to_owned(),
    }
}

/// A text with URLs in it, for messages: without their users, passwords and queries.
pub(crate) fn without_secrets(text: &str) -> String {
    let cleaned = |word: &str| match word.contains("://") {
        true => without_user(word.split(['?', '#']).next().unwrap_or_default()),
        false => word.to_string(),
    };
    text.split(' ').map(cleaned).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_read_as_people_write_them() {
        assert_eq!(Location::parse("a b/c.tif").unwrap(), Location::File("a b/c.tif".into()));
        assert_eq!(Location::parse("file:///data/c.tif").unwrap(), Location::File("/data/c.tif".into()));
        assert_eq!(Location::parse("S3://bucket/a/b c.tif").unwrap().shown(), "s3://bucket/a/b c.tif");
        assert!(matches!(Location::parse("https://h/a.tif").unwrap(), Location::Web(_)));
        for wrong in ["", "ftp://h/a.tif", "s3://bucket", "gs:///key", "az://container/folder/", "http://"] {
            assert!(Location::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_of_one_scene_have_one_name() {
        let named = |names: &[&str]| named_together(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(named(&["a.tif"]), "a.tif");
        assert_eq!(named(&["s/T33_B04.tif", "s/T33_B03.tif", "s/T33_B02.tif"]), "s/T33_{B04,B03,B02}.tif");
        assert_eq!(named_apart("s/T33_{B04,B03}.tif"), ["s/T33_B04.tif", "s/T33_B03.tif"]);
        assert_eq!(named_apart("a}{b.tif"), ["a}{b.tif"]);
        assert_eq!(named(&["R10m/a_B04.tif", "R20m/a_B11.tif"]), "{R10m/a_B04,R20m/a_B11}.tif");
        assert_eq!(named(&["red.tif", "green.tif", "red.tif"]), "{red,green,red}.tif");
        assert_eq!(named(&["a.tif", "a.tif"]), "a.{tif,tif}");
        assert_eq!(named(&["a", "a_b", "ab"]), "{a,a_b,ab}");
        assert_eq!(named(&["ä/é.tif", "ä/è.tif"]), "ä/{é,è}.tif");
        assert_eq!(named(&["", "a"]), "{,a}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let url = "https://user:secret@h/a.tif?X-Amz-Signature=secret#secret";
        let location = Location::parse(url).unwrap();
        assert_eq!(location.shown(), "https://h/a.tif");
        assert_eq!(location.translate(""), "gdal_translate -of COG /vsicurl/https://h/a.tif a_cog.tif");
        let wrong = Location::parse("ftp://user:secret@h/a.tif?sig=secret").unwrap_err().to_string();
        assert!(!wrong.contains("secret"), "{wrong}");
        assert_eq!(without_secrets("no https://u:p@h/x?sig=s here"), "no https://h/x here");
        for (text, shown) in [
            ("https://user:secret@h/a b.tif?sig=secret#secret", "https://h/a%20b.tif"),
            ("az://container/a.tif?sv=2024&sig=secret", "az://container/a.tif"),
            ("abfs://container@account/a.tif", "az://container@account/a.tif"),
            ("s3://user:secret@bucket/a?b.tif", "s3://bucket/a?b.tif"),
            ("hf://user:secret@h/x?y=secret", "hf://h/x"),
            ("scenes/a b?c=d.tif", "scenes/a b?c=d.tif"),
        ] {
            assert_eq!(redacted(text), shown);
            assert_eq!(redacted(shown), shown);
        }
    }

    #[test]
    fn the_remedy_can_be_pasted_into_a_shell() {
        let remedy = |path: &str| Location::File(path.into()).translate("-expand rgb");
        assert_eq!(remedy("in/a.tif"), "gdal_translate -of COG -expand rgb in/a.tif in/a_cog.tif");
        assert_eq!(remedy("it's.tif"), r"gdal_translate -of COG -expand rgb 'it'\''s.tif' 'it'\''s_cog.tif'");
    }
}
