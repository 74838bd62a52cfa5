//! The metadata: the description of this agent for Pacemaker, pcs, crmsh and the manual's
//! generator.
//!
//! The elements are in the order of the fence-agents schema (`metadata.rng`). The metadata needs no
//! file and no other process.

use crate::parameters::{AGENT, Alias, Kind, PARAMETERS, Parameter, Standing};

/// The metadata as XML.
pub fn metadata() -> String {
    with_description(&LONG.join("\n\n"))
}

/// The same for `fence2man`, which passes the description on to troff.
pub fn manpage() -> String {
    with_description(&LONG.join("\n.P\n"))
}

fn with_description(long: &str) -> String {
    let rows = PARAMETERS.iter().filter(|row| row.standing != Standing::Internal);
    let parameters: String = rows.map(of_parameter).collect();
    let action = |(action, _): &(&str, _)| {
        // Not automatic: nothing that this agent does must be undone when a node joins.
        let automatic = if *action == "on" { " automatic=\"0\"" } else { "" };
        format!("\t<action name=\"{action}\"{automatic} />\n")
    };
    let actions: String = ACTIONS.iter().map(action).collect();
    format!(
        "<?xml version=\"1.0\" ?>\n\
         <resource-agent name=\"{AGENT}\" shortdesc=\"{}\">\n\
         <longdesc>{}</longdesc>\n\
         <vendor-url>{VENDOR_URL}</vendor-url>\n\
         <parameters>\n{parameters}</parameters>\n\
         <actions>\n{actions}</actions>\n\
         </resource-agent>\n",
        escaped(SHORT),
        escaped(long)
    )
}

fn of_parameter(row: &Parameter) -> String {
    let deprecated = " deprecated=\"1\"";
    let own = if row.standing == Standing::Deprecated { deprecated } else { "" };
    match row.alias {
        Alias::Deprecated(old) => {
            of_spelling(row, row.name, &format!(" obsoletes=\"{old}\""))
                + &of_spelling(row, old, deprecated)
        }
        Alias::None | Alias::Silent(_) => of_spelling(row, row.name, own),
    }
}

fn of_spelling(row: &Parameter, name: &str, attributes: &str) -> String {
    let (kind, words) = match row.kind {
        Kind::Text | Kind::Path => ("string", None),
        Kind::Integer => ("integer", None),
        Kind::Seconds => ("second", None),
        Kind::Boolean | Kind::Flag => ("boolean", None),
        Kind::Select(words) => ("select", Some(words)),
    };
    let options = words.map_or(" />".to_owned(), |words| {
        let option = |word| format!("\t\t\t<option value=\"{word}\" />\n");
        format!(">\n{}\t\t</content>", words.iter().map(option).collect::<String>())
    });
    let default = row.default.map(|value| format!(" default=\"{}\"", escaped(value)));
    format!(
        "\t<parameter name=\"{name}\" unique=\"0\" required=\"{}\"{attributes}>\n\
         \t\t<getopt mixed=\"{}\" />\n\
         \t\t<content type=\"{kind}\"{}{options}\n\
         \t\t<shortdesc lang=\"en\">{}</shortdesc>\n\
         \t</parameter>\n",
        u8::from(row.standing == Standing::Required),
        escaped(&row.usage(name)),
        default.unwrap_or_default(),
        escaped(row.help)
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One line about the agent.
pub const SHORT: &str = "Fence agent that lets a watcher fence GFS2 nodes";

/// The paragraphs of the description.
pub const LONG: &[&str] = &[
    "fence_gfs2_recorder is a fence agent that writes each fence as a request file and succeeds \
     only when an answer to exactly that request says that the target is fenced. The requests are \
     executed by fence-watcher, which knows the fence devices, by a script of your own, or by \
     nnf-sos (see the parameter responder). A request is not started after the agent has given it \
     up or was killed.",
    "The agent exits after fence_timeout seconds. Set pcmk_reboot_timeout and pcmk_off_timeout \
     above it, name the nodes with pcmk_host_list, and set pcmk_action_limit=-1 if several nodes \
     may need fencing at once. With responder nnf, or with a device that only cuts off storage, a \
     reboot is carried out as off.",
];

const VENDOR_URL: &str = "https://github.com/NearNodeFlash";

/// The actions, each with a sentence for the manual.
pub const ACTIONS: &[(&str, &str)] = &[
    ("on", "Switch the target on. With responder nnf it does nothing."),
    ("off", "Switch the target off."),
    ("reboot", "Switch the target off and on again; it succeeds as soon as the target was off."),
    (
        "status",
        "Exit 0 if the target is on, 2 if it is off, 1 if its state is unknown. Fails with \
         responder script or nnf.",
    ),
    (
        "list",
        "Show the names of the nodes that can be fenced now, one a line. Fails with \
         responder script or nnf.",
    ),
    ("list-status", "The same with an empty alias and the state: ON, OFF or UNKNOWN."),
    (
        "monitor",
        "Exit 0 if fencing would work now: fence-watcher runs and reaches its devices, and \
         requests can be written. With responder script or nnf it shows only that requests can be \
         written: the agent cannot ask the responder.",
    ),
    ("metadata", "Show the description of this agent as XML."),
    ("manpage", "The same, as fence2man reads it."),
    ("validate-all", "Check the options. It opens no file, asks no device and writes nothing."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_that_is_not_internal_is_declared_and_so_is_its_old_name() {
        let xml = metadata();
        for row in PARAMETERS {
            let declared = xml.contains(&format!("<parameter name=\"{}\"", row.name));
            assert_eq!(declared, row.standing != Standing::Internal, "{}", row.name);
            if let Alias::Deprecated(old) = row.alias {
                let new = format!("<parameter name=\"{}\" unique=\"0\" required=", row.name);
                let line = xml.lines().find(|line| line.contains(&new)).unwrap();
                assert!(line.contains(&format!("obsoletes=\"{old}\"")), "{line}");
                let line =
                    xml.lines().find(|line| line.contains(&format!("name=\"{old}\""))).unwrap();
                assert!(line.contains("deprecated=\"1\""), "{line}");
            }
        }
        assert!(!xml.contains("name=\"option\""));
    }

    #[test]
    fn on_is_not_run_when_a_node_joins() {
        assert!(metadata().contains("<action name=\"on\" automatic=\"0\" />"));
    }

    #[test]
    fn the_manuals_description_differs_only_in_the_marks_of_its_paragraphs() {
        assert_ne!(manpage(), metadata());
        assert_eq!(manpage().replace("\n.P\n", "\n\n"), metadata());
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escaped("a<b & \"c\">"), "a&lt;b &amp; &quot;c&quot;&gt;");
    }
}
