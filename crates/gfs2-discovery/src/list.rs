//! A list of `kubectl get --output=json`, read as it arrives.
//!
//! The list of a large system has hundreds of megabytes, but only some names matter. So the reader
//! cuts the list into items, parses each item separately, and drops it after taking its names. It
//! keeps the frame around the items and parses it at the end: a list that was cut short is an
//! error.

use serde_json::Value;

use crate::nnf::Objects;

/// Takes the bytes of one list.
#[derive(Debug, Default)]
pub(crate) struct ListReader {
    /// The list with an empty object in place of each item.
    frame: Vec<u8>,
    /// The part of the current item that has arrived.
    item: Vec<u8>,
    is_in_item: bool,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    objects: Objects,
    problem: Option<String>,
    /// The position in the text before the list, and the length of that text.
    before: Before,
    before_bytes: usize,
}

/// The position in the warnings before the list, which kubectl or its credentials program writes.
/// The list starts at the first line that starts an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Before {
    #[default]
    LineStart,
    InLine,
    Passed,
}

/// The depth of the items: below the list's object and its array.
const ITEM_DEPTH: usize = 2;

/// The most bytes of one item, of the frame around the items, or of another program's output: the
/// CIB of a large cluster has some megabytes.
pub(crate) const PART_BYTES_MAX: usize = 16 * 1024 * 1024;

impl ListReader {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let (before, list) = bytes.split_at(self.text_before(bytes));
        self.before_bytes = self.before_bytes.saturating_add(before.len());
        self.feed_list(list);
    }

    /// The number of bytes before the list.
    fn text_before(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            self.before = match (self.before, byte) {
                (Before::Passed, _) => return at,
                (Before::LineStart, b'{') => {
                    self.before = Before::Passed;
                    return at;
                }
                (_, b'\n') => Before::LineStart,
                (Before::LineStart, byte) if byte.is_ascii_whitespace() => Before::LineStart,
                _ => Before::InLine,
            };
        }
        bytes.len()
    }

    fn feed_list(&mut self, bytes: &[u8]) {
        let mut taken = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if self.is_in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.is_in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.is_in_string = true,
                b'{' | b'[' => {
                    if *byte == b'{' && self.depth == ITEM_DEPTH && !self.is_in_item {
                        self.frame.extend_from_slice(&bytes[taken..at]);
                        self.frame.extend_from_slice(b"{}");
                        taken = at;
                        self.is_in_item = true;
                    }
                    self.depth += 1;
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.is_in_item && self.depth == ITEM_DEPTH {
                        self.item.extend_from_slice(&bytes[taken..=at]);
                        taken = at + 1;
                        self.take_item();
                    }
                }
                _ => {}
            }
        }
        let rest = &bytes[taken..];
        if self.is_in_item {
            self.item.extend_from_slice(rest);
        } else {
            self.frame.extend_from_slice(rest);
        }
    }

    /// Whether a part of the list exceeds [`PART_BYTES_MAX`].
    pub(crate) fn is_too_long(&self) -> bool {
        self.before_bytes.max(self.frame.len()).max(self.item.len()) > PART_BYTES_MAX
    }

    /// The objects of the list, if the list is whole.
    pub(crate) fn finish(self) -> Result<Objects, String> {
        let frame = self.problem.map_or_else(|| parsed(&self.frame), Err);
        let frame = frame.map_err(|why| format!("kubectl's list is not valid JSON: {why}"))?;
        frame["items"].as_array().map(|_| self.objects).ok_or("kubectl wrote no list".to_owned())
    }

    /// Takes the names of the item that has ended.
    fn take_item(&mut self) {
        match parsed(&self.item) {
            Ok(item) => self.objects.add(&item),
            Err(why) => self.problem = self.problem.take().or(Some(why)),
        }
        self.item.clear();
        self.is_in_item = false;
    }
}

/// A value in JSON. Not generic: so the parser is compiled with `serde_json`, optimised.
fn parsed(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: serde_json::Error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], chunk: usize) -> Result<Objects, String> {
        let mut reader = ListReader::default();
        text.chunks(chunk).for_each(|bytes| reader.feed(bytes));
        reader.finish()
    }

    #[test]
    fn where_the_bytes_are_cut_does_not_matter() {
        let text = r#"{"apiVersion":"v1","metadata":{"a":{"b":[{}]},"resourceVersion":""},
            "items":[ {"kind":"Storage","status":{"access":{"computes":[{"name":"a\"}]"},
            {"name":"b\\"},{"name":"ü"}],"servers":[{"name":"r"}]}}}, 7, null,{},
            {"kind":"Storage","status":{"access":{"computes":[{"name":"c"}]}}}],"kind":"List"}"#;
        let whole = read(text.as_bytes(), text.len()).unwrap();

        for name in ["a\"}]", "b\\", "ü", "c", "r"] {
            assert!(whole.clone().into_nodes().contains(name), "{name}");
        }
        for chunk in 1..text.len() {
            assert_eq!(read(text.as_bytes(), chunk).as_ref(), Ok(&whole), "{chunk}");
        }
    }

    #[test]
    fn what_is_no_whole_list_is_refused() {
        let whole = r#"{"items":[{"kind":"Storage"},{"kind":"Storage"}]}"#;
        assert!(read(whole.as_bytes(), 7).is_ok());
        for length in 0..whole.len() {
            assert!(read(&whole.as_bytes()[..length], 7).is_err(), "{length}");
        }
        for text in [
            "null",
            "{}",
            "[]",
            "[{}]",
            r#"{"items":{}}"#,
            r#"{"items":[}"#,
            r#"{"items":[{]}]}"#,
            r#"{"items":[{"a":1 2}]}"#,
            r#"{"items":[{}]}]"#,
            r#"{"items":[{}{}]}"#,
            r#"{"items":[1{}]}"#,
        ] {
            assert!(read(text.as_bytes(), 5).is_err(), "{text}");
        }
        assert!(read(b"{\"items\":[{\"kind\":\"\xff\"}]}", 5).is_err());
    }

    #[test]
    fn text_before_the_list_is_passed_over() {
        let list =
            r#"{"items":[{"kind":"Storage","status":{"access":{"computes":[{"name":"n"}]}}}]}"#;
        for before in [
            "",
            "\n \r\n",
            "Warning: v1beta1 is deprecated\n",
            "W0101 12:00:00 cred.go:7] \"token\" {expires: [soon\n} see\n\n",
            "a\rb {\n  ",
            "[\n\"\n",
        ] {
            let text = format!("{before}{list}\n");
            for chunk in 1..text.len() {
                let nodes = read(text.as_bytes(), chunk).unwrap().into_nodes();
                assert!(nodes.contains("n"), "{before:?} {chunk}");
            }
        }
        for text in
            ["Warning: no list\n", "[\n{\"items\":[]}\n]", "x {\"items\":[]}", "{\n{\"items\":[]}"]
        {
            assert!(read(text.as_bytes(), 3).is_err(), "{text}");
        }
    }

    #[test]
    fn a_list_may_be_long_and_its_parts_may_not() {
        let mut reader = ListReader::default();
        reader.feed(b"{\"items\":[{}");
        let item = format!(",{{\"kind\":\"Other\",\"spec\":\"{}\"}}", "x".repeat(1 << 20));
        for _ in 0..40 {
            reader.feed(item.as_bytes());
            assert!(!reader.is_too_long());
        }
        reader.feed(b"]}");
        assert!(reader.finish().is_ok());

        for start in ["", "{\"items\":[", "{\"items\":[{\"kind\":\""] {
            let mut reader = ListReader::default();
            reader.feed(start.as_bytes());
            reader.feed(&vec![b'0'; PART_BYTES_MAX + 1]);
            assert!(reader.is_too_long(), "{start}");
        }
    }
}
