//! `--help`, in the layout of the fence-agents library.

use crate::parameters::{AGENT, PARAMETERS, Parameter, Standing};

/// The text of `--help`.
pub fn help() -> String {
    let options: Vec<String> = PARAMETERS
        .iter()
        .filter(|row| matches!(row.standing, Standing::Required | Standing::Optional))
        .map(|row| format!("   {:<32} {}\n", row.usage(row.name), sentence(row)))
        .collect();
    format!("Usage:\n\t{AGENT} [options]\nOptions:\n{}", options.concat())
}

/// The text of `--version`.
pub fn version() -> String {
    format!("{AGENT} {}\n", env!("CARGO_PKG_VERSION"))
}

fn sentence(row: &Parameter) -> String {
    let default = row.default.map(|value| format!("default: {value}"));
    let variable = row.environment.map(|name| format!("environment: {name}"));
    let notes: Vec<String> = default.into_iter().chain(variable).collect();
    if notes.is_empty() {
        return row.help.to_owned();
    }
    format!("{} ({})", row.help, notes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_librarys() {
        let text = help();
        let mut lines = text.lines();

        assert_eq!(lines.next(), Some("Usage:"));
        assert_eq!(lines.next(), Some("\tfence_gfs2_recorder [options]"));
        assert_eq!(lines.next(), Some("Options:"));
        assert!(lines.all(|line| line.starts_with("   -")));
    }

    #[test]
    fn what_nobody_should_use_is_not_shown() {
        let text = help();
        for name in ["--port", "--nodename", "--no-gfs2-discovery", "--option"] {
            assert!(!text.contains(name), "{name}");
        }
    }
}
