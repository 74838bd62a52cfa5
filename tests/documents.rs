//! What the documents name is there; and what no source may contain is not.

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
            assert!(is_test || is_file, "{name} is not there: {row}");
        }
    }
}

/// A test that says so in its own way passes in CI although it did not run.
#[test]
fn what_a_machine_cannot_run_is_left_out_by_the_one_helper() {
    let helper = Path::new("tests/common/left_out.rs");
    // In two halves: this file is looked at as well.
    let halves = [
        ["var(\"", "CI\""],
        ["var_os(\"", "CI\""],
        [": left", " out"],
        ["\"left", " out"],
        ["\"skip", "ped"],
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
