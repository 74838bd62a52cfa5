//! `type = "fence-agent"`: one of ClusterLabs' fence agents, or one that speaks as they do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::{AgentAction, FenceAgentSettings, SecretSource};
use fence_protocol::NodeName;
use fence_spool::{FileError, TrustedFile, program_problem};
use toml::Spanned;
use toml::de::DeValue;

use super::Common;
use super::shared::{Place, places_of_plug};
use super::twins::in_one_place;
use crate::config::Targets;
use crate::config::reader::{Parsed, Section};
use crate::config::values::{
    NO_VARIABLE, absolute, is_variable, list, number, one_of, path, per_target, secret, table,
    text, wrong,
};

/// The keys of this type.
pub(super) const KEYS: &[&str] = &[
    "agent",
    "options",
    "plug",
    "plug_option",
    "actions",
    "env",
    "password_file",
    "password_env",
    "password_credential",
    "password_option",
    "secret_files",
];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<FenceAgentSettings> {
    let agent = agent(section, common);
    let plug =
        per_target(section, "plug", common.names.as_ref(), Some("{target}"), common.problems);
    let plug_option = section.get("plug_option", option_name);
    let secrets = secrets(section, common);
    let reserved =
        Reserved { plug_option: plug_option.as_deref().unwrap_or("plug"), secrets: &secrets };
    let options = section.get("options", |value| options(value, &reserved));
    let env = section.get("env", environment).unwrap_or_default();
    let (actions, needed) = actions(section, common);
    let options = options.unwrap_or_default();
    if let Some(plug) = &plug {
        check_plugs(plug, common, |plug| places_of_plug(plug, plug_option.as_deref(), &options));
    }
    Some(FenceAgentSettings {
        agent: agent?,
        options,
        secrets,
        env,
        plug: plug?,
        plug_option,
        targets: match &common.targets {
            Some(Targets::Nodes(nodes)) => nodes.clone(),
            _ => BTreeSet::new(),
        },
        actions,
        needed,
    })
}

/// The program: a path, or the name of an agent where those are installed.
fn agent(section: &mut Section, common: &Common) -> Option<String> {
    let offset = section.offset_of("agent");
    let written = section.require("agent", |value| {
        let name = text(value)?;
        if name.contains('/') {
            absolute(&name).or_else(|problem| wrong(value, problem))?;
        } else if !is_option_name(&name) {
            return wrong(value, "it is neither a path nor the name of an agent");
        }
        Ok(name)
    })?;
    let places: Vec<String> = if written.contains('/') {
        vec![written]
    } else {
        DIRECTORIES.iter().map(|directory| format!("{directory}/{written}")).collect()
    };
    if !common.programs_must_exist {
        return places.into_iter().next();
    }
    let is_sound = |place: &&String| program_problem(Path::new(place)).is_none();
    if let Some(place) = places.iter().find(is_sound) {
        return Some(place.clone());
    }
    let is_there =
        |place: &&String| !matches!(TrustedFile::find(Path::new(place)), Err(FileError::Missing));
    let there: Vec<&String> = places.iter().filter(is_there).collect();
    if there.is_empty() {
        common.problems.at(offset, absent(&places));
    }
    for place in there {
        let problem = program_problem(Path::new(place)).unwrap_or_default();
        common.problems.at(offset, format!("'agent': {problem}"));
    }
    None
}

/// Says in one line that the agent is in none of these places.
fn absent(places: &[String]) -> String {
    let places: Vec<String> = places.iter().map(|place| format!("'{place}'")).collect();
    format!(
        "'agent': there is no program {}: install it (most are in the package fence-agents), or correct \
         'agent'",
        places.join(" or ")
    )
}

/// The secrets by the option that carries each.
fn secrets(section: &mut Section, common: &Common) -> BTreeMap<String, SecretSource> {
    let keys = ["password_file", "password_env", "password_credential"];
    let password = secret(section, keys, common.problems);
    let offset = section.offset_of("password_option");
    let option = section.get("password_option", option_name);
    let mut secrets = section
        .get("secret_files", |value| {
            table(value, |name, value| match set_otherwise(name) {
                _ if !is_option_name(name) => wrong(value, NO_OPTION),
                Some(problem) => wrong(value, problem),
                None => path(value).map(SecretSource::File),
            })
        })
        .unwrap_or_default();
    match (password, option) {
        (Some(source), option) => {
            let option = option.unwrap_or_else(|| "password".to_owned());
            if secrets.insert(option.clone(), source).is_some() {
                let text = format!("'{option}' is also in 'secret_files': keep one");
                common.problems.at(offset, text);
            }
        }
        (None, Some(_)) => {
            common.problems.at(offset, "'password_option' needs a 'password_file'");
        }
        (None, None) => {}
    }
    secrets
}

/// The options that have places of their own.
struct Reserved<'a> {
    plug_option: &'a str,
    secrets: &'a BTreeMap<String, SecretSource>,
}

impl Reserved<'_> {
    /// Why `name` is none of the table of options, if that is so.
    fn problem(&self, name: &str) -> Option<&'static str> {
        let spelling = spelling(name);
        let is = |other: &str| self::spelling(other) == spelling;
        let are_plugs = PLUGS.contains(&self.plug_option) && PLUGS.contains(&spelling.as_str());
        if is(self.plug_option) || are_plugs {
            return Some("it carries the target: write the device's own key 'plug'");
        }
        if self.secrets.keys().any(|secret| is(secret)) {
            return Some("it is also given as a secret");
        }
        set_otherwise(name).or_else(|| is_secret(&spelling).then_some(IN_CLEAR))
    }
}

/// Why `name` is nothing to be configured, if that is so.
fn set_otherwise(name: &str) -> Option<&'static str> {
    match spelling(name).as_str() {
        "action" | "option" | "nodename" => Some("it is set for each call"),
        "delay" => Some(LATE),
        "method" => Some("write the device's own key 'method'"),
        "port_as_ip" => Some("write plug_option = \"ip\" for the device"),
        "help" | "version" => Some("with it the agent does nothing, and calls that a success"),
        _ => None,
    }
}

/// Agents take both for the same.
pub(super) fn spelling(name: &str) -> String {
    name.replace('-', "_")
}

/// The options, each as the agent is to read it.
fn options(value: &Spanned<DeValue>, reserved: &Reserved) -> Parsed<BTreeMap<String, String>> {
    let options = table(value, |name, value| match reserved.problem(name) {
        _ if !is_option_name(name) => wrong(value, NO_OPTION),
        Some(problem) => wrong(value, problem),
        None => option_value(value),
    })?;
    let mut spellings = BTreeSet::new();
    match options.keys().find(|name| !spellings.insert(spelling(name))) {
        Some(name) => wrong(value, format!("'{name}' is written twice")),
        None => Ok(options),
    }
}

fn option_value(value: &Spanned<DeValue>) -> Parsed<String> {
    match value.get_ref() {
        DeValue::Boolean(true) => Ok("1".to_owned()),
        DeValue::Boolean(false) => wrong(
            value,
            "leave it out: many agents take an option as true whenever it is given (\"0\" in quotes is \
             passed on)",
        ),
        DeValue::Integer(_) => {
            let number = number(i64::MIN..=i64::MAX)(value)?;
            Ok(number.to_string())
        }
        _ => line(value),
    }
}

/// A text that arrives as it is: agents read lines, and cut blanks off their ends.
fn line(value: &Spanned<DeValue>) -> Parsed<String> {
    let text = text(value)?;
    if text.contains(char::is_control) {
        return wrong(value, "it has more than one line, or control characters");
    }
    if text.trim() != text {
        return wrong(value, "it begins or ends with a blank");
    }
    Ok(text)
}

fn environment(value: &Spanned<DeValue>) -> Parsed<BTreeMap<String, String>> {
    table(value, |name, value| match is_secret(&name.to_ascii_lowercase()) {
        _ if !is_variable(name) => wrong(value, NO_VARIABLE),
        true => wrong(value, "a secret does not belong in this file"),
        false => line(value),
    })
}

/// The actions that may be used, and those that the agent must have.
fn actions(
    section: &mut Section,
    common: &Common,
) -> (Option<BTreeSet<AgentAction>>, BTreeSet<AgentAction>) {
    use AgentAction::{List, Monitor, Off, On, Reboot};
    let offset = section.offset_of("actions");
    let words = AgentAction::ALL.map(|action| (action.as_str(), action));
    let Some(given) = section.get("actions", |value| list(value, one_of(&words))) else {
        let mut needed = BTreeSet::from([Off, On, Monitor]);
        needed.extend(common.discovers().then_some(List));
        needed.extend((common.method == Some(Method::Cycle)).then_some(Reboot));
        return (None, needed);
    };
    let given: BTreeSet<AgentAction> = given.into_iter().collect();
    let lacks = |is_needed: bool, needs: &[AgentAction], text: &str| {
        if is_needed && !needs.iter().all(|action| given.contains(action)) {
            common.problems.at(offset, format!("'actions': {text}"));
        }
    };
    let can_fence = given.contains(&Off) || given.contains(&Reboot);
    lacks(
        !can_fence,
        &[Off],
        "neither \"off\" nor \"reboot\" is there: the device could not fence",
    );
    lacks(common.method == Some(Method::Cycle), &[Reboot], "'method' \"cycle\" needs \"reboot\"");
    lacks(
        common.method == Some(Method::OnOff),
        &[Off, On],
        "'method' \"onoff\" needs \"off\" and \"on\"",
    );
    lacks(common.discovers(), &[List], "'targets' \"discover\" needs \"list\"");
    (Some(given.clone()), given)
}

/// Notes targets that have no plug, and those that would share one by mistake.
fn check_plugs(plug: &PerTarget, common: &Common, places: impl Fn(&str) -> Vec<Place>) {
    let note = |text: String| common.problems.at(common.targets_at, text);
    let nodes = match &common.targets {
        Some(Targets::Nodes(nodes)) => Some(nodes),
        _ => None,
    };
    if let PerTarget::Pattern(pattern) = plug
        && !pattern.contains("{target}")
        && nodes.is_none_or(|nodes| nodes.len() != 1)
    {
        note(format!(
            "'plug': \"{pattern}\" is the same for all targets: write {{target}} in it, or a table"
        ));
    }
    for node in nodes.into_iter().flatten().filter(|node| plug.of(node).is_none()) {
        note(format!("'plug': there is none for the target '{node}'"));
    }
    let places = |node: &NodeName| plug.of(node).map(|plug| places(&plug)).unwrap_or_default();
    if plug.of_all().is_none()
        && let Some((one, other)) = in_one_place(common.known_targets(plug), places)
    {
        note(format!(
            "'plug': '{one}' and '{other}' have the same: a plug controls one node, so each needs \
             one of its own"
        ));
    }
}

/// The name of an option that carries something of ours.
fn option_name(value: &Spanned<DeValue>) -> Parsed<String> {
    let name = text(value)?;
    match set_otherwise(&name) {
        _ if !is_option_name(&name) => wrong(value, NO_OPTION),
        // Some agents know their target by this name alone.
        Some(problem) if name != "nodename" => wrong(value, problem),
        _ => Ok(name),
    }
}

fn is_option_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Whether an option or variable of this name, in small letters, holds a secret itself, and not the
/// place of one.
fn is_secret(name: &str) -> bool {
    let holds = |part: &&str| name.contains(part);
    let is_place = |end: &&str| name.ends_with(end);
    SECRETS.iter().any(holds) && !PLACES.iter().any(is_place)
}

const SECRETS: &[&str] =
    &["passw", "passphrase", "secret", "token", "apikey", "api_key", "community", "hexadecimal_kg"];
const PLACES: &[&str] = &["_file", "_script", "_path", "_uri", "_url"];

/// Where fence agents are installed.
const DIRECTORIES: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// The two names of the usual option for a plug.
const PLUGS: &[&str] = &["plug", "port"];

const IN_CLEAR: &str = "a secret does not belong in this file: put it into a file that only root can \
    read, and name that in 'password_file' (with 'password_option', if the option is not 'password') or \
    in 'secret_files'";

const LATE: &str = "the agent would wait with an order that was given, and give it whoever waits by then: a delay \
    belongs to the cluster's resource (pcmk_delay_base, or the option 'delay' of fence_gfs2_recorder)";

const NO_OPTION: &str = "it is no name of an option";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigError, DeviceKind, Origin, parse};
    use AgentAction::{Monitor, Off, On, Status};

    const DEVICE: &str = "[[device]]\nname = 'd'\ntype = 'fence-agent'\n";

    fn read(text: &str, programs_must_exist: bool) -> Result<FenceAgentSettings, ConfigError> {
        let file = Path::new("w.toml");
        let origin = Origin { file, node: "n1".into(), environment: &[], programs_must_exist };
        let mut settings = parse(&format!("{DEVICE}{text}"), &origin)?;
        match settings.devices.remove(0).kind {
            DeviceKind::FenceAgent(settings) => Ok(settings),
            other => panic!("{other:?}"),
        }
    }

    /// The problems, one a line.
    fn problems(text: &str) -> String {
        read(text, false).map_or_else(|error| error.to_string(), |settings| format!("{settings:?}"))
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let settings = read("agent = 'fence_test'\ntargets = 'n[1-2]'", false).unwrap();

        assert_eq!(settings.agent, "/usr/sbin/fence_test");
        assert_eq!(settings.plug, PerTarget::Pattern("{target}".into()));
        assert_eq!((settings.addresses(), &settings.plug_option), (None, &None));
        assert_eq!(settings.options.len(), 0);
        assert_eq!(settings.targets.len(), 2);
        assert_eq!(settings.actions, None);
        assert_eq!(settings.needed, [Off, On, Monitor].into());
    }

    #[test]
    fn a_delay_of_the_agents_own_is_refused_wherever_it_is_written() {
        for text in [
            "targets = ['n1']\noptions = { delay = 7 }",
            "targets = ['n1']\noptions = { delay = '0' }",
            "targets = ['n1']\nsecret_files = { delay = '/delay' }",
            "targets = ['n1']\nplug_option = 'delay'",
        ] {
            let found = problems(&format!("agent = 'fence_test'\n{text}"));
            assert!(found.contains("'delay'") && found.contains("pcmk_delay_base"), "{found}");
        }
        read("agent = 'fence_test'\ntargets = ['n1']\noptions = { power_wait = 7 }", false)
            .unwrap();
    }

    #[test]
    fn what_is_written_is_meant() {
        let settings = read(
            "agent = '/opt/fence_site'\ntargets = { n1 = 'a', 'n[2-3]' = '{target}-x' }\n\
             plug_option = 'ip'\nactions = ['off', 'status']\nenv = { HOME = '/root' }\n\
             options = { ipport = 623, lanplus = true, a-b = 'c d' }\n\
             password_env = 'P'\npassword_option = 'secret_key'\nsecret_files = { kg = '/kg' }",
            false,
        )
        .unwrap();

        let text = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        assert_eq!(settings.agent, "/opt/fence_site");
        assert_eq!(settings.plug.of(&"n3".parse().unwrap()).unwrap(), "n3-x");
        assert_eq!(settings.plug_option.as_deref(), Some("ip"));
        assert_eq!(settings.addresses(), Some(&settings.plug));
        assert_eq!(settings.needed, [Off, Status].into());
        assert_eq!(settings.actions, Some(settings.needed));
        assert_eq!(settings.env, [("HOME", "/root")].map(text).into());
        let options = [("ipport", "623"), ("lanplus", "1"), ("a-b", "c d")];
        assert_eq!(settings.options, options.map(text).into());
        let secrets = [
            ("secret_key".to_owned(), SecretSource::Environment("P".into())),
            ("kg".to_owned(), SecretSource::File("/kg".into())),
        ];
        assert_eq!(settings.secrets, secrets.into());
    }

    #[test]
    fn what_is_discovered_or_cycled_needs_the_actions_for_it() {
        let rest = "agent = 'fence_test'\ntargets = 'discover'\nmethod = 'cycle'\n";
        let needed = read(rest, false).unwrap().needed;
        assert!(needed.contains(&AgentAction::List) && needed.contains(&AgentAction::Reboot));

        assert_eq!(
            problems(&format!("{rest}actions = ['on']")),
            "w.toml:7: 'actions': 'method' \"cycle\" needs \"reboot\"\n\
             w.toml:7: 'actions': 'targets' \"discover\" needs \"list\"\n\
             w.toml:7: 'actions': neither \"off\" nor \"reboot\" is there: the device could not fence"
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_with_its_line() {
        let text = r#"agent = "../fence"
targets = { n1 = "1" }
plug = "{target}"
plug_option = "a b"
actions = ["off", "diag"]
password_option = "action"
secret_files = { method = "/a", b = "c" }
[device.env]
"1A" = "x"
API_TOKEN = "x"
[device.options]
"a b" = "x"
plug = "1"
port = "1"
action = "on"
nodename = "n1"
method = "cycle"
port_as_ip = true
version = true
passwd = "x"
snmp-priv-passwd = "x"
lanplus = false
login = "a\naction=on"
user = " x"
list = []
token_file = "/token"
"#;
        let secret = "a secret does not belong in this file: put it into a file that only root can \
                      read, and name that in 'password_file' (with 'password_option', if the option is \
                      not 'password') or in 'secret_files'";
        let lines = [
            "4: 'agent': '../fence' is not an absolute path",
            "6: 'plug' is also written with the targets: keep one",
            "7: 'plug_option': it is no name of an option",
            "8: 'actions': \"diag\" is none of \"off\", \"on\", \"reboot\", \"status\", \"list\", \"monitor\"",
            "9: 'password_option': it is set for each call",
            "10: 'secret_files': 'b': 'c' is not an absolute path",
            "10: 'secret_files': 'method': write the device's own key 'method'",
            "12: 'env': '1A': it is no name of an environment variable",
            "13: 'env': 'API_TOKEN': a secret does not belong in this file",
            "15: 'options': 'a b': it is no name of an option",
            "16: 'options': 'plug': it carries the target: write the device's own key 'plug'",
            "17: 'options': 'port': it carries the target: write the device's own key 'plug'",
            "18: 'options': 'action': it is set for each call",
            "19: 'options': 'nodename': it is set for each call",
            "20: 'options': 'method': write the device's own key 'method'",
            "21: 'options': 'port_as_ip': write plug_option = \"ip\" for the device",
            "22: 'options': 'version': with it the agent does nothing, and calls that a success",
            &format!("23: 'options': 'passwd': {secret}"),
            &format!("24: 'options': 'snmp-priv-passwd': {secret}"),
            "25: 'options': 'lanplus': leave it out: many agents take an option as true whenever it is \
             given (\"0\" in quotes is passed on)",
            "26: 'options': 'login': it has more than one line, or control characters",
            "27: 'options': 'user': it begins or ends with a blank",
            "28: 'options': 'list': expected a text in quotes, not a list",
        ];
        let expected: Vec<String> = lines.iter().map(|line| format!("w.toml:{line}")).collect();
        assert_eq!(problems(text).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn options_that_carry_something_of_ours_are_not_given_twice() {
        let rest = "agent = 'fence_test'\ntargets = 'n1'\npassword_env = 'P'\n";
        for (more, found) in [
            ("plug_option = 'ip'\noptions = { ip = 'x' }", "'ip': it carries the target"),
            ("plug_option = 'port'\noptions = { plug = 'x' }", "'plug': it carries the target"),
            ("plug_option = 'a-b'\noptions = { a_b = 'x' }", "'a_b': it carries the target"),
            (
                "password_option = 'kg'\noptions = { kg = 'x' }",
                "'kg': it is also given as a secret",
            ),
            ("secret_files = { password = '/a' }", "'password' is also in 'secret_files'"),
            ("options = { a-b = 'x', a_b = 'x' }", "'a_b' is written twice"),
        ] {
            let problems = problems(&format!("{rest}{more}"));
            assert!(problems.contains(found) && problems.lines().count() == 1, "{problems}");
        }
        let fixed_outlet = format!("{rest}plug_option = 'ip'\noptions = {{ plug = '1' }}");
        assert!(read(&fixed_outlet, false).is_ok());
        let no_password = "agent = 'fence_test'\ntargets = 'n1'\npassword_option = 'p'";
        assert!(problems(no_password).contains("'password_option' needs a 'password_file'"));
    }

    #[test]
    fn every_target_has_a_plug_and_several_have_not_the_same() {
        for (targets, plug, problem) in [
            ("'n1'", "'3'", None),
            ("'n[1-2]'", "'3'", Some("'plug': \"3\" is the same for all targets")),
            ("'*'", "'3'", Some("is the same for all targets")),
            ("'n[1-2]'", "{ n1 = '3' }", Some("'plug': there is none for the target 'n2'")),
            ("'*'", "{ n1 = '3' }", None),
            ("'n[1-2]'", "{ n1 = '3', n2 = '3' }", Some("'n1' and 'n2' have the same")),
            ("'*'", "{ n1 = '3', n2 = ' 3 ' }", Some("'n1' and 'n2' have the same")),
            ("'n[1-2]'", "{ 'n[1-2]' = '3' }", Some("'n1' and 'n2' have the same")),
            ("'n[1-2]'", "{ n1 = 'a', n2 = 'A' }", None),
            ("'n3,N3'", "{ n3 = '3', N3 = '3' }", None),
            (
                "'n[1-2]'",
                "{ n1 = 'a', n2 = 'A' }\nplug_option = 'ip'",
                Some("'n1' and 'n2' have the same"),
            ),
        ] {
            let text = format!("agent = 'fence_test'\ntargets = {targets}\nplug = {plug}");
            match problem {
                None => assert!(read(&text, false).is_ok(), "{text}"),
                Some(problem) => assert!(problems(&text).contains(problem), "{}", problems(&text)),
            }
        }
    }

    #[test]
    fn an_agent_is_looked_for_where_agents_are_and_must_be_sound() {
        let read = |agent: &str| read(&format!("agent = '{agent}'\ntargets = 'n1'"), true);
        assert_eq!(read("/bin/sh").unwrap().agent, "/bin/sh");

        let error = read("fence_nowhere").unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            error.contains("4: 'agent': there is no program '/usr/sbin/fence_nowhere' or "),
            "{error}"
        );
        for directory in DIRECTORIES {
            assert!(error.contains(&format!("'{directory}/fence_nowhere'")), "{error}");
        }
        assert!(error.contains("install it (most are in the package fence-agents)"), "{error}");
        let error = read("/nowhere/fence_x").unwrap_err().to_string();
        assert!(error.contains("there is no program '/nowhere/fence_x': install it"), "{error}");
    }
}
