//! JSON of strangers: what it would take in memory is known before it is parsed.

use serde_json::Value;

/// What a parsed document may take: 2 GiB, which is a collection of some ten thousand items, or some eight million
/// vertices.
const MOST_MEMORY_BYTES: u64 = 2 << 30;
/// An object with one member is a node of a tree with room for eleven, and their names.
const OBJECT_BYTES: u64 = 11 * (size_of::<Value>() + size_of::<String>()) as u64;
/// The smallest room that is made for elements of a list.
const LIST_BYTES: u64 = 4 * size_of::<Value>() as u64;
/// Room grows by doubling.
const ELEMENT_BYTES: u64 = 2 * size_of::<Value>() as u64;

/// Parses JSON if it takes a bounded amount of memory; how deep it is nested, serde_json limits.
///
/// # Errors
/// What is wrong with it, as the end of a sentence.
pub fn parse_json(bytes: &[u8]) -> Result<Value, String> {
    let needed_bytes = memory_bytes(bytes);
    if needed_bytes > MOST_MEMORY_BYTES {
        let mib = |bytes: u64| bytes >> 20;
        return Err(format!(
            "it would take {} MiB of memory, and {} MiB are allowed: divide it, or write it as Parquet",
            mib(needed_bytes),
            mib(MOST_MEMORY_BYTES)
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// An upper bound: marks in texts count too.
fn memory_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, byte| {
        sum + match byte {
            b'{' => OBJECT_BYTES,
            b'[' => LIST_BYTES,
            b',' => ELEMENT_BYTES,
            _ => 0,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_too_much_memory_is_refused_before_it_is_parsed() {
        assert_eq!(parse_json(b"[1, {\"a\": []}]").unwrap(), serde_json::json!([1, {"a": []}]));
        let lists = ["[", &"[],".repeat(16 << 20), "0]"].concat();
        let refused = parse_json(lists.as_bytes());
        assert!(refused.is_err_and(|refused| refused.contains("MiB of memory, and 2048 MiB are allowed")));
        assert!(parse_json(b"{").unwrap_err().contains("EOF"));
        // Neither this nor a longer one fills the stack.
        assert!(parse_json("[".repeat(100_000).as_bytes()).unwrap_err().contains("recursion limit"));
    }
}
