//! The project's own rules for its text: the length of files, functions and lines, and what needs a
//! reason.
//!
//! Each rule is a function of one file's text, so that a bad text can be tested against each rule.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// The maximum number of lines in a Rust file.
const FILE_LINES_MAX: usize = 500;

/// The maximum number of lines in a function.
const FUNCTION_LINES_MAX: usize = 70;

/// The maximum number of columns in a line, outside tables and links.
const COLUMNS_MAX: usize = 120;

#[test]
fn every_file_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut findings = Vec::new();
    let mut seen = 0;
    for path in files(root) {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display().to_string();
        seen += 1;
        for (line, problem) in problems(&name, &text) {
            findings.push(format!("{name}:{line}: {problem}"));
        }
    }
    assert!(seen > 100, "only {seen} files were found below {}", root.display());
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The problems of the file `name`, each with its line.
fn problems(name: &str, text: &str) -> Vec<(usize, String)> {
    let mut found = long_lines(name, text);
    if is_kind(name, "rs") {
        found.extend(long_file(text));
        found.extend(long_functions(text));
        found.extend(no_header(text));
        found.extend(unexplained_allowances(text));
        if is_test(name) {
            found.extend(unexplained_sleeps(text));
        }
    }
    found
}

/// All text files that people write: generated files, seeds and captures are not among them.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["agent", "crates", "examples", "fuzz", "man", "tests", "watcher"] {
        collect(&root.join(directory), &mut found);
    }
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && is_written(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["target", "seeds", "captures", "artifacts", "corpus"].contains(&name) {
                collect(&path, found);
            }
        } else if is_written(&path) {
            found.push(path);
        }
    }
}

fn is_written(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs" || extension == "md")
}

fn is_test(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/")
}

fn is_kind(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

fn long_lines(name: &str, text: &str) -> Vec<(usize, String)> {
    let is_markdown = is_kind(name, "md");
    let is_exempt = |line: &str| is_markdown && line.trim_start().starts_with('|');
    let long = lines(text).filter(|(_, line)| !is_exempt(line));
    long.filter_map(|(number, line)| {
        let columns = line.chars().count();
        (columns > COLUMNS_MAX)
            .then(|| (number, format!("{columns} columns, {COLUMNS_MAX} at most")))
    })
    .collect()
}

fn long_file(text: &str) -> Option<(usize, String)> {
    let count = text.lines().count();
    (count > FILE_LINES_MAX).then(|| (count, format!("{count} lines, {FILE_LINES_MAX} at most")))
}

/// rustfmt ends a function with a brace in the column in which the function begins.
fn long_functions(text: &str) -> Vec<(usize, String)> {
    let all: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in all.iter().enumerate() {
        if !is_function(line) {
            continue;
        }
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", " ".repeat(indent));
        let length = all[index..].iter().position(|line| *line == end).map_or(1, |end| end + 1);
        let is_declared = line.ends_with(';') || line.ends_with('}');
        if length > FUNCTION_LINES_MAX && !is_declared {
            found.push((
                index + 1,
                format!("a function of {length} lines, {FUNCTION_LINES_MAX} at most"),
            ));
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let words = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\""];
    let first = line.split_whitespace().find(|word| !words.contains(word));
    first == Some("fn")
}

fn no_header(text: &str) -> Option<(usize, String)> {
    let has_header = text.starts_with("//!") || text.starts_with("#!");
    (!has_header).then(|| (1, "no header (//!) that says what the module is for".to_owned()))
}

fn unexplained_allowances(text: &str) -> Vec<(usize, String)> {
    let all: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in all.iter().enumerate() {
        let line = line.trim_start();
        let is_allowance = ["#[allow(", "#![allow(", "#[expect(", "#![expect("]
            .iter()
            .any(|attribute| line.starts_with(attribute));
        let attribute = all[index..].iter().take(8).copied().collect::<Vec<_>>().join(" ");
        let attribute = attribute.split_once(")]").map_or("", |(attribute, _)| attribute);
        if is_allowance && !attribute.contains("reason = ") {
            found.push((index + 1, "an allowance without a reason".to_owned()));
        }
    }
    found
}

/// A sleep in a test needs a comment in its line or in one of the three lines before it.
fn unexplained_sleeps(text: &str) -> Vec<(usize, String)> {
    let all: Vec<&str> = text.lines().collect();
    let is_sleep = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        code.contains("thread::sleep(") || code.contains(" sleep(")
    };
    let is_explained =
        |index: usize| all[index.saturating_sub(3)..=index].iter().any(|line| line.contains("//"));
    let sleeps = (0..all.len()).filter(|index| is_sleep(all[*index]) && !is_explained(*index));
    sleeps.map(|index| (index + 1, "a sleep without a word why".to_owned())).collect()
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

mod each_rule_can_fail {
    use super::problems;

    #[track_caller]
    fn assert_finds(name: &str, text: &str, expected: &[(usize, &str)]) {
        let found = problems(name, text);
        let starts = |(line, text): &(usize, &str), found: &(usize, String)| {
            found.0 == *line && found.1.starts_with(text)
        };
        let is_same = found.len() == expected.len()
            && expected.iter().zip(&found).all(|(expected, found)| starts(expected, found));
        assert!(is_same, "{found:?}");
    }

    #[test]
    fn files_functions_and_lines_have_a_length() {
        let line = |columns: usize| format!("//! {}\n", "x".repeat(columns - 4));
        assert_finds("agent/src/a.rs", &line(120), &[]);
        assert_finds("agent/src/a.rs", &line(121), &[(1, "121 columns")]);
        assert_finds("README.md", &"x".repeat(121), &[(1, "121 columns")]);
        assert_finds("README.md", &format!("| {} |", "x".repeat(121)), &[]);
        let file = |lines: usize| format!("//! a\n{}", "\n".repeat(lines - 1));
        assert_finds("a.rs", &file(500), &[]);
        assert_finds("a.rs", &file(501), &[(501, "501 lines")]);
        let function = |lines: usize| {
            format!(
                "//! a\n    pub(crate) fn a() {{\n{}    }}\n",
                "        b();\n".repeat(lines - 2)
            )
        };
        assert_finds("a.rs", &function(70), &[]);
        assert_finds("a.rs", &function(71), &[(2, "a function of 71 lines")]);
    }

    #[test]
    fn headers_and_reasons_for_allowances_and_sleeps_are_required() {
        assert_finds("a.rs", "use b;\n", &[(1, "no header")]);
        assert_finds("a.rs", "//! a\n#[allow(b)]\n", &[(2, "an allowance")]);
        assert_finds("a.rs", "//! a\n#[allow(b, reason = \"c\")]\n", &[]);
        assert_finds("a.rs", "//! a\n#![expect(\n    b,\n    reason = \"c\"\n)]\n", &[]);
        let sleep = "//! a\n\n\n\n    thread::sleep(b);\n";
        assert_finds("tests/a.rs", sleep, &[(5, "a sleep")]);
        assert_finds("agent/src/a.rs", sleep, &[]);
        assert_finds("tests/a.rs", "//! a\n\n\n\n    // c\n    thread::sleep(b);\n", &[]);
    }
}
