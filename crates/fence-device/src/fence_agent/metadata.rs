//! The metadata of fence agents, and the check of a configuration against them.
//!
//! The format is that of ClusterLabs' fence agents (`lib/metadata.rng` there). It is read
//! tolerantly: missing or unknown elements are not the administrator's fault.

use std::borrow::Cow;
use std::collections::BTreeSet;

use fence_protocol::nearest;
use roxmltree::{Document, Node, ParsingOptions};

use crate::program::message;

/// The options and actions that an agent declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    parameters: Vec<Parameter>,
    actions: BTreeSet<String>,
    /// The text around the document.
    skipped: Option<String>,
}

/// An option for an agent.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value; `None` if it is secret or differs between targets.
    pub value: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parameter {
    name: String,
    content: Content,
    default: Option<String>,
    is_required: bool,
    is_old: bool,
    /// The old name of this very option.
    obsoletes: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Boolean,
    Integer,
    Select(Vec<String>),
    Text,
}

impl Metadata {
    /// Reads an agent's output of the action `metadata`. Warnings of the agent or of its
    /// interpreter may precede and follow the document.
    pub fn parse(text: &str) -> Result<Self, String> {
        let options = ParsingOptions { nodes_limit: NODES_MAX, ..ParsingOptions::default() };
        let (before, xml, after) = document_in(text);
        let xml = without_type(xml);
        let document = Document::parse_with_options(&xml, options)
            .map_err(|error| format!("it is no XML: {error}"))?;
        let root = document.root_element();
        if !root.has_tag_name("resource-agent") {
            return Err("it does not describe a fence agent".to_owned());
        }
        let within = |list: &'static str, item: &'static str| {
            let lists = root.children().filter(move |node| node.has_tag_name(list));
            lists.flat_map(|node| node.children()).filter(move |node| node.has_tag_name(item))
        };
        let name = |node: Node| node.attribute("name").map(str::to_owned);
        Ok(Metadata {
            parameters: within("parameters", "parameter").filter_map(parameter).collect(),
            actions: within("actions", "action").filter_map(name).collect(),
            skipped: message(before, after),
        })
    }

    /// The text around the document, as one line.
    pub fn skipped(&self) -> Option<&str> {
        self.skipped.as_deref()
    }

    /// Whether the agent may have this action. An agent that declares no actions may have it: the
    /// worst result is a question without an answer.
    pub fn may_have(&self, action: &str) -> bool {
        self.actions.is_empty() || self.has_action(action)
    }

    /// Whether the agent declares this action.
    pub fn has_action(&self, action: &str) -> bool {
        self.actions.contains(action)
    }

    /// Whether the agent may act on the same machine for every plug: it has no option for a plug,
    /// or uses the plug as an address only on request (`port_as_ip`).
    pub fn may_ignore_plugs(&self) -> bool {
        let has = |name| self.parameter(name).is_some();
        has("port_as_ip") || !(has("plug") || has("port"))
    }

    /// What is wrong with these options for the agent, and which needed actions it lacks.
    pub fn problems<'a>(
        &self,
        given: &[Given<'_>],
        needed: impl IntoIterator<Item = &'a str>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let mut present: Vec<(&str, &str)> = Vec::new();
        for option in given {
            let Some(parameter) = self.parameter(option.name) else {
                problems.push(self.unknown(option.name));
                continue;
            };
            let current = self.current(parameter);
            if !is_same(&current.name, option.name) {
                let (old, new) = (option.name, &current.name);
                problems.push(format!("option '{old}' is an old name: write '{new}'"));
            }
            if let Some((_, other)) = present.iter().find(|(name, _)| *name == current.name) {
                problems.push(format!("options '{other}' and '{}' are the same", option.name));
            }
            present.push((&current.name, option.name));
            let fault = option.value.and_then(|value| parameter.fault(value));
            problems.extend(fault.map(|fault| format!("option '{}': {fault}", option.name)));
        }
        let is_missing = |parameter: &&Parameter| {
            parameter.is_required
                && !parameter.is_old
                && parameter.default.is_none()
                && !SET_BY_US.contains(&parameter.name.as_str())
                && !present.iter().any(|(name, _)| *name == parameter.name)
        };
        let missing = self.parameters.iter().filter(is_missing);
        problems.extend(missing.map(|parameter| format!("option '{}' is missing", parameter.name)));
        let lacking = needed.into_iter().filter(|action| !self.has_action(action));
        problems.extend(lacking.map(|action| {
            format!("the agent has no action '{action}': list the actions that it has in 'actions'")
        }));
        problems
    }

    fn parameter(&self, name: &str) -> Option<&Parameter> {
        let exact = self.parameters.iter().find(|parameter| parameter.name == name);
        exact.or_else(|| self.parameters.iter().find(|parameter| is_same(&parameter.name, name)))
    }

    /// The parameter with the current name.
    fn current<'a>(&'a self, parameter: &'a Parameter) -> &'a Parameter {
        let successor = |other: &&Parameter| other.obsoletes.as_ref() == Some(&parameter.name);
        let has_successor = parameter.is_old.then(|| self.parameters.iter().find(successor));
        has_successor.flatten().unwrap_or(parameter)
    }

    fn unknown(&self, name: &str) -> String {
        let current = self.parameters.iter().filter(|parameter| !parameter.is_old);
        let names: Vec<&str> = current.map(|parameter| parameter.name.as_str()).collect();
        let hint = match (name, nearest(name, &names)) {
            ("plug", _) if self.parameter("port").is_some() => {
                " (it is called 'port': write plug_option = \"port\")".to_owned()
            }
            (_, Some(known)) => format!(" (did you mean '{known}'?)"),
            (_, None) => String::new(),
        };
        format!("the agent has no option '{name}'{hint}")
    }
}

impl Parameter {
    fn fault(&self, value: &str) -> Option<String> {
        let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(value));
        let is_on_by_default =
            || self.default.as_ref().is_some_and(|default| TRUE.contains(&default.as_str()));
        match &self.content {
            Content::Boolean if is_one_of(FALSE) => (!is_on_by_default()).then(|| {
                "leave it out, for many agents take it as true whenever it is given".to_owned()
            }),
            Content::Boolean if !is_one_of(TRUE) => {
                Some(format!("'{value}' is neither true nor false"))
            }
            Content::Integer if value.parse::<i64>().is_err() => {
                Some(format!("'{value}' is not a whole number"))
            }
            Content::Select(words) => {
                let known: Vec<&str> = words.iter().map(String::as_str).collect();
                let list = known.join(", ");
                (!is_one_of(&known)).then(|| format!("'{value}' is none of {list}"))
            }
            Content::Boolean | Content::Integer | Content::Text => None,
        }
    }
}

/// `text` in three parts: before the document, the document, and after it.
fn document_in(text: &str) -> (&str, &str, &str) {
    let start = [text.find("<?xml"), text.find("<resource-agent")].into_iter().flatten().min();
    let (before, rest) = text.split_at(start.unwrap_or_default());
    let end = rest.rfind(END).map_or(rest.len(), |at| at + END.len());
    let (xml, after) = rest.split_at(end);
    (before, xml.trim(), after)
}

/// `xml` without the document type before its root, and so without entities.
fn without_type(xml: &str) -> Cow<'_, str> {
    let root = xml.find("<resource-agent").unwrap_or(xml.len());
    let Some(start) = xml[..root].find("<!DOCTYPE") else { return Cow::Borrowed(xml) };
    let (mut quote, mut is_within) = (None, false);
    for (at, c) in xml[start..].char_indices() {
        match c {
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => {}
            '"' | '\'' => quote = Some(c),
            '[' | ']' => is_within = c == '[',
            '>' if !is_within => {
                return Cow::Owned([&xml[..start], &xml[start + at + 1..]].concat());
            }
            _ => {}
        }
    }
    Cow::Borrowed(xml)
}

/// The end of the document.
const END: &str = "</resource-agent>";

fn parameter(node: Node) -> Option<Parameter> {
    let is_set = |attribute| matches!(node.attribute(attribute), Some("1" | "true"));
    let content = node.children().find(|child| child.has_tag_name("content"));
    let of_content = |attribute| content.and_then(|content| content.attribute(attribute));
    let words = || {
        let options = content.into_iter().flat_map(|content| content.children());
        options.filter_map(|option| option.attribute("value")).map(str::to_owned).collect()
    };
    Some(Parameter {
        name: node.attribute("name")?.to_owned(),
        content: match of_content("type") {
            Some("boolean") => Content::Boolean,
            Some("integer" | "second") => Content::Integer,
            Some("select") => Content::Select(words()),
            _ => Content::Text,
        },
        default: of_content("default").map(str::to_owned),
        is_required: is_set("required"),
        is_old: is_set("deprecated"),
        obsoletes: node.attribute("obsoletes").map(str::to_owned),
    })
}

/// Whether both names mean the same option to an agent.
fn is_same(a: &str, b: &str) -> bool {
    a.replace('-', "_") == b.replace('-', "_")
}

/// The options that every agent gets, required or not.
const SET_BY_US: &[&str] = &["action", "nodename"];

/// How agents write true and false, in any case.
const TRUE: &[&str] = &["1", "yes", "on", "true"];
pub(super) const FALSE: &[&str] = &["0", "no", "off", "false"];

/// The most nodes of a document. Agents have some hundreds.
const NODES_MAX: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_test" shortdesc="A &lt;test&gt;">
<longdesc>Text</longdesc>
<parameters>
  <parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
  <parameter name="ip" required="1" obsoletes="ipaddr"><content type="string"/></parameter>
  <parameter name="ipaddr" required="1" deprecated="1"><content type="string"/></parameter>
  <parameter name="systems_uri" obsoletes="systems-uri"><content type="string"/></parameter>
  <parameter name="systems-uri" deprecated="1"><content type="string"/></parameter>
  <parameter name="plug" required="1" obsoletes="port"><content type="string"/></parameter>
  <parameter name="port" required="1" deprecated="1"><content type="string"/></parameter>
  <parameter name="ipport" required="1"><content type="integer" default="623"/></parameter>
  <parameter name="power_wait"><content type="second"/></parameter>
  <parameter name="ssl"><content type="boolean"/></parameter>
  <parameter name="lanplus"><content type="boolean" default="1"/></parameter>
  <parameter name="auth"><content type="select"><option value="md5"/><option value="none"/>
  </content></parameter>
</parameters>
<actions><action name="on" automatic="0"/><action name="off"/><action name="status"/></actions>
</resource-agent>
"#;

    fn problems(options: &[(&str, &str)]) -> Vec<String> {
        problems_of_all(&[&[("ip", "bmc"), ("plug", "1")], options].concat())
    }

    fn problems_of_all(options: &[(&str, &str)]) -> Vec<String> {
        let given = options.iter().map(|(name, value)| Given { name, value: Some(value) });
        Metadata::parse(AGENT).unwrap().problems(&given.collect::<Vec<_>>(), [])
    }

    #[test]
    fn options_that_the_agent_has_are_fine_however_they_are_spelt() {
        for options in [
            &[][..],
            &[("ipport", "623"), ("power-wait", "-1"), ("auth", "MD5"), ("ssl", "Yes")],
            &[("systems-uri", "/x"), ("lanplus", "0")],
        ] {
            assert_eq!(problems(options), Vec::<String>::new(), "{options:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said_with_a_way_out() {
        for (options, problem) in [
            (
                &[("lanplsu", "1")][..],
                "the agent has no option 'lanplsu' (did you mean 'lanplus'?)",
            ),
            (&[("colour", "1")], "the agent has no option 'colour'"),
            (&[("ipport", "a")], "option 'ipport': 'a' is not a whole number"),
            (&[("power_wait", "5s")], "option 'power_wait': '5s' is not a whole number"),
            (&[("ssl", "maybe")], "option 'ssl': 'maybe' is neither true nor false"),
            (&[("ssl", "no")], "option 'ssl': leave it out, for many agents take it as true"),
            (&[("auth", "md6")], "option 'auth': 'md6' is none of md5, none"),
            (&[("ip-port", "5")], "the agent has no option 'ip-port' (did you mean 'ipport'?)"),
        ] {
            let found = problems(options);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(problem), "{found:?}");
        }
    }

    #[test]
    fn an_old_name_counts_for_the_new_one() {
        let old = problems_of_all(&[("ipaddr", "bmc"), ("plug", "1")]);
        assert_eq!(old, ["option 'ipaddr' is an old name: write 'ip'"]);

        let both = problems_of_all(&[("ip", "a"), ("ipaddr", "b"), ("plug", "1")]);
        assert!(both.contains(&"options 'ip' and 'ipaddr' are the same".to_owned()), "{both:?}");
    }

    #[test]
    fn what_is_required_must_be_there_unless_it_has_a_default() {
        let found = problems_of_all(&[("plug", "1")]);
        assert_eq!(found, ["option 'ip' is missing"]);
    }

    #[test]
    fn an_action_that_the_agent_lacks_is_said() {
        let metadata = Metadata::parse(AGENT).unwrap();
        let given = [("ip", "a"), ("plug", "b")].map(|(name, _)| Given { name, value: None });

        let problems = metadata.problems(&given, ["off", "monitor"]);

        assert_eq!(
            problems,
            ["the agent has no action 'monitor': list the actions that it has in 'actions'"]
        );
    }

    #[test]
    fn an_agent_that_knows_only_the_old_name_of_the_plug_is_told_apart() {
        let old = AGENT
            .lines()
            .filter(|line| !line.contains("name=\"plug\""))
            .collect::<String>()
            .replace("required=\"1\" deprecated=\"1\"", "required=\"1\"");
        let metadata = Metadata::parse(&old).unwrap();

        let problems = metadata.problems(&[Given { name: "plug", value: None }], []);

        assert!(problems[0].ends_with("write plug_option = \"port\")"), "{problems:?}");
        assert!(!metadata.may_ignore_plugs());
    }

    #[test]
    fn an_agent_without_plugs_of_its_own_may_ignore_them() {
        assert!(!Metadata::parse(AGENT).unwrap().may_ignore_plugs());
        let as_ip = AGENT.replace("name=\"auth\"", "name=\"port_as_ip\"");
        assert!(Metadata::parse(&as_ip).unwrap().may_ignore_plugs());
        let without =
            AGENT.replace("name=\"plug\"", "name=\"a\"").replace("name=\"port\"", "name=\"b\"");
        assert!(Metadata::parse(&without).unwrap().may_ignore_plugs());
    }

    #[test]
    fn a_document_type_is_passed_over() {
        let metadata = Metadata::parse(AGENT).unwrap();
        for kind in [
            "<!DOCTYPE resource-agent SYSTEM \"ra-api-1.dtd\">",
            "<!DOCTYPE resource-agent\n  PUBLIC '-//A > B//' \"http://x/ra-api-1.dtd\" >\n",
            "<!-- -->\n<!DOCTYPE resource-agent [<!ELEMENT resource-agent ANY>\n<!ENTITY a \
             \"]>\">]>",
        ] {
            let typed = AGENT.replacen("\n<resource-agent", &format!("\n{kind}<resource-agent"), 1);
            assert!(typed.contains(kind));
            assert_eq!(Metadata::parse(&typed).unwrap(), metadata, "{kind}");
        }
    }

    #[test]
    fn what_is_no_metadata_is_refused_and_does_no_harm() {
        for xml in [
            "",
            "fence_test: unknown action",
            "<html/>",
            "<resource-agent>",
            "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><resource-agent>&a;</resource-agent>",
            "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a \
             \"a\">]><resource-agent>&a;</resource-agent>",
            "<?xml version=\"1.0\"?><!DOCTYPE x [<resource-agent></resource-agent>",
            &"<resource-agent>".repeat(90_000),
            &format!("<resource-agent>{}</resource-agent>", "<a/>".repeat(200_000)),
        ] {
            assert!(Metadata::parse(xml).is_err(), "{}", &xml[..xml.len().min(80)]);
        }
        assert_eq!(Metadata::parse("<resource-agent/>").unwrap(), Metadata::default());
    }
}
