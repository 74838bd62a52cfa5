//! The parts that are generated from the table of the configuration's keys: the lists in the
//! manual, and an example for each device type.

use fence_watcher::config::{DEVICE, Form, Key, Standing, TABLES, TYPES, Type, in_words};

/// The list of the keys of a table (`[spool]`, `[[device]]`) or of a device type, as Markdown.
pub(crate) fn keys(name: &str) -> String {
    let rows = match name {
        "[[device]]" => DEVICE,
        name => {
            let table = TABLES.iter().find(|(table, _)| name == format!("[{table}]"));
            let of_type = || TYPES.iter().find(|of_type| of_type.name == name);
            let rows = table.map(|(_, rows)| *rows).or_else(|| of_type().map(|found| found.keys));
            rows.unwrap_or_else(|| panic!("no keys are those of {name:?}"))
        }
    };
    let item = |row: &Key| {
        let standing = match row.standing {
            Standing::Required(_) => "; required".to_owned(),
            Standing::Optional(_) => String::new(),
            Standing::Default(value) => format!("; default: `{value}`"),
        };
        format!("- `{}`: {} ({}{standing})", row.name, row.help, form(row.form))
    };
    rows.iter().map(item).collect::<Vec<_>>().join("\n")
}

/// The complete example of a device type.
pub(crate) fn example(of_type: &Type) -> String {
    let mut parts = vec![
        comment(of_type.about),
        comment(
            "Copy this file to /etc/gfs2-fencing/fence-watcher.toml and test it with \
             `fence-watcher check`. Settings that are commented out show their default, or how to \
             write them. fence-watcher.toml(5) has more about each key.",
        ),
    ];
    for (table, rows) in TABLES {
        parts.push(format!("\n[{table}]\n"));
        parts.extend(rows.iter().map(|row| setting(row, None)));
    }
    parts.push("\n".to_owned());
    parts.push(comment(
        "The fence device. The first device that covers a target is used, unless the request names \
         one.",
    ));
    parts.push("[[device]]\n".to_owned());
    let name = format!("\"{}\"", of_type.name);
    parts.extend(DEVICE.iter().chain(of_type.keys).map(|row| {
        let written = of_type.written.iter().find(|(key, _)| *key == row.name);
        let written = written.map(|(_, value)| *value);
        setting(row, if row.form == Form::Type { Some(&name) } else { written })
    }));
    if !of_type.further.is_empty() {
        parts.extend(["\n".to_owned(), of_type.further.to_owned()]);
    }
    parts.concat()
}

/// A key with its purpose; commented out unless it is `written` or required.
fn setting(row: &Key, written: Option<&str>) -> String {
    let required = match row.standing {
        Standing::Required(value) => Some(value),
        Standing::Optional(_) | Standing::Default(_) => None,
    };
    let help = comment(&format!("{} ({})", row.help, form(row.form)));
    match (written.or(required), row.standing) {
        (Some(value), _) => format!("{help}{} = {value}\n", row.name),
        (
            None,
            Standing::Required(value) | Standing::Optional(value) | Standing::Default(value),
        ) => {
            format!("{help}# {} = {value}\n", row.name)
        }
    }
}

/// The form as text.
fn form(form: Form) -> String {
    match form {
        Form::Boolean => "`true` or `false`".to_owned(),
        Form::Duration(least, most) => {
            format!("a duration, {} to {}", in_words(least), in_words(most))
        }
        Form::List => "a list".to_owned(),
        Form::Name => "a name".to_owned(),
        Form::Nodes => "nodes".to_owned(),
        Form::Number(least, most) => format!("a number, {least} to {most}"),
        Form::Numbers(all) => all.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
        Form::Path => "a path".to_owned(),
        Form::PerTarget => "a text with `{target}`, or a table".to_owned(),
        Form::Program => "a program and its arguments".to_owned(),
        Form::Table => "a table".to_owned(),
        Form::Targets => "nodes, or one of the texts above".to_owned(),
        Form::Text => "a text".to_owned(),
        Form::Type => words(TYPES.iter().map(|of_type| of_type.name)),
        Form::Words(all) => words(all.iter().copied()),
    }
}

fn words(all: impl Iterator<Item = &'static str>) -> String {
    all.map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
}

/// `text` as lines of comments. Text in backquotes stays in one line.
fn comment(text: &str) -> String {
    let (mut lines, mut line, mut is_code) = (String::new(), "#".to_owned(), false);
    let mut word = String::new();
    for piece in text.split(' ') {
        word = if word.is_empty() { piece.to_owned() } else { word + " " + piece };
        is_code ^= piece.matches('`').count() % 2 == 1;
        if is_code {
            continue;
        }
        if line.chars().count() + 1 + word.chars().count() > WIDTH_MAX {
            lines += &(std::mem::replace(&mut line, "#".to_owned()) + "\n");
        }
        line += " ";
        line += &std::mem::take(&mut word);
    }
    lines + &line + "\n"
}

const WIDTH_MAX: usize = 100;
