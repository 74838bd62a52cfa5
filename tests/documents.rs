//! What the documents name is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::path::Path;

#[test]
fn each_threat_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let document = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let mut sources = String::new();
    for directory in ["agent", "crates", "tests", "watcher"] {
        collect_rust(&root.join(directory), &mut sources);
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
            let is_file = name.contains('/') && root.join(name).exists();
            assert!(is_test || is_file, "{name} is not there: {row}");
        }
    }
}

fn collect_rust(directory: &Path, sources: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_rust(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}
