//! Passwords and keys: their sources, and how they stay out of every text for people.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fence_spool::{FileError, TrustedFile};

/// The source of a secret. Each use reads it again, so a change takes effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that only its owner can read.
    File(PathBuf),
    /// A variable of the watcher's environment.
    Environment(String),
    /// A credential that systemd gives the service: a file in `$CREDENTIALS_DIRECTORY`
    /// (systemd.exec(5), `LoadCredential=`).
    Credential(String),
}

/// The secrets that no text may show.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<Secret>);

/// A secret. It is never displayed: only [`Secret::expose`] returns its text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl SecretSource {
    /// Whether this process does not have the secret, although another process may have it: systemd
    /// and a unit's environment give secrets to the service, and not to a shell.
    pub fn is_for_another(&self) -> bool {
        match self {
            SecretSource::File(_) => false,
            SecretSource::Environment(name) => std::env::var_os(name).is_none(),
            SecretSource::Credential(name) => credential(name)
                .is_none_or(|path| matches!(TrustedFile::find(&path), Err(FileError::Missing))),
        }
    }

    /// Reads the secret: one line of at most 4096 bytes, without the newline at its end.
    ///
    /// The error names the source and what to do, and never contains a part of the secret.
    pub fn read(&self) -> Result<Secret, String> {
        let found = match self {
            SecretSource::File(path) => read_file(path),
            SecretSource::Environment(name) => std::env::var(name)
                .map_err(|_| format!("set the variable {name} where fence-watcher is started")),
            SecretSource::Credential(name) => match credential(name) {
                Some(path) => read_file(&path),
                None => Err(format!(
                    "this process has no credentials: add LoadCredential={name}:FILE to \
                     the unit of fence-watcher"
                )),
            },
        };
        found
            .and_then(|text| Secret::new(&text))
            .map_err(|problem| format!("cannot read {self}: {problem}"))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "the secret in '{}'", path.display()),
            SecretSource::Environment(name) => write!(f, "the secret in variable {name}"),
            SecretSource::Credential(name) => write!(f, "the credential '{name}'"),
        }
    }
}

/// The path of the credential `name`, if systemd gave this process credentials.
fn credential(name: &str) -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| Path::new(&directory).join(name))
}

fn read_file(path: &Path) -> Result<String, String> {
    let file = TrustedFile::find(path).map_err(|error| error.to_string())?;
    if file.is_readable_by_others() {
        return Err(format!("others can read it: run `chmod 0600 '{}'`", path.display()));
    }
    let bytes = file.read(SECRET_BYTES_MAX).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

impl Secret {
    /// The secret in `text`, which may end with a newline.
    pub fn new(text: &str) -> Result<Self, String> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err("it is empty".to_owned());
        }
        if line.len() > SECRET_BYTES_MAX {
            return Err(format!("it has more than {SECRET_BYTES_MAX} bytes"));
        }
        // An agent that reads options line by line would read a second line as another option.
        if line.contains(char::is_control) {
            return Err("it has more than one line, or control characters".to_owned());
        }
        Ok(Secret(line.to_owned()))
    }

    /// The secret itself, for the device alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Every form in which a device may repeat the secret.
    fn forms(&self) -> [String; 3] {
        let words: Vec<&str> = self.0.split_whitespace().collect();
        let quoted = serde_json::Value::from(self.0.as_str()).to_string();
        [self.0.clone(), words.join(" "), quoted[1..quoted.len() - 1].to_owned()]
    }

    /// The parts of `words` that contain the secret, each one or several whole words.
    fn places_in(&self, words: &str) -> Vec<Range<usize>> {
        let forms = self.forms().into_iter().filter(|form| !form.is_empty());
        let found = forms.flat_map(|form| {
            let parts = words.match_indices(&form).map(|(at, part)| at..at + part.len());
            parts.map(|part| whole_words(words, part)).collect::<Vec<_>>()
        });
        found.collect()
    }
}

/// `range` in `text`, extended to whole words.
fn whole_words(text: &str, range: Range<usize>) -> Range<usize> {
    let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
    let length = |c: char| c.len_utf8();
    let before: usize = text[..range.start].chars().rev().take_while(is_word).map(length).sum();
    let after: usize = text[range.end..].chars().take_while(is_word).map(length).sum();
    range.start - before..range.end + after
}

impl Secrets {
    /// Hides `secret` as well from now on.
    pub fn add(&mut self, secret: Secret) {
        self.0.push(secret);
    }

    /// The words of a device, without the secrets. This hides each whole word that contains a
    /// secret: the rest of the word would show a part of the secret. A short secret may be a part
    /// of any word, so this hides all words.
    pub fn hide(&self, words: &str) -> String {
        let is_short = |secret: &Secret| secret.0.chars().count() < SECRET_CHARS_MIN;
        if self.0.iter().any(is_short) && !words.trim().is_empty() {
            return HIDDEN.to_owned();
        }
        let mut places: Vec<_> = self.0.iter().flat_map(|s| s.places_in(words)).collect();
        places.sort_unstable_by_key(|place| place.start);
        let (mut shown, mut end) = (String::with_capacity(words.len()), 0);
        for place in places {
            if place.start >= end {
                shown.extend([&words[end..place.start], HIDDEN]);
            }
            end = end.max(place.end);
        }
        shown + &words[end..]
    }

    /// A text of this program for people: its quotations of a device are without the secrets.
    pub fn shown(&self, text: &str) -> String {
        self.rewrite(text, |words| words)
    }

    /// The same with marked quotations, for a caller that hides other secrets.
    pub fn hide_in_quotes(&self, text: &str) -> String {
        self.rewrite(text, |words| quoted(&words))
    }

    fn rewrite(&self, text: &str, change: impl Fn(String) -> String) -> String {
        let mut rewritten = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((ours, after)) = rest.split_once(QUOTE.0) {
            // A cut quotation ends with the text.
            let (words, after) = after.split_once(QUOTE.1).unwrap_or((after, ""));
            rewritten.extend([ours, &change(self.hide(words))]);
            rest = after;
        }
        rewritten + rest
    }
}

/// Whether `text` quotes a device.
pub(crate) fn has_quotation(text: &str) -> bool {
    text.contains(QUOTE.0)
}

/// Marks the words of a device in a text of this program. [`Secrets::shown`] prepares the text for
/// people.
///
/// Secrets are hidden only in quotations. In this program's own text, which is known, a hidden word
/// would reveal a password that is the same word.
pub fn quoted(words: &str) -> String {
    let words = words.replace([QUOTE.0, QUOTE.1], "");
    format!("{}{words}{}", QUOTE.0, QUOTE.1)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl FromIterator<Secret> for Secrets {
    fn from_iter<I: IntoIterator<Item = Secret>>(secrets: I) -> Self {
        Secrets(secrets.into_iter().collect())
    }
}

const SECRET_BYTES_MAX: usize = 4096;

/// Shorter secrets, in characters, hide all words.
const SECRET_CHARS_MIN: usize = 4;

/// The replacement of a secret.
const HIDDEN: &str = "***";

/// The marks around the words of a device (start and end of text). [`quoted`] removes them from the
/// words, so no device can write them.
const QUOTE: (char, char) = ('\u{2}', '\u{3}');

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions, Permissions};
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let unique = format!("fence-secret-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(unique);
            fs::create_dir(&path).unwrap();
            Directory(path)
        }

        fn file(&self, name: &str, mode: u32, text: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            file.as_mut().unwrap().write_all(text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_secret_is_the_only_line_of_a_file_that_only_its_owner_reads() {
        let directory = Directory::new("read");
        let read = |path: PathBuf| SecretSource::File(path).read();

        for (name, text) in [("a", &b"s3cret\n"[..]), ("b", b"s3cret"), ("c", b"s3cret\r\n")] {
            assert_eq!(read(directory.file(name, 0o600, text)).unwrap().expose(), "s3cret");
        }
        let link = directory.0.join("link");
        symlink("a", &link).unwrap();
        assert_eq!(read(link).unwrap().expose(), "s3cret");

        for (name, mode, text, found) in [
            ("group", 0o640, &b"s3cret"[..], "others can read it: run `chmod 0600"),
            ("world", 0o604, b"s3cret", "others can read it"),
            ("written", 0o620, b"s3cret", "others can write to it"),
            ("empty", 0o600, b"\n", "it is empty"),
            ("lines", 0o600, b"s3cret\naction=on\n", "more than one line"),
            ("binary", 0o600, b"s3cret\xff", "not UTF-8"),
            ("long", 0o600, &[b'x'; 5000], "more than 4096 bytes"),
        ] {
            let problem = read(directory.file(name, mode, text)).unwrap_err();
            assert!(problem.contains(found), "{name}: {problem}");
            assert!(problem.contains(name) && !problem.contains("s3cret"), "{problem}");
        }
        let missing = read(directory.0.join("missing")).unwrap_err();
        assert!(missing.contains("does not exist"), "{missing}");
    }

    #[test]
    fn what_is_not_given_is_said_with_what_to_do() {
        let variable = SecretSource::Environment("NO_SUCH_VARIABLE_OF_OURS".into()).read();
        assert!(variable.unwrap_err().contains("set the variable NO_SUCH_VARIABLE_OF_OURS"));
        let credential = SecretSource::Credential("bmc".into()).read();
        assert!(credential.unwrap_err().contains("LoadCredential=bmc:FILE"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("s3cret").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(***)");
        let secrets = Secrets::from_iter([secret]);
        assert_eq!(secrets.hide("ipmitool -P s3cret: failed"), "ipmitool -P ***: failed");
    }

    fn hidden(secret: &str, words: &str) -> String {
        Secrets::from_iter([Secret::new(secret).unwrap()]).hide(words)
    }

    #[test]
    fn no_part_of_a_word_is_hidden() {
        for (secret, words, shown) in [
            ("wrong", "the password is wrong", "the password is ***"),
            ("pass", "wrong password", "wrong ***"),
            ("word", "-Pword %3Aword, word_2", "-*** %***, ***"),
            ("ünde", "stünden Sünde", "*** ***"),
            ("a b  c", "(a b  c) (a b c)", "(***) (***)"),
            (r#"a"b\c"#, r#"{"Password":"a\"b\\c"}"#, r#"{"Password":"***"}"#),
            ("aaaa", "aaaaaa", "***"),
            ("s3cret", "S3CRET", "S3CRET"),
        ] {
            assert_eq!(hidden(secret, words), shown, "{secret}");
        }
    }

    #[test]
    fn a_short_secret_leaves_no_word() {
        for secret in ["e", "abc", "äöü"] {
            assert_eq!(hidden(secret, "the password is wrong"), "***", "{secret}");
            assert_eq!(hidden(secret, "no"), "***", "{secret}");
            assert_eq!(hidden(secret, " "), " ", "{secret}");
        }
    }

    #[test]
    fn our_own_words_are_shown_whatever_the_secret_is() {
        let text = format!("BMC wrong: the password is wrong ({})", quoted("RAKP \u{3}wrong"));
        for (secret, shown) in [
            ("wrong", "BMC wrong: the password is wrong (RAKP ***)"),
            ("e", "BMC wrong: the password is wrong (***)"),
            ("s3cret", "BMC wrong: the password is wrong (RAKP wrong)"),
        ] {
            let secrets = Secrets::from_iter([Secret::new(secret).unwrap()]);
            assert_eq!(secrets.shown(&text), shown);
            assert_eq!(Secrets::default().shown(&secrets.hide_in_quotes(&text)), shown);
        }
        let cut = Secrets::from_iter([Secret::new("s3cret").unwrap()]).shown("a \u{2}s3cret b");
        assert_eq!(cut, "a *** b");
    }
}
