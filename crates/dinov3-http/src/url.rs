//! URLs as people and servers write them.

use ureq::http::Uri;

use crate::HttpError;

/// Longest URL that is taken.
const LONGEST_BYTES: usize = 16 << 10;

/// An `http` or `https` URL without fragment; what URLs must not hold (spaces, umlauts) is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub(crate) Uri);

impl Url {
    /// Whether a text means a URL rather than a file.
    pub fn looks_like_one(text: &str) -> bool {
        let starts = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        starts("http://") || starts("https://")
    }

    /// Reads a URL.
    ///
    /// # Errors
    /// [`HttpError::BadUrl`].
    pub fn parse(text: &str) -> Result<Self, HttpError> {
        let bad = |reason: &str| {
            let url = shortened(&without_user(text));
            HttpError::BadUrl { url, reason: reason.to_string() }
        };
        if !Self::looks_like_one(text) {
            return Err(bad("it starts with neither http:// nor https://"));
        }
        if text.len() > LONGEST_BYTES {
            return Err(bad("it is too long"));
        }
        let text = text.split('#').next().unwrap_or_default();
        let uri: Uri = escaped(text).parse().map_err(|error| bad(&format!("{error}")))?;
        match uri.host() {
            None | Some("") => Err(bad("it names no host")),
            Some(host) if !host.is_ascii() || host.contains('%') => Err(bad("the host must be in ASCII (xn--...)")),
            // The parser forgets a port that is none, and 0 is nobody's.
            Some(_) if !port_is_sound(&uri) => Err(bad("a port is a number from 1 to 65535")),
            Some(_) => Ok(Self(uri)),
        }
    }

    /// Where a `Location` leads that this URL answered with.
    ///
    /// # Errors
    /// [`HttpError::BadUrl`].
    pub fn join(&self, location: &str) -> Result<Self, HttpError> {
        let location = location.trim();
        let origin = format!("{}://{}", self.scheme(), self.0.authority().map_or("", |authority| authority.as_str()));
        let path = self.0.path();
        let (target, query) = match location.split_once('?') {
            Some((target, query)) => (target, format!("?{query}")),
            None => (location, String::new()),
        };
        let joined = if Self::looks_like_one(location) {
            return Self::parse(location);
        } else if target.starts_with("//") {
            return Self::parse(&format!("{}:{location}", self.scheme()));
        } else if target.starts_with('/') {
            target.to_string()
        } else if target.is_empty() {
            path.to_string()
        } else if target.split('/').next().is_some_and(|first| first.contains(':')) {
            let reason = "redirects lead to http and https only".to_string();
            return Err(HttpError::BadUrl { url: shortened(&without_user(location)), reason });
        } else {
            format!("{}{target}", &path[..=path.rfind('/').unwrap_or_default()])
        };
        Self::parse(&format!("{origin}{}{query}", without_dots(&joined)))
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.0.scheme_str().unwrap_or("http")
    }

    /// The host's name or address.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// The port, written or not.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.scheme() == "https" { 443 } else { 80 })
    }

    /// Whether scheme, host and port agree: what a secret for one may be told the other.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme() == other.scheme() && self.host().eq_ignore_ascii_case(other.host()) && self.port() == other.port()
    }

    /// The URL for messages: without user, password and query.
    pub fn shown(&self) -> String {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        let place = authority.rsplit('@').next().unwrap_or_default();
        shortened(&format!("{}://{place}{}", self.scheme(), self.0.path()))
    }
}

/// Whether no port is written, or one that can be connected to. `http://h:/` means the usual one.
fn port_is_sound(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let place = authority.rsplit('@').next().unwrap_or_default();
    let after = place.rsplit(']').next().unwrap_or_default();
    match after.split_once(':') {
        Some((_, port)) if !port.is_empty() => port.parse::<u16>().is_ok_and(|port| port != 0),
        _ => true,
    }
}

/// A text that is or was to be a URL, for messages: without the user and the password that it may hold.
pub fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_string() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => text.to_string(),
    }
}

/// A text of a length for one line.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 127.. => {
                escaped += &format!("%{byte:02X}");
            }
            _ => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// `/a/./b/../c` is `/a/c`.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        match *part {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_people_write_them() {
        let url = Url::parse("https://User:secret@Example.org:8443/a b/ä.png?key=1#part").unwrap();
        assert_eq!(url.0.path_and_query().unwrap().as_str(), "/a%20b/%C3%A4.png?key=1");
        assert_eq!((url.scheme(), url.host(), url.port()), ("https", "Example.org", 8443));
        assert_eq!(url.shown(), "https://Example.org:8443/a%20b/%C3%A4.png");
        assert_eq!(Url::parse("HTTP://h").unwrap().port(), 80);
        for port in ["0", "99999", "65536", "123456789012"] {
            assert!(Url::parse(&format!("http://h:{port}/")).is_err(), "{port}");
            assert!(Url::parse(&format!("http://u:1@[::1]:{port}/")).is_err(), "{port}");
        }
        assert_eq!(Url::parse("http://u:99999@[::1]:65535/").unwrap().port(), 65535);
        assert_eq!(Url::parse("https://h:/").unwrap().port(), 443);
        for wrong in ["", "file:///etc/passwd", "http://", "https:///x", "http://ä.example/", "http://a b/", "ftp://x/"]
        {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Url::parse(&format!("http://h/{}", "x".repeat(20_000))).is_err());
    }

    #[test]
    fn messages_do_not_tell_passwords() {
        for (text, shown) in [
            ("http://user:pw@h/a@b", "http://h/a@b"),
            ("http://u@x:pw@h?q=@", "http://h?q=@"),
            ("http://h/a@b", "http://h/a@b"),
            ("no URL", "no URL"),
        ] {
            assert_eq!(without_user(text), shown);
        }
        let error = Url::parse("http://user:secret@h:99999/").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn redirects_are_joined() {
        let base = Url::parse("http://h:81/a/b/c?x=1").unwrap();
        for (location, expected) in [
            ("/d", "http://h:81/d"),
            ("d?y=2", "http://h:81/a/b/d?y=2"),
            ("../d/./e/..", "http://h:81/a/d/"),
            ("../../../../d", "http://h:81/d"),
            ("?y=2", "http://h:81/a/b/c?y=2"),
            ("//other/d", "http://other/d"),
            ("https://other/d?z", "https://other/d?z"),
            ("d?u=http://x/y", "http://h:81/a/b/d?u=http://x/y"),
        ] {
            assert_eq!(base.join(location).unwrap().0.to_string(), expected, "{location}");
        }
        for wrong in ["file:///etc/passwd", "javascript:1", "http://"] {
            assert!(base.join(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(url("https://h/a").same_origin(&url("https://H:443/b")));
        for other in ["http://h/a", "https://h:444/a", "https://g/a"] {
            assert!(!url("https://h/a").same_origin(&url(other)), "{other}");
        }
    }
}
