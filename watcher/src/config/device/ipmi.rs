//! `type = "ipmi"`: the BMC of each target, and how ipmitool logs in there.

use fence_core::PerTarget;
use fence_device::{BmcAddress, IpmiPrivilege, IpmiSettings};
use fence_protocol::NodeName;
use toml::Spanned;
use toml::de::DeValue;

use super::own::Own;
use super::read::{Common, PASSWORD_CREDENTIAL, PASSWORD_ENV, password};
use super::twins::place_of_address;
use crate::config::reader::{Parsed, Section};
use crate::config::table::Form::{self, Text, Words};
use crate::config::table::Key;
use crate::config::table::Standing::{Default, Optional, Required};
use crate::config::values::{checked, number, one_of, path, text, wrong};

/// The keys of this type.
pub(super) const KEYS: &[Key] = &[
    Key::new("address", Form::PerTarget, Required("\"{target}-ipmi\"")).help(
        "The address of each target's BMC: a name or an IP address, perhaps with a port \
         (`10.0.0.1:623`, `[fd00::1]:623`). `targets` can be this table instead.",
    ),
    Key::new("username", Text, Required("\"fence\""))
        .help("The user, the same on all BMCs, of at most 16 bytes."),
    Key::new("password_file", Form::Path, Optional("\"/etc/gfs2-fencing/bmc-password\"")).help(
        "The file with the password, the same for all BMCs, of at most 20 bytes. A file that \
         others can read is refused: use mode 0600. A password is required: give this or one of \
         the next two keys.",
    ),
    PASSWORD_ENV,
    PASSWORD_CREDENTIAL,
    Key::new("cipher", Form::Numbers(CIPHERS), Default("17")).help(
        "The cipher suite: 17, which ipmitool prefers, or 3 for older BMCs. A BMC with only the \
         other suite refuses the login, which `fence-watcher check` reports. Suite 0 accepts \
         any password: forbid it on the BMC.",
    ),
    Key::new("privilege", Words(&["administrator", "operator"]), Default("\"administrator\""))
        .help("The privilege of the login. `\"operator\"` is enough to switch the power."),
    Key::new("ipmitool", Form::Path, Default("\"/usr/bin/ipmitool\""))
        .help("The program ipmitool."),
];

/// The keys that the example sets.
pub(super) const WRITTEN: &[(&str, &str)] =
    &[("name", "\"bmc\""), ("password_file", "\"/etc/gfs2-fencing/bmc-password\"")];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<IpmiSettings> {
    if common.discovers() {
        let text = "\"discover\": a BMC knows no list of nodes: write the nodes here";
        section.note("targets", text);
    }
    let address = address(section, common);
    let username = section.get("username", username);
    let password = password(section);
    let cipher = section.get("cipher", cipher);
    let privilege = section.get("privilege", one_of(&PRIVILEGES));
    let program = section.get("ipmitool", |value| path(value).and_then(|_| text(value)));
    let problem = program.as_ref().and_then(|program| common.program_problem(program.as_ref()));
    if let Some(problem) = problem {
        let hint = "install ipmitool, or name it with 'ipmitool'";
        section.at("ipmitool", format!("{problem}; {hint}"));
    }
    let address = address?;
    Some(IpmiSettings {
        known_targets: common.known_targets(&address),
        address,
        username: username?,
        password: password?,
        cipher: cipher?,
        privilege: privilege?,
        program: program?,
    })
}

/// The addresses of the BMCs.
fn address(section: &mut Section, common: &Common) -> Option<PerTarget> {
    let address = common.per_target(section, "address")?;
    let own = Own { section, common, key: "address", texts: &address };
    own.check_each(|text| BmcAddress::parse(text).err());
    let place = |target: &NodeName| Some(place_of_address(&address.of(target)?, IPMI_PORT));
    own.check_apart(place, "the same", ONE_FOR_ALL);
    Some(address)
}

fn username(value: &Spanned<DeValue>) -> Parsed<String> {
    let is_right =
        |name: &str| name.len() <= USERNAME_BYTES_MAX && !name.contains(char::is_control);
    let most = USERNAME_BYTES_MAX;
    let problem = format!("more than the {most} bytes of IPMI, or control characters");
    checked(value, is_right, &problem)
}

/// A cipher suite of ipmitool that keeps messages from being changed on their way.
fn cipher(value: &Spanned<DeValue>) -> Parsed<u8> {
    let written = number(i64::MIN..=i64::MAX)(value)?;
    if let Some(cipher) = CIPHERS.iter().find(|cipher| i64::from(**cipher) == written) {
        return Ok(*cipher);
    }
    let text = match written {
        0 => "0 lets anybody in, with any password: use 17 or 3, and forbid 0 on the BMC",
        _ => "must be 17 or 3 (or 2, 7, 8, 16): others leave answers unprotected or unknown",
    };
    wrong(value, text)
}

const PRIVILEGES: [(&str, IpmiPrivilege); 2] =
    [("administrator", IpmiPrivilege::Administrator), ("operator", IpmiPrivilege::Operator)];

/// The cipher suites of IPMI 2.0 with integrity, as far as ipmitool has them.
const CIPHERS: &[u8] = &[2, 3, 7, 8, 16, 17];

/// The longest name of a user in IPMI.
const USERNAME_BYTES_MAX: usize = 16;

/// The port of a BMC if its address has none.
pub(super) const IPMI_PORT: &str = "623";

const ONE_FOR_ALL: &str = "a BMC switches one node: give each its own address";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fence_device::SecretSource;

    use super::*;
    use crate::config::{ConfigError, DeviceKind, Origin, WatcherConfig, parse};

    const IPMI: &str = "[[device]]
name = 'bmc'
type = 'ipmi'
targets = 'n[1-2]'
address = '{target}-ipmi'
username = 'fence'
password_file = '/etc/password'
";

    fn parsed(text: &str, programs_must_exist: bool) -> Result<WatcherConfig, ConfigError> {
        let (file, node) = (Path::new("w.toml"), "n1".to_owned());
        parse(text, &Origin { file, node, environment: &[], programs_must_exist })
    }

    fn settings(text: &str) -> IpmiSettings {
        match parsed(text, false).unwrap().devices.remove(0).kind {
            DeviceKind::Ipmi(settings) => settings,
            kind => panic!("{kind:?}"),
        }
    }

    fn nodes<const N: usize>(names: [&str; N]) -> [NodeName; N] {
        names.map(|name| name.parse().unwrap())
    }

    #[test]
    fn a_bmc_has_an_address_for_each_target_and_a_login() {
        let plain = IpmiSettings {
            address: PerTarget::Pattern("{target}-ipmi".into()),
            known_targets: nodes(["n1", "n2"]).into(),
            username: "fence".into(),
            password: SecretSource::File("/etc/password".into()),
            cipher: 17,
            privilege: IpmiPrivilege::Administrator,
            program: "/usr/bin/ipmitool".into(),
        };
        assert_eq!(settings(IPMI), plain);

        let text = IPMI
            .replace("'n[1-2]'", "{ 'n[1-2]' = '{target}:16231', n3 = '[fd00::3]:623' }")
            .replace("address = '{target}-ipmi'", "cipher = 3\nprivilege = 'operator'")
            .replace("password_file = '/etc/password'", "password_env = 'IPMI'\nipmitool = '/x'");
        let [n1, n2, n3] = nodes(["n1", "n2", "n3"]);
        let addresses = [(n1, "n1:16231"), (n2, "n2:16231"), (n3, "[fd00::3]:623")];
        let expected = IpmiSettings {
            address: PerTarget::Map(addresses.map(|(node, text)| (node, text.to_owned())).into()),
            known_targets: nodes(["n1", "n2", "n3"]).into(),
            password: SecretSource::Environment("IPMI".into()),
            cipher: 3,
            privilege: IpmiPrivilege::Operator,
            program: "/x".into(),
            ..plain
        };
        assert_eq!(settings(&text), expected);

        assert!(settings(&IPMI.replace("n[1-2]", "*")).known_targets.is_empty());
        let any = IPMI.replace("n[1-2]", "*").replace("'{target}-ipmi'", "{ n7 = 'a' }");
        assert_eq!(settings(&any).known_targets, nodes(["n7"]).into());
    }

    /// A line of the file, what stands in its place, and what is wrong then.
    const WRONG: [(&str, &str, &str); 21] = [
        ("address", "", "1: 'address' is missing"),
        ("address", "address = 'bmc'", "5: 'address': 'n1' and 'n2' have the same: a BMC switches"),
        ("address", "address = { n1 = 'a', n2 = 'a:623' }", "5: 'address': 'n1' and 'n2' have the"),
        ("address", "address = { n1 = 'A', n2 = 'a.' }", "5: 'address': 'n1' and 'n2' have the"),
        (
            "address",
            "address = { n1 = 'fd00::1', n2 = '[FD00:0::1]:623' }",
            "5: 'address': 'n1' and 'n2' have the",
        ),
        ("address", "address = { n1 = 'a' }", "5: 'address': there is none for 'n2'"),
        ("address", "address = 'u@{target}'", "5: 'address': 'u@n1' is no address such as \"n1-"),
        ("targets", "targets = { n1 = 'a' }", "5: 'address' is also written with the targets"),
        ("targets", "targets = 'discover'", "4: 'targets': \"discover\": a BMC knows no list"),
        ("username", "", "1: 'username' is missing"),
        ("username", "username = 'seventeen-letters'", "6: 'username': more than the 16 bytes"),
        ("username", "username = \"a\\nb\"", "6: 'username': more than the 16 bytes of IPMI, or"),
        ("username", "username = 'a'\ncipher = 0", "7: 'cipher': 0 lets anybody in"),
        ("username", "username = 'a'\ncipher = 1", "7: 'cipher': must be 17 or 3"),
        ("username", "username = 'a'\ncipher = 300", "7: 'cipher': must be 17 or 3"),
        ("username", "username = 'a'\nprivilege = 'user'", "7: 'privilege': \"user\" is none of"),
        (
            "username",
            "username = 'a'\nipmitool = 'x'",
            "7: 'ipmitool': 'x' is not an absolute path",
        ),
        ("username", "username = 'a'\npassword = 'x'", "7: unknown key 'password'"),
        ("password_file", "", "1: no password: give 'password_file', 'password_env' or 'pass"),
        ("password_file", "password_file = 'x'", "7: 'password_file': 'x' is not an absolute path"),
        (
            "password_file",
            "password_file = '/x'\npassword_env = 'X'",
            "7: give only one of 'password_file', 'password_env', 'password_credential'",
        ),
    ];

    #[test]
    fn what_is_wrong_with_bmcs_is_said_with_its_line() {
        let problem = |text: &str| parsed(text, false).unwrap_err().to_string();
        for (key, written, expected) in WRONG {
            let line = IPMI.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
            let found = problem(&IPMI.replace(&format!("{line}\n"), &format!("{written}\n")));
            assert!(found.starts_with(&format!("w.toml:{expected}")), "{written}: {found}");
        }
        for (pattern, expected) in [
            ("bmc", "w.toml:5: 'address': a BMC switches one node: give each its own"),
            ("{target}:", "w.toml:5: 'address': 'n1:' is no address such as"),
        ] {
            let text = IPMI.replace("n[1-2]", "*").replace("{target}-ipmi", pattern);
            assert!(problem(&text).starts_with(expected), "{}", problem(&text));
        }
    }

    #[test]
    fn all_wrong_addresses_and_all_targets_of_one_bmc_are_named() {
        let text = IPMI.replace("n[1-2]", "n[1-6]").replace(
            "'{target}-ipmi'",
            "{ n1 = 'u@a', n2 = 'b:', n3 = 'c', n4 = 'C.', n5 = 'c:623' }",
        );
        let found = parsed(&text, false).unwrap_err().to_string();
        for named in [
            "w.toml:5: 'address': 'u@a' is no address",
            "w.toml:5: 'address': 'b:' is no address",
            "w.toml:5: 'address': there is none for 'n6'",
            "w.toml:5: 'address': 'n3', 'n4' and 'n5' have the same: a BMC switches one node",
        ] {
            assert!(found.contains(named), "{named}: {found}");
        }
        assert_eq!(found.lines().count(), 4, "{found}");
    }

    #[test]
    fn a_missing_ipmitool_is_named_unless_programs_are_not_looked_at() {
        let text = IPMI.replace("username", "ipmitool = '/nowhere/ipmitool'\nusername");
        assert!(parsed(&text, false).is_ok());
        assert_eq!(
            parsed(&text, true).unwrap_err().to_string(),
            "w.toml:6: there is no program '/nowhere/ipmitool'; install ipmitool, or name it with \
             'ipmitool'"
        );
    }
}
