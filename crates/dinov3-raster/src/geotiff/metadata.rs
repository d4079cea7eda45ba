//! GDAL's metadata inside of a TIFF: a small XML text.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::Event;

/// Largest text that is looked at.
const LARGEST_BYTES: usize = 16 << 20;

/// What GDAL noted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct GdalMetadata {
    /// Of the whole file.
    pub items: BTreeMap<String, String>,
    /// Of bands, by band (from 0) and role: `description`, `scale`, `offset`, `colorinterp`, `unittype`.
    pub bands: BTreeMap<(usize, String), String>,
}

impl GdalMetadata {
    /// What can be understood of the text; what cannot is no reason to refuse the pixels.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        if text.len() > LARGEST_BYTES {
            return found;
        }
        let mut reader = Reader::from_str(text);
        let mut item: Option<Item> = None;
        loop {
            match reader.read_event() {
                Ok(Event::Start(start)) if start.name().as_ref() == b"Item" => {
                    let mut new = Item::default();
                    for attribute in start.attributes().flatten() {
                        let value = String::from_utf8_lossy(&attribute.value);
                        let value = quick_xml::escape::unescape(&value).map(|value| value.into_owned());
                        let value = value.unwrap_or_default();
                        match attribute.key.as_ref() {
                            b"name" => new.name = value,
                            b"sample" => new.band = value.parse().ok(),
                            b"role" => new.role = value.to_ascii_lowercase(),
                            b"domain" => new.domain = value,
                            _ => {}
                        }
                    }
                    item = Some(new);
                }
                Ok(Event::Text(text)) => {
                    if let (Some(item), Ok(text)) = (&mut item, text.decode()) {
                        item.value += &text;
                    }
                }
                Ok(Event::GeneralRef(reference)) => {
                    if let (Some(item), Ok(name)) = (&mut item, reference.decode())
                        && let Ok(text) = quick_xml::escape::unescape(&format!("&{name};"))
                    {
                        item.value += &text;
                    }
                }
                Ok(Event::End(end)) if end.name().as_ref() == b"Item" => {
                    if let Some(item) = item.take() {
                        found.note(item);
                    }
                }
                Ok(Event::Eof) | Err(_) => return found,
                Ok(_) => {}
            }
        }
    }

    fn note(&mut self, mut item: Item) {
        // GDAL escapes values twice; other writers once, so that a lone `&` is one.
        for (entity, character) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")] {
            item.value = item.value.replace(entity, character);
        }
        match item.band {
            Some(band) if !item.role.is_empty() => {
                self.bands.insert((band, item.role), item.value);
            }
            None if item.domain.is_empty() => {
                self.items.insert(item.name, item.value);
            }
            _ => {}
        }
    }

    /// What is known of a band.
    pub fn of_band(&self, band: usize, role: &str) -> Option<&str> {
        self.bands.get(&(band, role.to_string())).map(String::as_str)
    }
}

#[derive(Default)]
struct Item {
    name: String,
    band: Option<usize>,
    role: String,
    domain: String,
    value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_bands_are_told_apart() {
        let text = r#"<GDALMetadata>
            <Item name="ACQUIRED">2024 &amp;lt;June&amp;gt; &amp; July</Item>
            <Item name="DESCRIPTION" sample="1" role="description">B03 &amp;quot;green&amp;quot;</Item>
            <Item name="SCALE" sample="0" role="scale">0.0001</Item>
            <Item name="STATISTICS_MEAN" sample="0">12</Item>
            <Item name="X" domain="IMAGE_STRUCTURE">y</Item>
        </GDALMetadata>"#;
        let found = GdalMetadata::parse(text);
        assert_eq!(found.items, BTreeMap::from([("ACQUIRED".to_string(), "2024 <June> & July".to_string())]));
        assert_eq!(found.of_band(1, "description"), Some("B03 \"green\""));
        assert_eq!(found.of_band(0, "scale"), Some("0.0001"));
        assert_eq!(found.bands.len(), 2);
    }

    #[test]
    fn nonsense_is_no_metadata() {
        for text in
            ["", "<", "<Item", "<Item name=\"a\">", "<Item name=a>b</Item>", "&&&;<>", "<Item sample=\"-1\">x</Item>"]
        {
            let found = GdalMetadata::parse(text);
            assert!(found.bands.is_empty(), "{text}");
        }
    }
}
