//! `type = "ec2"`: the instance of each target, and how AWS is reached.

use std::path::PathBuf;

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::{Ec2Settings, SecretSource};
use fence_protocol::NodeName;
use toml::Spanned;
use toml::de::DeValue;

use super::own::Own;
use super::read::Common;
use crate::config::reader::{Parsed, Section};
use crate::config::table::Form::{self, Text};
use crate::config::table::Key;
use crate::config::table::Standing::{Default, Optional};
use crate::config::values::{boolean, checked, path, secret, text, wrong};

pub(super) const ABOUT: &str = "\
    fence-watcher that stops and starts instances of AWS EC2. Credentials come from the places \
    where all of AWS's tools take them, in this order: the environment, the default profile in \
    ~/.aws of root, a web identity, the container, the role of the instance (IMDSv2). The role is \
    the best of these: there is no key to keep. README.md shows the policy that it needs. EC2 \
    needs 10 to 30 seconds to stop an instance, so Pacemaker has to wait longer: fence_timeout=120 \
    for the agent, and more for pcmk_off_timeout and pcmk_reboot_timeout.";

/// The keys of this type.
pub(super) const KEYS: &[Key] = &[
    Key::new("instance", Form::PerTarget, Default("\"{target}\"")).help(
        "The value of the tag of each target's instance, or the id of the instance (`i-…`). \
         `targets` can be this table instead. Exactly one instance must match: with none or \
         several, nothing is done. An instance that is `shutting-down` counts. Instances that \
         are `terminated` count only if nothing else has the tag, and are off for good.",
    ),
    Key::new("tag", Text, Default("\"Name\"")).help(
        "The name of the tag. With `\"discover\"` its values are the names of the nodes: then \
         use a separate tag.",
    ),
    Key::new("region", Text, Optional("\"eu-central-1\"")).help(
        "The region, if neither the environment (`AWS_REGION`) nor the profile nor the \
         watcher's own instance shows it.",
    ),
    Key::new(
        "endpoint",
        Text,
        Optional("\"https://vpce-0123abcd.ec2.eu-central-1.vpce.amazonaws.com\""),
    )
    .help(
        "The URL of EC2, if it is not the usual one: for example a private endpoint. Without \
         this key, `AWS_ENDPOINT_URL_EC2` and the profile apply.",
    ),
    Key::new("profile", Text, Optional("\"fencing\"")).help(
        "A profile of AWS's configuration files (`~/.aws/config`, `~/.aws/credentials`). With \
         this key or `access_key`, no other credentials are tried.",
    ),
    Key::new("access_key", Text, Optional("\"AKIAIOSFODNN7EXAMPLE\""))
        .help("An access key. One of the next three keys is required for its secret."),
    Key::new("secret_key_file", Form::Path, Optional("\"/etc/gfs2-fencing/aws-secret-key\""))
        .help("The file with the secret. A file that others can read is refused: use mode 0600."),
    Key::new("secret_key_env", Text, Optional("\"FENCE_SECRET_KEY\""))
        .help("The secret, instead of `secret_key_file`: a variable of the service's environment."),
    Key::new("secret_key_credential", Form::Name, Optional("\"aws-secret-key\"")).help(
        "The secret, instead of `secret_key_file`: a credential of systemd (`LoadCredential=`).",
    ),
    Key::new("skip_os_shutdown", Form::Boolean, Default("true")).help(
        "`true`: EC2 does not wait for the guest to shut down. With `false` EC2 waits for 4 \
         minutes on a guest that hangs. `false` is for services that imitate EC2 and do not \
         know this option.",
    ),
    Key::new("helper", Form::Path, Optional("\"/usr/libexec/gfs2-fencing/fence-watcher-ec2\"")).help(
        "The program `fence-watcher-ec2`. By default the one beside `fence-watcher`, or else the \
         one of the package `gfs2-fencing-ec2`.",
    ),
];

/// The keys that the example sets.
pub(super) const WRITTEN: &[(&str, &str)] = &[
    ("name", "\"aws\""),
    ("targets", "\"n[1-4]\""),
    ("region", "\"eu-central-1\""),
    ("timeout", "\"90s\""),
    ("max_concurrent", "8"),
];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<Ec2Settings> {
    if !cfg!(feature = "ec2") {
        section.wrong("'type': this fence-watcher was built without its feature 'ec2'");
    }
    if common.method == Some(Method::Cycle) {
        section.note("method", NO_CYCLE);
    }
    let instance = instance(section, common);
    let tag = section.get("tag", tag);
    let region = section.get("region", region);
    let endpoint = section.get("endpoint", endpoint);
    let profile = section.get("profile", word);
    let access_key = access_key(section);
    if profile.is_some() && access_key.is_some() {
        section.at("profile", "'profile' and 'access_key': give only one of them");
    }
    let skip_os_shutdown = section.get("skip_os_shutdown", boolean);
    Some(Ec2Settings {
        helper: helper(section, common),
        instance: instance?,
        tag: tag?,
        region,
        endpoint,
        profile,
        access_key,
        skip_os_shutdown: skip_os_shutdown?,
    })
}

/// Each target's instance: the value of its tag, or its id.
fn instance(section: &mut Section, common: &Common) -> Option<PerTarget> {
    let instance = common.per_target(section, "instance")?;
    let own = Own { section, common, key: "instance", texts: &instance };
    if common.discovers() && matches!(instance, PerTarget::Map(_)) {
        own.note("a table is for targets that are written: not for \"discover\"");
        return Some(instance);
    }
    own.check_each(|_| None);
    let place = |target: &NodeName| instance.of(target).map(|name| meant(&name));
    own.check_apart(place, "the same", ONE_FOR_ALL);
    Some(instance)
}

/// The instance that `name` means: the letter case of an id makes no difference.
pub(super) fn meant(name: &str) -> String {
    let (name, small) = (name.trim(), name.trim().to_ascii_lowercase());
    if is_id(&small) { small } else { name.to_owned() }
}

/// Whether this, in small letters, is the id of an instance and not the value of a tag.
pub(super) fn is_id(name: &str) -> bool {
    let number = name.strip_prefix("i-").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The access key, with the place of its secret.
fn access_key(section: &mut Section) -> Option<(String, SecretSource)> {
    let keys = ["secret_key_file", "secret_key_env", "secret_key_credential"];
    match (section.has("access_key"), keys.into_iter().find(|key| section.has(key))) {
        (true, None) => section.at("access_key", format!("'access_key' needs {KEYS_OF_SECRET}")),
        (false, Some(secret)) => section.at(secret, "'access_key' is missing"),
        _ => {}
    }
    let id = section.get("access_key", word);
    id.zip(secret(section, keys))
}

/// Where the package `gfs2-fencing-ec2` has the program.
const PACKAGED: &str = "/usr/libexec/gfs2-fencing/fence-watcher-ec2";

/// The program that speaks to AWS: by default the one beside this program, else that of the package.
fn helper(section: &mut Section, common: &Common) -> PathBuf {
    let helper = section.get("helper", path).unwrap_or_else(|| {
        let here = std::env::current_exe().unwrap_or_default();
        let beside = here.with_file_name("fence-watcher-ec2");
        if beside.exists() { beside } else { PACKAGED.into() }
    });
    if let Some(problem) = common.program_problem(&helper) {
        let hint = "install gfs2-fencing-ec2, or name the program with 'helper'";
        section.at("helper", format!("{problem}; {hint}"));
    }
    helper
}

/// The name of a tag.
fn tag(value: &Spanned<DeValue>) -> Parsed<String> {
    let is_right = |tag: &str| (1..=TAG_BYTES_MAX).contains(&tag.len()) && !has_control(tag);
    checked(value, is_right, "it is empty, too long, or has control characters")
}

fn region(value: &Spanned<DeValue>) -> Parsed<String> {
    let region = text(value)?;
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || !region.bytes().all(is_allowed) {
        let region = region.escape_debug();
        return wrong(value, format!("\"{region}\" is not a region such as \"eu-central-1\""));
    }
    Ok(region)
}

fn endpoint(value: &Spanned<DeValue>) -> Parsed<String> {
    let is_url = |url: &str| {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
    };
    word(value)?;
    checked(value, is_url, "expected a URL such as \"https://ec2.eu-central-1.amazonaws.com\"")
}

/// A text without blanks.
fn word(value: &Spanned<DeValue>) -> Parsed<String> {
    let is_word = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
    checked(value, |word| is_word(word) && !has_control(word), "it is empty, or has blanks")
}

fn has_control(text: &str) -> bool {
    text.contains(char::is_control)
}

/// The longest name of a tag that AWS allows.
const TAG_BYTES_MAX: usize = 512;

const KEYS_OF_SECRET: &str = "'secret_key_file', 'secret_key_env' or 'secret_key_credential'";

const ONE_FOR_ALL: &str = "an instance is one node: give each its own";

const NO_CYCLE: &str = "EC2 has no reset for a fence: its RebootInstances lets a guest that hangs \
                        go on for minutes, and shows nothing: leave \"onoff\"";

#[cfg(test)]
#[cfg(feature = "ec2")]
mod tests {
    use super::*;
    use crate::config::{DeviceKind, Origin, Targets, WatcherConfig, parse};

    fn read(keys: &str, programs_must_exist: bool) -> Result<WatcherConfig, String> {
        let text = format!("[[device]]\nname = 'aws'\ntype = 'ec2'\n{keys}");
        let file = std::path::Path::new("w.toml");
        let origin = Origin { file, node: "n1".into(), environment: &[], programs_must_exist };
        parse(&text, &origin).map_err(|error| error.to_string())
    }

    fn settings(keys: &str) -> Ec2Settings {
        match read(keys, false).unwrap().devices.swap_remove(0).kind {
            DeviceKind::Ec2(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn problems(keys: &str) -> String {
        read(keys, false).unwrap_err()
    }

    #[test]
    fn the_targets_are_all_that_has_to_be_written() {
        let settings = settings("targets = 'n[1-3]'");

        assert_eq!(settings.instance, PerTarget::Pattern("{target}".into()));
        assert_eq!((settings.tag.as_str(), settings.skip_os_shutdown), ("Name", true));
        assert_eq!(settings.helper.file_name().unwrap(), "fence-watcher-ec2");
        let chain = (settings.region, settings.endpoint, settings.profile, settings.access_key);
        assert_eq!(chain, (None, None, None, None));
    }

    #[test]
    fn what_is_written_is_meant() {
        let found = settings(
            "targets = { n1 = 'i-1234567890abcdef0', n2 = 'web-2' }\ntag = 'fence'\n\
             region = 'eu-central-1'\nendpoint = 'http://127.0.0.1:5000'\naccess_key = 'AKIA'\n\
             secret_key_file = '/etc/key'\nskip_os_shutdown = false\nhelper = '/opt/ec2'",
        );

        let node = |name: &str| name.parse().unwrap();
        let instances = [(node("n1"), "i-1234567890abcdef0".into()), (node("n2"), "web-2".into())];
        let expected = Ec2Settings {
            helper: "/opt/ec2".into(),
            instance: PerTarget::Map(instances.into()),
            tag: "fence".into(),
            region: Some("eu-central-1".into()),
            endpoint: Some("http://127.0.0.1:5000".into()),
            profile: None,
            access_key: Some(("AKIA".into(), SecretSource::File("/etc/key".into()))),
            skip_os_shutdown: false,
        };
        assert_eq!(found, expected);

        let discovering = "targets = 'discover'\ninstance = '{target}.example.com'\nprofile = 'p'";
        assert_eq!(settings(discovering).profile.as_deref(), Some("p"));
        let device = &read(discovering, false).unwrap().devices[0];
        assert_eq!(device.targets, Targets::Discover);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once_with_its_line() {
        let keys = "targets = 'n1'
instance = 'a{b}'
tag = ''
region = 'Frankfurt'
endpoint = 'ec2.amazonaws.com'
profile = 'a b'
access_key = 7
secret_key_file = 'key'
secret_key_env = 'KEY'
skip_os_shutdown = 'no'
helper = 'ec2'
method = 'cycle'
password_file = '/etc/key'";
        let found = problems(keys);

        let lines: Vec<_> = found.lines().map(|line| line.split(':').nth(1).unwrap()).collect();
        let expected: Vec<_> =
            (5..=16).map(|line| line.to_string()).filter(|l| l != "12").collect();
        assert_eq!(lines, expected, "{found}");
        assert!(found.contains("w.toml:15: 'method': EC2 has no reset"), "{found}");
    }
    #[test]
    fn a_key_is_given_whole_and_not_beside_a_profile() {
        for (keys, problem) in [
            ("access_key = 'A'", "w.toml:5: 'access_key' needs 'secret_key_file', "),
            ("secret_key_env = 'S'", "w.toml:5: 'access_key' is missing"),
            (
                "access_key = 'A'\nsecret_key_env = 'S'\nprofile = 'p'",
                "w.toml:7: 'profile' and 'access_key': give only one of them",
            ),
        ] {
            let found = problems(&format!("targets = 'n1'\n{keys}"));
            assert!(found.starts_with(problem) && found.lines().count() == 1, "{found}");
        }
    }

    #[test]
    fn an_instance_is_never_that_of_two_targets() {
        for (keys, problem) in [
            ("targets = 'n[1-2]'\ninstance = 'web'", "'n1' and 'n2' have the same"),
            ("targets = '*'\ninstance = 'web'", "an instance is one node"),
            ("targets = 'discover'\ninstance = 'web'", "an instance is one node"),
            ("targets = { n1 = 'web', n2 = 'web' }", "'n1' and 'n2' have the same"),
            (
                "targets = { n1 = 'a', n2 = 'a', n3 = 'a', n4 = 'b' }",
                "'n1', 'n2' and 'n3' have the same",
            ),
            ("targets = '*'\ninstance = { n1 = 'web', n2 = 'web' }", "'n1' and 'n2' have the same"),
            ("targets = { n1 = 'i-0aB', n2 = 'I-0Ab' }", "'n1' and 'n2' have the same"),
            ("targets = { n1 = 'web', n2 = ' web ' }", "'n1' and 'n2' have the same"),
            ("targets = 'n[1-3]'\ninstance = { 'n[1-2]' = '{target}' }", "there is none for 'n3'"),
            ("targets = 'discover'\ninstance = { n1 = 'web' }", "not for \"discover\""),
        ] {
            assert!(problems(keys).contains(problem), "{keys}: {}", problems(keys));
        }
        assert!(read("targets = 'n1'\ninstance = 'web'", false).is_ok());
        assert!(read("targets = { n1 = 'web', n2 = 'Web' }", false).is_ok(), "tags differ by case");
    }

    #[test]
    fn the_program_must_be_there_where_it_is_to_run() {
        let problem = read("targets = 'n1'\nhelper = '/nowhere/ec2'", true).unwrap_err();

        assert!(problem.starts_with("w.toml:5: there is no program '/nowhere/ec2'"), "{problem}");
        assert!(problem.contains("install gfs2-fencing-ec2"), "{problem}");
    }
}
