//! The parts of the manuals that are generated from the tables of the programs, as Markdown.

use clap::{Arg, ArgAction, Command};
use fence_agent::metadata::{ACTIONS, LONG, SHORT};
use fence_agent::parameters::{AGENT, Alias, Kind, PARAMETERS, Parameter, Standing};
use fence_protocol::AuditResult;

use crate::configuration;

/// The list that replaces the comment `name`.
pub(crate) fn list(name: &str) -> String {
    match name {
        "agent name" => format!("{AGENT} - {SHORT}"),
        "agent description" => LONG.join("\n\n"),
        "agent parameters" => parameters(|row| row.usage(row.name)),
        "agent stdin parameters" => parameters(|row| row.name.to_owned()),
        "agent other parameters" => other_parameters(),
        "agent actions" => items(ACTIONS.iter().map(|(action, text)| (*action, *text))),
        "agent environment" => {
            let rows = PARAMETERS.iter().filter_map(|row| Some((row.environment?, row.name)));
            items(rows.map(|(variable, name)| (variable, format!("The same as `{name}`."))))
        }
        "results" => {
            let known: Vec<AuditResult> = AuditResult::known().collect();
            items(known.iter().map(|result| (result.as_str(), result.meaning())))
        }
        "watcher options" => options(&fence_watcher::cli::command()),
        "watcher commands" => commands(),
        other => match other.strip_prefix("keys of ") {
            Some(table) => configuration::keys(table),
            None => panic!("no list is called {other:?}"),
        },
    }
}

/// The agent's command line for completions, without obsolete options.
pub(crate) fn agent_command() -> Command {
    let whole = fence_agent::input::command();
    let arguments = shown().filter_map(|row| {
        let argument = whole.get_arguments().find(|argument| *argument.get_id() == row.name)?;
        let argument = argument.clone().help(row.help);
        Some(match row.kind {
            Kind::Flag => argument.require_equals(false).num_args(0).action(ArgAction::SetTrue),
            Kind::Path => argument.value_hint(clap::ValueHint::AnyPath),
            Kind::Boolean => argument.value_parser(["yes", "no"]),
            Kind::Select(words) => argument.value_parser(words.to_vec()),
            _ if row.name == "action" => {
                argument.value_parser(ACTIONS.iter().map(|(action, _)| *action).collect::<Vec<_>>())
            }
            _ => argument,
        })
    });
    let command = Command::new(AGENT).disable_help_flag(true).disable_version_flag(true);
    command.args(arguments.collect::<Vec<_>>())
}

/// Same as in fence2man: deprecated parameters are left out.
fn parameters(term: impl Fn(&Parameter) -> String) -> String {
    items(shown().map(|row| {
        let words = match row.kind {
            Kind::Select(words) => format!(" ({})", words.join("|")),
            _ => String::new(),
        };
        let note = row.default.map(|default| format!(" (Default Value: `{default}`)"));
        let note = note.unwrap_or_default();
        (term(row), [row.help, &words, &note].concat())
    }))
}

/// The obsolete names, and the names that the cluster manager sends.
fn other_parameters() -> String {
    let older = PARAMETERS.iter().filter_map(|row| match row.alias {
        Alias::None => None,
        Alias::Deprecated(old) | Alias::Silent(old) => {
            Some((old, format!("An older name of `{}`.", row.name)))
        }
    });
    let others = PARAMETERS.iter().filter_map(|row| match row.standing {
        Standing::Deprecated => Some((row.name, format!("{}. For old configurations.", row.help))),
        Standing::Internal => Some((row.name, format!("{}.", row.help))),
        Standing::Required | Standing::Optional => None,
    });
    items(older.chain(others))
}

fn shown() -> impl Iterator<Item = &'static Parameter> {
    PARAMETERS.iter().filter(|row| matches!(row.standing, Standing::Required | Standing::Optional))
}

fn commands() -> String {
    let watcher = fence_watcher::cli::command();
    let parts = watcher.get_subcommands().filter(|command| !command.is_hide_set()).map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let name = command.get_name();
        format!("### fence-watcher {name}\n\n{about}.\n\n{}", options(command))
    });
    parts.collect::<Vec<_>>().join("\n\n")
}

/// The options of one command; common options are described once, with the program's.
fn options(command: &Command) -> String {
    let of_command = command.get_arguments().filter(|argument| !argument.is_hide_set());
    items(of_command.map(|argument| {
        let text = argument.get_help().map(ToString::to_string).unwrap_or_default();
        // A flag has no choices.
        let known = argument.get_possible_values();
        let known = known.iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>();
        let text = if known.is_empty() || !argument.get_action().takes_values() {
            text
        } else {
            format!("{text}: `{}`", known.join("`, `"))
        };
        let defaults = argument.get_default_values();
        let text = match defaults.first().filter(|_| argument.get_action().takes_values()) {
            Some(default) => format!("{text} (default: `{}`)", default.to_string_lossy()),
            None => text,
        };
        (usage(argument), text)
    }))
}

fn usage(argument: &Arg) -> String {
    let name = argument.get_long().expect("each option has a long name");
    if !argument.get_action().takes_values() {
        return format!("--{name}");
    }
    let value = argument.get_value_names().and_then(|names| names.first());
    format!("--{name} {}", value.map_or("VALUE", |value| value.as_str()))
}

fn items(rows: impl Iterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> String {
    let items = rows.map(|(term, text)| format!("- `{}`: {}", term.as_ref(), text.as_ref()));
    items.collect::<Vec<_>>().join("\n")
}
