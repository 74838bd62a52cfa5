//! The metadata: what Pacemaker, pcs, crmsh and the manual's maker read about this agent.
//!
//! The order of the elements is that of the fence-agents schema (`metadata.rng`). Nothing is opened
//! or asked for it.

use std::fmt::Write;

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
    let mut xml = String::with_capacity(16 * 1024);
    push(&mut xml, format_args!("<?xml version=\"1.0\" ?>\n"));
    push(
        &mut xml,
        format_args!("<resource-agent name=\"{AGENT}\" shortdesc=\"{}\">\n", escaped(SHORT)),
    );
    push(&mut xml, format_args!("<longdesc>{}</longdesc>\n", escaped(long)));
    push(&mut xml, format_args!("<vendor-url>{VENDOR_URL}</vendor-url>\n<parameters>\n"));
    for row in PARAMETERS.iter().filter(|row| row.standing != Standing::Internal) {
        push_parameter(&mut xml, row);
    }
    push(&mut xml, format_args!("</parameters>\n<actions>\n"));
    for (action, _) in ACTIONS {
        // Not automatic: nothing that this agent does must be undone when a node joins.
        let automatic = if *action == "on" { " automatic=\"0\"" } else { "" };
        push(&mut xml, format_args!("\t<action name=\"{action}\"{automatic} />\n"));
    }
    push(&mut xml, format_args!("</actions>\n</resource-agent>\n"));
    xml
}

fn push_parameter(xml: &mut String, row: &Parameter) {
    let required = u8::from(row.standing == Standing::Required);
    let deprecated = " deprecated=\"1\"";
    let own = if row.standing == Standing::Deprecated { deprecated } else { "" };
    if let Alias::Deprecated(old) = row.alias {
        push_spelling(xml, row, row.name, required, &format!(" obsoletes=\"{old}\""));
        push_spelling(xml, row, old, required, deprecated);
    } else {
        push_spelling(xml, row, row.name, required, own);
    }
}

fn push_spelling(xml: &mut String, row: &Parameter, name: &str, required: u8, attributes: &str) {
    push(
        xml,
        format_args!(
            "\t<parameter name=\"{name}\" unique=\"0\" required=\"{required}\"{attributes}>\n\
             \t\t<getopt mixed=\"{}\" />\n",
            escaped(&row.usage(name))
        ),
    );
    let kind = match row.kind {
        Kind::Text | Kind::Path => "string",
        Kind::Integer => "integer",
        Kind::Seconds => "second",
        Kind::Boolean | Kind::Flag => "boolean",
        Kind::Select(_) => "select",
    };
    push(xml, format_args!("\t\t<content type=\"{kind}\""));
    if let Some(default) = row.default {
        push(xml, format_args!(" default=\"{}\"", escaped(default)));
    }
    if let Kind::Select(words) = row.kind {
        push(xml, format_args!(">\n"));
        for word in words {
            push(xml, format_args!("\t\t\t<option value=\"{word}\" />\n"));
        }
        push(xml, format_args!("\t\t</content>\n"));
    } else {
        push(xml, format_args!(" />\n"));
    }
    push(
        xml,
        format_args!(
            "\t\t<shortdesc lang=\"en\">{}</shortdesc>\n\t</parameter>\n",
            escaped(row.help)
        ),
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(xml: &mut String, text: std::fmt::Arguments<'_>) {
    xml.write_fmt(text).expect("a String takes every text");
}

/// One line about the agent.
pub const SHORT: &str = "Fence agent that has GFS2 nodes fenced by a watcher";

/// The paragraphs of the description.
pub const LONG: &[&str] = &[
    "fence_gfs2_recorder is a fence agent that writes each fence as a request file and succeeds \
     only when an answer to exactly that request says that the target is fenced. The requests are \
     executed by fence-watcher, which knows the fence devices, by a script of your own, or by \
     nnf-sos (see the parameter responder). A request that the agent gives up, or whose agent is \
     killed, is not started any more.",
    "The agent ends by itself after fence_timeout seconds. Set pcmk_reboot_timeout and \
     pcmk_off_timeout above it, name the nodes with pcmk_host_list, and set pcmk_action_limit=-1 \
     where several nodes may have to be fenced at once. With responder nnf, or with a device that \
     cuts off storage only, a reboot is carried out as off.",
];

const VENDOR_URL: &str = "https://github.com/NearNodeFlash";

/// The actions, each with a sentence for the manual.
pub const ACTIONS: &[(&str, &str)] = &[
    ("on", "Switch the target on. With responder nnf nothing is done."),
    ("off", "Switch the target off."),
    ("reboot", "Switch the target off and on again; it succeeds when the target was off."),
    (
        "status",
        "Exit 0 when the target is on, 2 when it is off, 1 when that is not known. Fails with \
         responder script or nnf.",
    ),
    (
        "list",
        "Show the names of the nodes that can be fenced at this moment, one a line. Fails with \
         responder script or nnf.",
    ),
    ("list-status", "The same with an empty alias and the state: ON, OFF or UNKNOWN."),
    (
        "monitor",
        "Exit 0 when fencing would work now: fence-watcher runs, reaches its devices, and requests \
         can be written. With responder script or nnf it shows only that requests can be written: \
         the responder is not asked.",
    ),
    ("metadata", "Show the description of this agent as XML."),
    ("manpage", "The same, as fence2man reads it."),
    ("validate-all", "Check the options. Nothing is opened, asked or written."),
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
