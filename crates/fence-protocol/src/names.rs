//! Names that come from outside and get into paths, argument lists and log lines.
//!
//! One constructor has all rules of a type; a value of the type needs no further check.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NameError {
    /// The text is empty.
    Empty,
    /// The text has more bytes than the limit given here.
    TooLong(usize),
    /// The text starts with this character, which would make it an option or a hidden file.
    Start(char),
    /// The text contains this character, which is not allowed in a name.
    Character(char),
    /// The text contains "..", a step up in a path.
    PathPart,
    /// The text is not a UUID of the form 8-4-4-4-12.
    NotUuid,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Empty => f.write_str("it is empty"),
            NameError::TooLong(max) => write!(f, "it is longer than {max} bytes"),
            NameError::Start(c) => write!(f, "it starts with {}", shown(*c)),
            NameError::Character(c) => write!(f, "it contains {}", shown(*c)),
            NameError::PathPart => f.write_str("it contains \"..\""),
            NameError::NotUuid => f.write_str("it is not a UUID (8-4-4-4-12 hexadecimal digits)"),
        }
    }
}

impl std::error::Error for NameError {}

/// A character for a message: itself if it is visible, else its number.
fn shown(c: char) -> String {
    match c {
        '\'' => "\"'\"".to_owned(),
        c if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() => format!("'{c}'"),
        c => c.escape_unicode().to_string(),
    }
}

/// The name of a target (Pacemaker's `plug`): one word, safe as a path component and as an
/// argument.
///
/// ASCII letters and digits and ``._-:@+,=~#%`` ; no `-` or `.` at the start, no `..`, at most 253
/// bytes (the longest DNS name). Case is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// The longest target name, in bytes: the longest DNS name.
pub(crate) const NODE_NAME_BYTES_MAX: usize = 253;

impl NodeName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The common part of all names of one machine: the name without its domain, in lower case.
    /// `n3`, `N3` and `n3.example.com` are one machine. An address has no domain.
    pub fn machine(&self) -> String {
        let name = self.0.trim_end_matches('.');
        let (host, domain) = name.split_once('.').unwrap_or((name, ""));
        let last = domain.rsplit('.').next().unwrap_or_default();
        let is_domain = last.bytes().any(|byte| byte.is_ascii_alphabetic());
        let machine = if is_domain { host } else { name };
        machine.to_ascii_lowercase()
    }

    /// Whether both names can be names of one node: they differ at most by case, or one of them has
    /// no domain. `n3.a.org` and `n3.b.org` are two nodes, although [`NodeName::machine`] is the
    /// same.
    pub fn may_be(&self, other: &NodeName) -> bool {
        let [name, other_name] =
            [self, other].map(|name| name.0.trim_end_matches('.').to_ascii_lowercase());
        let machine = self.machine();
        name == other_name
            || (machine == other.machine() && (name == machine || other_name == machine))
    }
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:@+,=~#%".contains(c);
        check(text, &['.', '-'], NODE_NAME_BYTES_MAX, allowed)?;
        Ok(NodeName(text.to_owned()))
    }
}

/// The identity of one request: a UUID, kept as the client wrote it.
///
/// The case of its letters has no meaning: two spellings are equal, and have the same [`canonical`]
/// form, which names every file of the identity. The answer has the client's own spelling.
///
/// [`canonical`]: RequestId::canonical
#[derive(Clone, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// A new random identity (UUID version 4).
    pub fn random() -> Self {
        RequestId(uuid::Uuid::new_v4().hyphenated().to_string())
    }

    /// The identity as the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The common form of all spellings of the identity: in lower case.
    pub fn canonical(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether `text` is a spelling of this identity.
    pub fn is(&self, text: &str) -> bool {
        self.0.eq_ignore_ascii_case(text)
    }

    fn canonical_bytes(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for RequestId {}

impl PartialOrd for RequestId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RequestId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical_bytes().cmp(other.canonical_bytes())
    }
}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical_bytes().for_each(|byte| byte.hash(state));
    }
}

impl FromStr for RequestId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // The length excludes the other forms that the library reads (braces, "urn:", no hyphens).
        if text.len() != 36 || uuid::Uuid::try_parse(text).is_err() {
            return Err(NameError::NotUuid);
        }
        Ok(RequestId(text.to_owned()))
    }
}

/// The name N of a record: the request is `N.json`, and so is its answer.
///
/// Any printable name that is neither hidden nor a path: other clients choose their own names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordName(String);

/// The longest N: `.N.json.tmp` must fit into the 255 bytes of a file name.
const RECORD_NAME_BYTES_MAX: usize = 255 - ".".len() - ".json.tmp".len();

impl RecordName {
    /// N of the file name `N.json`, or `None` if a file of this name is no record.
    pub fn from_file_name(file_name: &str) -> Option<Self> {
        file_name.strip_suffix(".json")?.parse().ok()
    }

    /// The name that our agent uses by default: the request's identity, in its canonical form.
    pub fn of_id(id: &RequestId) -> Self {
        RecordName(id.canonical())
    }

    /// `<target>-<request_id>`, which some responders expect.
    pub fn of_target_and_id(target: &NodeName, id: &RequestId) -> Result<Self, NameError> {
        format!("{}-{}", target.0, id.canonical()).parse()
    }

    /// N itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `N.json`.
    pub fn file_name(&self) -> String {
        format!("{}.json", self.0)
    }

    /// `.N.json.tmp`, the name of a record before its rename.
    pub fn temporary(&self) -> String {
        format!(".{}.json.tmp", self.0)
    }
}

impl FromStr for RecordName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |c: char| !c.is_control() && c != '/' && c != '\\';
        check(text, &['.'], RECORD_NAME_BYTES_MAX, allowed)?;
        Ok(RecordName(text.to_owned()))
    }
}

macro_rules! display_as_text {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
display_as_text!(NodeName RequestId RecordName);

fn check(
    text: &str,
    forbidden_start: &[char],
    bytes_max: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    match text.chars().next() {
        None => return Err(NameError::Empty),
        Some(first) if forbidden_start.contains(&first) => return Err(NameError::Start(first)),
        Some(_) => {}
    }
    if text.len() > bytes_max {
        return Err(NameError::TooLong(bytes_max));
    }
    if let Some(character) = text.chars().find(|c| !allowed(*c)) {
        return Err(NameError::Character(character));
    }
    if text.contains("..") {
        return Err(NameError::PathPart);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_name_is_one_safe_word() {
        for good in ["n3", "compute-node-16", "a.b.example", "Rack1:5", &"x".repeat(253)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good}");
        }
        let long = "x".repeat(254);
        for bad in [
            "", "-x", ".x", "a/b", "a\\b", "..", "a..b", "a b", "a\n", "a\0", "é", "a;b", "$(x)",
            &long,
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_one_machine_differ_by_case_and_domain_alone() {
        let machine = |name: &str| name.parse::<NodeName>().unwrap().machine();
        for name in ["n3", "N3", "n3.example.com", "N3.Example.COM", "n3.cluster.local."] {
            assert_eq!(machine(name), "n3", "{name}");
        }
        for name in ["n3-1", "n31", "10.0.0.3", "10.0.0.4", "fe80::3", "rack1.3", "rack1.4"] {
            assert_eq!(machine(name), name);
        }
    }

    #[test]
    fn two_domains_are_two_nodes() {
        let may_be = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|name| name.parse::<NodeName>().unwrap());
            assert_eq!(a.may_be(&b), b.may_be(&a));
            a.may_be(&b)
        };
        for other in ["n3", "N3", "n3.example.com", "N3.Example.COM."] {
            assert!(may_be("n3", other), "{other}");
        }
        assert!(may_be("n3.example.com", "N3.EXAMPLE.com."));
        for (a, b) in [
            ("n3.dc1.example", "n3.dc2.example"),
            ("rack1.n3", "rack1.n4"),
            ("n3", "n4"),
            ("10.0.0.3", "10.0.0.4"),
        ] {
            assert!(!may_be(a, b), "{a} {b}");
        }
    }

    #[test]
    fn a_request_id_is_a_hyphenated_uuid() {
        assert!("67e55044-10b1-426f-9247-bb680e5fe0c8".parse::<RequestId>().is_ok());
        for bad in [
            "",
            "67e5504410b1426f9247bb680e5fe0c8",
            "{67e55044-10b1-426f-9247-bb680e5fe0c}",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "urn:uuid:67e55044-10b1-426f-9247-bb680e5fe0c8",
            " 67e55044-10b1-426f-9247-bb680e5fe0c8",
            "../../../../../../../../../etc/passwd",
            "67e55044-10b1-426f-9247-bb680e5fe0cg",
        ] {
            assert!(bad.parse::<RequestId>().is_err(), "{bad:?}");
        }
        assert!(RequestId::random().as_str().parse::<RequestId>().is_ok());
    }

    #[test]
    fn the_case_of_its_letters_makes_no_other_identity_and_is_kept() {
        let ids: Vec<RequestId> = [
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
            "67E55044-10B1-426F-9247-BB680E5FE0C8",
            "67e55044-10B1-426f-9247-Bb680e5FE0c8",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        let target: NodeName = "N3".parse().unwrap();

        let by_order: std::collections::BTreeSet<_> = ids.iter().collect();
        let by_hash: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!((by_order.len(), by_hash.len()), (1, 1));
        for id in &ids {
            assert_eq!(*id, ids[0]);
            assert!(id.is(ids[1].as_str()));
            assert_eq!(RecordName::of_id(id).as_str(), ids[0].as_str());
            let both = RecordName::of_target_and_id(&target, id).unwrap();
            assert_eq!(both.as_str(), format!("N3-{}", ids[0]));
        }
        assert_eq!(ids[1].as_str(), "67E55044-10B1-426F-9247-BB680E5FE0C8");
        assert_ne!(ids[0], "67e55044-10b1-426f-9247-bb680e5fe0c9".parse().unwrap());
    }

    #[test]
    fn only_visible_json_files_are_records() {
        assert_eq!(RecordName::from_file_name("a.json").unwrap().as_str(), "a");
        for no in [".a.json", ".a.json.tmp", "a.tmp", ".json", "json", "a..b.json", "a\n.json"] {
            assert!(RecordName::from_file_name(no).is_none(), "{no:?}");
        }
    }

    #[test]
    fn a_name_that_would_not_fit_into_a_file_name_is_refused() {
        let id = RequestId::random();
        let fits: NodeName = "x".repeat(245 - 37).parse().unwrap();
        let too_long: NodeName = "x".repeat(245 - 36).parse().unwrap();

        assert!(RecordName::of_target_and_id(&fits, &id).is_ok());
        assert!(RecordName::of_target_and_id(&too_long, &id).is_err());
        assert!(RecordName::of_target_and_id(&fits, &id).unwrap().temporary().len() <= 255);
    }
}
