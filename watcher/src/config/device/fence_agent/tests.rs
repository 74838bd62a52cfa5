//! Devices of type `fence-agent`: what is wrong with them, and what they mean.

use fence_core::PerTarget;

use std::path::Path;

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
    read("agent = 'fence_test'\ntargets = ['n1']\noptions = { power_wait = 7 }", false).unwrap();
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
        "7: 'plug_option': it is not the name of an option",
        "8: 'actions': \"diag\" is none of \"off\", \"on\", \"reboot\", \"status\", \"list\", \"monitor\"",
        "9: 'password_option': it is set for each call",
        "10: 'secret_files': 'b': 'c' is not an absolute path",
        "10: 'secret_files': 'method': write the device's own key 'method'",
        "12: 'env': '1A': it is not the name of an environment variable",
        "13: 'env': 'API_TOKEN': a secret does not belong in this file",
        "15: 'options': 'a b': it is not the name of an option",
        "16: 'options': 'plug': it carries the target: write the device's own key 'plug'",
        "17: 'options': 'port': it carries the target: write the device's own key 'plug'",
        "18: 'options': 'action': it is set for each call",
        "19: 'options': 'nodename': it is set for each call",
        "20: 'options': 'method': write the device's own key 'method'",
        "21: 'options': 'port_as_ip': write plug_option = \"ip\" for the device",
        "22: 'options': 'version': with it the agent does nothing, and reports success",
        &format!("23: 'options': 'passwd': {secret}"),
        &format!("24: 'options': 'snmp-priv-passwd': {secret}"),
        "25: 'options': 'lanplus': leave it out: for many agents every given option is true (\"0\" in \
         quotes is passed on)",
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
        ("password_option = 'kg'\noptions = { kg = 'x' }", "'kg': it is also given as a secret"),
        ("secret_files = { password = '/a' }", "'password' is also in 'secret_files'"),
        ("options = { a-b = 'x', a_b = 'x' }", "'a_b' is written twice"),
        (
            "options = { a-b = 'x', a_b = 'x', c-d = 'x', c_d = 'x' }",
            "'a_b' is written twice, 'c_d' is written twice",
        ),
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
        ("'n[1-2]'", "{ n1 = '3' }", Some("'plug': there is none for 'n2'")),
        ("'*'", "{ n1 = '3' }", None),
        ("'n[1-2]'", "{ n1 = '3', n2 = '3' }", Some("'n1' and 'n2' have the same")),
        ("'*'", "{ n1 = '3', n2 = ' 3 ' }", Some("'n1' and 'n2' have the same")),
        ("'*'", "{ 'n[1-3]' = '3', n4 = '4' }", Some("'n1', 'n2' and 'n3' have the same")),
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
