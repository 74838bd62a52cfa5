//! `fence-watcher reload`: makes the running watcher read its configuration again, and shows the
//! result.
//!
//! The command sends a query and not a signal: the number of a process that has ended may belong to
//! another process by now, and a signal brings no answer.

use fence_log::shown_line;
use fence_protocol::{QueryAnswer, QueryCode, QueryKind};

use super::ask::ask;
use crate::config::SpoolSettings;

/// The text of `reload`, or all problems of the configuration.
pub(super) fn reload(spool: &SpoolSettings) -> anyhow::Result<Result<String, Vec<String>>> {
    let answer = ask(spool, QueryKind::Reload, None, ANSWER_MS_MAX)?;
    if answer.code == QueryCode::Yes {
        return Ok(Ok(shown_line(&answer.message) + "\n"));
    }
    Ok(Err(problems(&answer)))
}

/// The problems, line by line.
fn problems(answer: &QueryAnswer) -> Vec<String> {
    let texts = answer.problems.iter().chain([&answer.message]);
    texts.flat_map(|text| text.lines()).map(shown_line).collect()
}

/// How long a watcher may take to read its configuration: to look for the programs can be slow.
const ANSWER_MS_MAX: u64 = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_several_lines_is_shown_so_and_has_each_backslash_once() {
        let mut answer = QueryAnswer::new("q", QueryCode::WrongQuery, "nothing was changed");
        answer.problems =
            vec!["no file\n\n    name = \"x\"".to_owned(), r"'a\\b' is\u{7}".to_owned()];

        let shown = problems(&answer);

        let lines = ["no file", "", "    name = \"x\"", r"'a\\b' is\u{7}", "nothing was changed"];
        assert_eq!(shown, lines);
    }
}
