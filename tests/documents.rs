//! Everything that the documents name exists, and no source contains what is forbidden.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::Path;

#[test]
fn each_threat_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let mut sources = String::new();
    for directory in ["agent", "crates", "tests", "watcher"] {
        each_rust_file(&root().join(directory), &mut |_, source| sources.push_str(source));
    }
    let (_, threats) = document.split_once("| threat | defence | test |").unwrap();
    let rows: Vec<&str> =
        threats.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "{rows:?}");

    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit_once(" | ").unwrap().1;
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            let is_test = sources.contains(&format!("fn {name}("));
            let is_file = name.contains('/') && root().join(name).exists();
            assert!(is_test || is_file, "{name} does not exist: {row}");
        }
    }
}

/// A test that reports a missing tool in its own way passes in CI although it did not run.
#[test]
fn a_test_that_a_machine_cannot_run_is_left_out_by_the_one_helper() {
    let helper = Path::new("tests/common/left_out.rs");
    // In two halves: this file is checked as well.
    let halves = [
        ["var(\"", "CI\""],
        ["var_os(\"", "CI\""],
        [": left", " out"],
        ["\"left", " out"],
        ["\"skip", "ped"],
        ["is_root() {\n", "        return;"],
    ];
    let marks = halves.map(|halves| halves.concat());
    let mut found = Vec::new();
    for directory in ["agent", "crates", "tests", "watcher"] {
        each_rust_file(&root().join(directory), &mut |path, source| {
            let path = path.strip_prefix(root()).unwrap();
            let is_test = path.to_str().unwrap().contains("test");
            if is_test && path != helper && marks.iter().any(|mark| source.contains(mark)) {
                found.push(path.display().to_string());
            }
        });
    }
    assert_eq!(found, [""; 0]);
}

/// The lines of a document outside blocks of code, with their numbers.
fn lines_of_text(document: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(document.lines()).filter(move |(_, line)| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

#[test]
fn a_line_of_text_has_at_most_120_columns() {
    for name in DOCUMENTS {
        let document = fs::read_to_string(root().join(name)).unwrap();
        for (number, line) in lines_of_text(&document) {
            let is_table = line.starts_with('|');
            assert!(is_table || line.chars().count() <= 120, "{name}:{number}: {line}");
        }
    }
}

#[test]
fn each_link_between_the_documents_leads_to_a_heading() {
    for name in DOCUMENTS {
        let document = fs::read_to_string(root().join(name)).unwrap();
        for link in document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let file = if file.is_empty() { name } else { file };
            let text = fs::read_to_string(root().join(file));
            let text = text.unwrap_or_else(|why| panic!("{name}: {link}: {why}"));
            let headings = lines_of_text(&text).filter(|(_, line)| line.starts_with('#'));
            let mut anchors = headings.map(|(_, line)| anchor_of(line));
            assert!(anchor.is_empty() || anchors.any(|it| it == anchor), "{name}: {link}");
        }
    }
}

/// The anchor of a heading in a link.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

/// A path with a placeholder or a pattern names several files.
#[test]
fn each_path_that_a_document_names_exists() {
    for name in DOCUMENTS {
        let document = fs::read_to_string(root().join(name)).unwrap();
        let codes =
            lines_of_text(&document).flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
        for path in codes.filter_map(|code| code.split(' ').next()) {
            let is_ours = DIRECTORIES.iter().any(|directory| path.starts_with(directory));
            let is_one = !path.contains(|c: char| "*{…".contains(c) || c.is_ascii_uppercase());
            if is_ours && is_one && !path.starts_with("fuzz/artifacts/") {
                assert!(root().join(path).exists(), "{name}: {path}");
            }
        }
    }
}

const DIRECTORIES: [&str; 11] = [
    "agent/",
    "completions/",
    "crates/",
    "docs/",
    "examples/",
    "fuzz/",
    "man/",
    "packaging/",
    "systemd/",
    "tests/",
    "watcher/",
];

const DOCUMENTS: [&str; 9] = [
    "README.md",
    "PROTOCOL.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/administration.md",
    "man/fence-watcher.8.md",
    "man/fence_gfs2_recorder.8.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn each_rust_file(directory: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            each_rust_file(&path, look);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
