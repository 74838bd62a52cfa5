//! `type = "fence-agent"`: one of ClusterLabs' fence agents, or another with their interface.

mod options;

use std::collections::{BTreeMap, BTreeSet};

use fence_core::execution::Method;
use fence_device::{AgentAction, FenceAgentSettings, SecretSource};
use fence_protocol::NodeName;
use fence_spool::{FileError, TrustedFile};

use super::own::Own;
use super::read::{Common, PASSWORD, PASSWORD_CREDENTIAL, PASSWORD_ENV, PASSWORD_FILE};
use super::shared::{Place, places_of_plug};
use crate::config::Targets;
use crate::config::reader::Section;
use crate::config::table::Form::{self, Table, Text};
use crate::config::table::Key;
use crate::config::table::Standing::{Default, Optional, Required};
use crate::config::values::{list, one_of, path, secret, table, text, wrong};
pub(super) use options::spelling;
use options::{
    NO_OPTION, Reserved, environment, is_option_name, option_name, options, set_otherwise,
};

pub(super) const ABOUT: &str = "\
    fence-watcher with fence agents, as ClusterLabs' fence-agents package brings them, or a site's \
    own. Keep the device that you need. `fence-watcher check` asks the agent for its options and \
    reports which are unknown, missing or outdated. A node must not be trusted to fence itself: \
    `nodes` says where a device may be used. (fence_ipmilan shows the password in the arguments of \
    its ipmitool, and lets it repeat an order that got no answer. The type \"ipmi\" does neither.)";

/// The keys of this type.
pub(super) const KEYS: &[Key] = &[
    Key::new("agent", Text, Required("\"fence_ipmilan\""))
        .help("The agent: a path, or the name of a file in /usr/sbin, /sbin or /usr/local/sbin."),
    Key::new("options", Table, Optional("{ username = \"fence\", lanplus = true, cipher = 17 }"))
        .help(
            "The agent's options: put here what you would pass to `pcs stonith create`, as texts, \
             numbers and `true`. Passwords, options that are set for each call (`action`, `plug`, \
             `method`), and `delay`, which belongs to the cluster's resource, are refused.",
        ),
    Key::new("plug", Form::PerTarget, Default("\"{target}\""))
        .help("The agent's name for each target. `targets` can be this table instead."),
    Key::new("plug_option", Text, Optional("\"ip\"")).help(
        "The option that carries the plug. The default is `plug`; old agents have `port`. If \
         each target has its own address, name the option that takes the address.",
    ),
    PASSWORD_FILE,
    PASSWORD_ENV,
    PASSWORD_CREDENTIAL,
    Key::new("password_option", Text, Optional("\"password\""))
        .help("The option that carries the password. The default is `password`."),
    Key::new("secret_files", Table, Optional("{ hexadecimal_kg = \"/etc/gfs2-fencing/ipmi-kg\" }"))
        .help("Further options, each read from a file."),
    Key::new("actions", Form::List, Optional("[\"off\", \"on\", \"status\", \"monitor\"]")).help(
        "The actions that may be used, some of `off`, `on`, `reboot`, `status`, `list` and \
         `monitor`. Without this key all actions of the agent may be used. An agent whose \
         metadata has no `status` is not asked for a state, and its fences are `verified: false`.",
    ),
    Key::new("env", Table, Optional("{ HTTPS_PROXY = \"http://proxy:3128\" }")).help(
        "The agent's environment. The agent receives no variable of the service's environment.",
    ),
];

/// The keys that the example sets.
pub(super) const WRITTEN: &[(&str, &str)] = &[
    ("name", "\"ipmi\""),
    ("options", "{ username = \"fence\", lanplus = true, cipher = 17 }"),
    ("plug", "\"{target}-ipmi\""),
    ("plug_option", "\"ip\""),
    ("password_file", "\"/etc/gfs2-fencing/ipmi-password\""),
];

/// Two other agents, at the end of the example.
pub(super) const FURTHER: &str = r#"# Rabbit nodes of Near Node Flash, with the agent of that
# project. The agent does not bring a node back: the `on` of a reboot fails, the answer says so, and
# the fence has succeeded.
[[device]]
name = "nnf"
type = "fence-agent"
agent = "fence_nnf"
targets = "rabbit-node-[1-2]"
plug_option = "nnf-node-name"
[device.options]
kubernetes-service-host = "10.30.107.247"
kubernetes-service-port = 6443
service-token-file = "/etc/nnf/service.token"
service-cert-file = "/etc/nnf/service.cert"

# Instances of AWS EC2. The agent knows them by their ids, so each target has its own. (The type
# "ec2" needs no agent, and knows instances by a tag.) Without the secret key and `access_key` the
# agent looks for the instance's own role. A forced stop takes its time.
[[device]]
name = "aws"
type = "fence-agent"
agent = "fence_aws"
targets = { cloud-node-1 = "i-0a1b2c3d4e5f60001", cloud-node-2 = "i-0a1b2c3d4e5f60002" }
max_concurrent = 2
timeout = "50s"
password_file = "/etc/gfs2-fencing/aws-secret-key"
password_option = "secret_key"
[device.options]
region = "eu-central-1"
access_key = "AKIAIOSFODNN7EXAMPLE"
power_timeout = 45
"#;

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<FenceAgentSettings> {
    let agent = agent(section, common);
    let plug = common.per_target(section, "plug");
    let plug_option = section.get("plug_option", option_name);
    let secrets = secrets(section);
    let reserved =
        Reserved { plug_option: plug_option.as_deref().unwrap_or("plug"), secrets: &secrets };
    let options = section.get("options", |value| options(value, &reserved)).unwrap_or_default();
    let env = section.get("env", environment).unwrap_or_default();
    let (actions, needed) = actions(section, common);
    if let Some(plug) = &plug {
        let own = Own { section, common, key: "plug", texts: plug };
        check_plugs(&own, |plug| places_of_plug(plug, plug_option.as_deref(), &options));
    }
    Some(FenceAgentSettings {
        agent: agent?,
        options,
        secrets,
        env,
        plug: plug?,
        plug_option,
        targets: common.targets.as_ref().and_then(Targets::nodes).cloned().unwrap_or_default(),
        actions,
        needed,
    })
}

/// The program: a path, or the name of an agent in one of the usual directories.
fn agent(section: &mut Section, common: &Common) -> Option<String> {
    let written = section.get("agent", |value| {
        let name = text(value)?;
        if name.contains('/') {
            path(value)?;
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
    let is_sound = |place: &&String| common.program_problem(place.as_ref()).is_none();
    if let Some(place) = places.iter().find(is_sound) {
        return Some(place.clone());
    }
    let is_there =
        |place: &&String| !matches!(TrustedFile::find(place.as_ref()), Err(FileError::Missing));
    let there: Vec<&String> = places.iter().filter(is_there).collect();
    if there.is_empty() {
        let text = format!(
            "there is no program '{}': install it (most are in the package fence-agents), or \
             correct 'agent'",
            places.join("' or '")
        );
        section.note("agent", text);
    }
    for problem in there.into_iter().filter_map(|place| common.program_problem(place.as_ref())) {
        section.note("agent", problem);
    }
    None
}

/// The secrets by the option that carries each.
fn secrets(section: &mut Section) -> BTreeMap<String, SecretSource> {
    let password = secret(section, PASSWORD);
    let option = section.get("password_option", option_name);
    let files = section.get("secret_files", |value| {
        table(value, |name, value| match set_otherwise(name) {
            _ if !is_option_name(name) => wrong(value, NO_OPTION),
            Some(problem) => wrong(value, problem),
            None => path(value).map(SecretSource::File),
        })
    });
    let mut secrets = files.unwrap_or_default();
    if let Some(source) = password {
        let option = option.unwrap_or_else(|| "password".to_owned());
        if secrets.insert(option.clone(), source).is_some() {
            let text = format!("'{option}' is also in 'secret_files': keep one");
            section.at("password_option", text);
        }
    } else if option.is_some() {
        section.at("password_option", "'password_option' needs a 'password_file'");
    }
    secrets
}

/// The actions that may be used, and those that the agent must have.
fn actions(
    section: &mut Section,
    common: &Common,
) -> (Option<BTreeSet<AgentAction>>, BTreeSet<AgentAction>) {
    use AgentAction::{List, Monitor, Off, On, Reboot};
    let words = AgentAction::ALL.map(|action| (action.as_str(), action));
    let Some(given) = section.get("actions", |value| list(value, one_of(&words))) else {
        let mut needed = BTreeSet::from([Off, On, Monitor]);
        needed.extend(common.discovers().then_some(List));
        needed.extend((common.method == Some(Method::Cycle)).then_some(Reboot));
        return (None, needed);
    };
    let given: BTreeSet<AgentAction> = given.into_iter().collect();
    let has = |action| given.contains(&action);
    let is_method = |method| common.method == Some(method);
    for (is_lacking, text) in [
        (!has(Off) && !has(Reboot), NO_FENCE),
        (is_method(Method::Cycle) && !has(Reboot), "'method' \"cycle\" needs \"reboot\""),
        (is_method(Method::OnOff) && !(has(Off) && has(On)), NO_ON_OFF),
        (common.discovers() && !has(List), "'targets' \"discover\" needs \"list\""),
    ] {
        if is_lacking {
            section.note("actions", text);
        }
    }
    (Some(given.clone()), given)
}

/// Notes targets that have no plug, and those that would share one by mistake.
fn check_plugs(own: &Own, places: impl Fn(&str) -> Vec<Place>) {
    own.check_each(|_| None);
    if let Some(plug) = own.texts.of_all()
        && own.common.known_targets(own.texts).len() != 1
    {
        return own.note(&format!(
            "\"{plug}\" is the same for all targets: write {{target}} in it, or a table"
        ));
    }
    let places = |node: &NodeName| own.texts.of(node).map(|plug| places(&plug)).unwrap_or_default();
    own.check_apart(places, "the same", ONE_FOR_ALL);
}

/// Where fence agents are installed.
const DIRECTORIES: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin"];

const NO_FENCE: &str = "neither \"off\" nor \"reboot\" is there: the device could not fence";

const NO_ON_OFF: &str = "'method' \"onoff\" needs \"off\" and \"on\"";

const ONE_FOR_ALL: &str = "a plug controls one node: give each its own";

#[cfg(test)]
mod tests;
