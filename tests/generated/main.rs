//! The checked-in files that are generated from the programs themselves, so that nobody needs a
//! generator: the manuals, the completions for shells, the agent's metadata, and the examples of
//! the configuration.
//!
//! `UPDATE=1 cargo test -p fence-watcher --test generated` writes them again. The manuals are
//! written in `man/*.md`; a line `<!-- NAME -->` there is replaced by a list that is generated from
//! a program's table.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod configuration;
#[path = "../common/left_out.rs"]
mod left_out;
mod lists;
mod roff;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap_complete::Shell;
use fence_protocol::{AuditResult, FenceResult};
use fence_watcher::config::{TABLES, TYPES};
use left_out::left_out;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const MANUALS: [&str; 3] = ["fence_gfs2_recorder.8", "fence-watcher.8", "fence-watcher.toml.5"];

const PROGRAMS: [&str; 2] = ["fence_gfs2_recorder", "fence-watcher"];

/// Compares a file with its generated content, or writes it if `UPDATE` is set.
#[track_caller]
fn check(path: &str, content: &str) {
    let full = Path::new(ROOT).join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, content).unwrap();
        return;
    }
    let found = fs::read_to_string(full).unwrap_or_default();
    assert!(
        found == content,
        "'{path}' is not up to date: run `UPDATE=1 cargo test -p fence-watcher --test generated`"
    );
}

fn manual(name: &str) -> String {
    let source = fs::read_to_string(Path::new(ROOT).join(format!("man/{name}.md"))).unwrap();
    let lines: Vec<String> = source
        .lines()
        .map(|line| {
            let list = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            list.map_or_else(|| line.to_owned(), lists::list)
        })
        .collect();
    roff::roff(&lines.join("\n"))
}

fn completion(program: &str, shell: Shell) -> (String, String) {
    let mut command = match program {
        "fence-watcher" => fence_watcher::cli::command(),
        _ => lists::agent_command(),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    let file = match shell {
        Shell::Zsh => format!("zsh/_{program}"),
        Shell::Fish => format!("fish/{program}.fish"),
        _ => format!("bash/{program}"),
    };
    let mut script = String::from_utf8(script).unwrap();
    if shell == Shell::Bash {
        // Two names for one function if the program's name has a hyphen (clap-rs/clap issue 6421).
        script = script.replace("fence__subcmd__watcher", "fence__watcher");
    }
    // Without blanks at the ends of lines, which some editors would remove.
    let lines: Vec<&str> = script.lines().map(str::trim_end).collect();
    (format!("completions/{file}"), lines.join("\n").trim_end().to_owned() + "\n")
}

#[test]
fn the_manuals_are_up_to_date() {
    for name in MANUALS {
        check(&format!("man/{name}"), &manual(name));
    }
}

#[test]
fn the_completions_are_up_to_date() {
    for program in PROGRAMS {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (path, script) = completion(program, shell);
            check(&path, &script);
        }
    }
}

#[test]
fn the_examples_are_up_to_date() {
    for of_type in TYPES {
        // The second is a seed of the fuzz target.
        for before in ["examples/", "fuzz/seeds/config/example-"] {
            let path = format!("{before}fence-watcher-{}.toml", of_type.name);
            check(&path, &configuration::example(of_type));
        }
    }
}

/// fence-agents keeps such a file for each of its agents: it shows a change of the interface.
#[test]
fn the_metadata_is_what_it_was() {
    check("tests/schemas/fence_gfs2_recorder.xml", &fence_agent::metadata::metadata());
}

/// The output of a program that reads `input`; `None`, with a message, if the program is not
/// installed and may be left out.
fn output_of(program: &str, arguments: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        left_out("what it checks", &format!("{program} is not installed"));
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

#[test]
fn mandoc_has_nothing_to_say_about_the_manuals() {
    for name in MANUALS {
        let page = manual(name);
        if let Some(output) = output_of("mandoc", &["-T", "lint", "-W", "warning"], &page) {
            assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{name}");
        }
    }
}

#[test]
fn each_shell_takes_its_completions() {
    for program in PROGRAMS {
        for (name, shell) in [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)] {
            let (_, script) = completion(program, shell);
            if let Some(output) = output_of(name, &["-n"], &script) {
                assert!(output.status.success(), "{name} {program}: {output:?}");
            }
        }
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    for (program, words, expected) in [
        ("fence-watcher", "ch", "check"),
        ("fence-watcher", "history --re", "--result"),
        ("fence_gfs2_recorder", "--fence-t", "--fence-timeout"),
        ("fence_gfs2_recorder", "--action reb", "reboot"),
        ("fence_gfs2_recorder", "--responder nn", "nnf"),
        ("fence_gfs2_recorder", "--no-gfs2", ""),
    ] {
        let (_, script) = completion(program, Shell::Bash);
        let words: Vec<&str> = words.split(' ').collect();
        let last = words[words.len() - 1];
        let before = if words.len() > 1 { words[words.len() - 2] } else { program };
        let test = format!(
            "{script}\nCOMP_WORDS=({program} {})\nCOMP_CWORD={}\n\
             function=$(complete -p {program}) && function=${{function##*-F }}\n\
             ${{function%% *}} {program} '{last}' '{before}'\necho \"${{COMPREPLY[*]}}\"\n",
            words.join(" "),
            words.len(),
        );
        let output = output_of("bash", &["--norc"], &test).unwrap();
        let found = String::from_utf8_lossy(&output.stdout);
        assert_eq!(found.trim_end(), expected, "{program} {words:?}: {output:?}");
    }
}

// --- The agent's manual against its table and the README ------------------------------------------

/// The names in a Markdown text that are marked as code.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_manual_of_the_agent_has_each_parameter_under_each_name_and_each_variable() {
    let manual = manual("fence_gfs2_recorder.8");
    let has = |name: &str| manual.contains(&format!("\\fB{name}\\fR"));
    for row in fence_agent::parameters::PARAMETERS {
        for name in row.spellings() {
            assert!(has(name), "{name}");
        }
    }
    let variables = fence_agent::parameters::PARAMETERS.iter().filter_map(|row| row.environment);
    for name in variables.chain(["GFS2_DISCOVERY_ROOT", "KUBECONFIG"]) {
        assert!(has(name), "{name}");
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/src/invocation/options.rs");
    let source = fs::read_to_string(source).unwrap();
    let source = source.split("#[cfg(test)]").next().unwrap();
    let read: Vec<&str> =
        source.split("variable(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(read.contains(&"KUBECONFIG"), "{read:?}");
    for name in read {
        assert!(manual.contains(name), "{name}");
    }
}

#[test]
fn each_option_that_the_readme_names_is_in_the_manual_of_the_agent() {
    let manual = manual("fence_gfs2_recorder.8");
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, table) = readme.split_once("| option | environment | default | |\n").unwrap();
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 8, "{rows:?}");
    for row in rows {
        let columns: Vec<&str> = row.split('|').collect();
        for name in code(columns[1]).into_iter().chain(code(columns[2])) {
            assert!(manual.contains(&format!("\\fB{name}\\fR")), "{name}");
        }
    }
}

// --- The results in the documents against those that are written -----------------------------------

/// The lines of a table in `document` that start with this.
fn rows<'a>(document: &'a str, start: &str) -> Vec<&'a str> {
    document.lines().filter(|line| line.starts_with(start)).collect()
}

#[test]
fn the_documents_name_the_results_that_are_written_and_no_others() {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
    let protocol = read("PROTOCOL.md");
    let (_, table) = protocol.split_once("| code | result | when |\n").unwrap();
    let table: Vec<_> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    let written = FenceResult::ALL.map(|result| format!("| {} | `{result}` |", result.code()));
    assert_eq!(table.len(), written.len(), "{table:?}");
    for (row, start) in table.iter().zip(written) {
        assert!(row.starts_with(&start), "{row} begins with {start}");
    }

    let readme = read("README.md");
    let rows = rows(&readme, "| result `");
    assert!(rows.len() >= 4, "{rows:?}");
    for word in rows.iter().flat_map(|row| code(row.split('|').nth(1).unwrap())) {
        let known = AuditResult::known().any(|result| result.as_str() == word);
        assert!(known, "the README knows a result '{word}'");
    }
}

#[test]
fn history_takes_each_result_that_is_written() {
    let watcher = fence_watcher::cli::command();
    let history = watcher.find_subcommand("history").unwrap();
    let of = |id: &str| {
        let option = history.get_arguments().find(|argument| *argument.get_id() == id).unwrap();
        let values = option.get_possible_values();
        values.iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>()
    };
    let results = of("result");
    for result in AuditResult::known() {
        assert!(results.contains(&result.to_string()), "{result}: {results:?}");
    }
    assert_eq!(of("action"), ["off", "on", "reboot"]);
}

// --- The configuration's manual against its table ------------------------------------------------

#[test]
fn the_manual_of_the_configuration_has_a_part_for_each_table_and_each_type() {
    let manual = fs::read_to_string(Path::new(ROOT).join("man/fence-watcher.toml.5.md")).unwrap();
    let part = |heading: &str| {
        let (_, rest) = manual.split_once(&format!("\n### {heading}\n")).unwrap_or_default();
        rest.split("\n#").next().unwrap().to_owned()
    };
    let tables = TABLES.iter().map(|(name, _)| format!("[{name}]"));
    for heading in tables.chain(["[[device]]".to_owned()]) {
        assert!(part(&heading).contains(&format!("<!-- keys of {heading} -->")), "{heading}");
    }
    for of_type in TYPES {
        let (heading, keys) = (format!("type = \"{}\"", of_type.name), of_type.name);
        assert!(part(&heading).contains(&format!("<!-- keys of {keys} -->")), "{heading}");
    }
}
