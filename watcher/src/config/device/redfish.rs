//! `type = "redfish"`: BMCs, in process over HTTPS.

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::redfish::{Address, Fingerprint, ResourcePath};
use fence_device::{RedfishLogin, RedfishSettings, RedfishTrust};
use fence_protocol::NodeName;

use super::twins::{in_one_place, place_of_address};
use super::{Common, password};
use crate::config::reader::Section;
use crate::config::values::{boolean, one_of, path, per_target, text};

/// The keys of this type.
pub(super) const KEYS: &[&str] = &[
    "address",
    "system",
    "username",
    "password_file",
    "password_env",
    "password_credential",
    "auth",
    "ca_file",
    "fingerprint",
    "insecure",
];

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<RedfishSettings> {
    let trust = trust(section, common);
    let (address, system) = places(section, common, trust.as_ref());
    let login = section.get("auth", one_of(&LOGINS)).unwrap_or(RedfishLogin::Basic);
    let username_at = section.offset_of("username");
    let username = section.require("username", text);
    if login == RedfishLogin::Basic && username.as_ref().is_some_and(|name| name.contains(':')) {
        let text = "'username': with a colon in it, 'auth' must be \"session\"";
        common.problems.at(username_at, text);
    }
    let password = password(section, common);
    let address = address?;
    Some(RedfishSettings {
        known_targets: common.known_targets(&address),
        address,
        system,
        username: username?,
        password: password?,
        login,
        trust: trust?,
        is_cycled: common.method == Some(Method::Cycle),
    })
}

/// What a BMC's certificate has to be. Nothing is taken for granted: nearly all BMCs sign their own.
fn trust(section: &mut Section, common: &Common) -> Option<RedfishTrust> {
    let keys = "'ca_file', 'fingerprint' or 'insecure = true'";
    let (file_at, fingerprint_at) =
        (section.offset_of("ca_file"), section.offset_of("fingerprint"));
    let (has_file, has_fingerprint) = (section.has("ca_file"), section.has("fingerprint"));
    let file = section.get("ca_file", path);
    let fingerprints = optional(section, "fingerprint", common);
    let is_insecure = section.get("insecure", boolean).unwrap_or(false);
    if let Some(fingerprints) = &fingerprints {
        check_each("fingerprint", fingerprints, fingerprint_at, common, |text| {
            text.parse::<Fingerprint>().err()
        });
        if common.discovers() && fingerprints.of_all().is_none() {
            let text =
                "'fingerprint': with targets = \"discover\" there is one BMC, and so one text";
            common.problems.at(fingerprint_at, text);
        }
    }
    match (has_file, has_fingerprint, is_insecure) {
        (false, false, false) => {
            let text = format!("nothing says how the BMCs' certificates are checked: give {keys}");
            section.absent(text);
        }
        (true, false, false) | (false, true, false) | (false, false, true) => {}
        _ => {
            let offset = if has_file { file_at } else { fingerprint_at };
            common.problems.at(offset, format!("give only one of {keys}"));
        }
    }
    let file = file.map(RedfishTrust::CaFile);
    file.or(fingerprints.map(RedfishTrust::Fingerprint))
        .or(is_insecure.then_some(RedfishTrust::Insecure))
}

/// Where the BMCs are, and which system of a BMC is whose.
fn places(
    section: &mut Section,
    common: &Common,
    trust: Option<&RedfishTrust>,
) -> (Option<PerTarget>, Option<PerTarget>) {
    let is_with_targets = common.names.is_some();
    let at = if is_with_targets { common.targets_at } else { section.offset_of("address") };
    let addresses = per_target(section, "address", common.names.as_ref(), None, common.problems);
    let system_at = section.offset_of("system");
    let systems = optional(section, "system", common);
    if let Some(systems) = &systems {
        check_each("system", systems, system_at, common, system_problem);
    }
    let Some(addresses) = addresses else { return (None, systems) };
    let is_insecure = trust.is_none_or(|trust| *trust == RedfishTrust::Insecure);
    check_each("address", &addresses, at, common, |text| address_problem(text, is_insecure));
    if common.discovers() && addresses.of_all().is_none() {
        let text = "'address': with targets = \"discover\" it must be one for all";
        common.problems.at(at, text);
    } else if let Some((a, b)) = mistakable(&addresses, systems.as_ref(), common) {
        let text = format!(
            "'address': '{a}' and '{b}' have the same BMC, so 'system' must say which of its \
             systems is whose"
        );
        common.problems.at(at, text);
    }
    (Some(addresses), systems)
}

/// Two targets that are the same system of the same BMC: to fence one would be to fence the other.
fn mistakable(
    addresses: &PerTarget,
    systems: Option<&PerTarget>,
    common: &Common,
) -> Option<(NodeName, NodeName)> {
    let mut targets = common.known_targets(addresses);
    if targets.is_empty() {
        targets = SAMPLES.iter().filter_map(|name| name.parse().ok()).collect();
    }
    in_one_place(targets, |node| {
        let system = systems.and_then(|systems| systems.of(node)).map(|system| path_of(&system));
        Some((place_of_address(&addresses.of(node)?, HTTPS_PORT), system))
    })
}

/// The path of a system, which has its name at the end unless the BMC is odd.
pub(super) fn path_of(system: &str) -> String {
    let system = system.trim().trim_end_matches('/');
    if system.starts_with('/') {
        system.to_owned()
    } else {
        format!("/redfish/v1/Systems/{system}")
    }
}

fn address_problem(text: &str, is_insecure: bool) -> Option<String> {
    match Address::parse(text) {
        Ok(address) if !address.is_tls() && !is_insecure => Some(format!(
            "'{text}' would send the password unencrypted: use https, or give 'insecure = true'"
        )),
        result => result.err(),
    }
}

fn system_problem(text: &str) -> Option<String> {
    let is_name = !text.starts_with('/');
    let is_uri = || text.starts_with("/redfish/v1/") && text.parse::<ResourcePath>().is_ok();
    (!is_name && !is_uri()).then(|| {
        format!("'{}' is neither a name nor a path under /redfish/v1/", text.escape_debug())
    })
}

/// A text for each target, for a key that may be left out.
fn optional(section: &mut Section, key: &'static str, common: &Common) -> Option<PerTarget> {
    if section.has(key) {
        return per_target(section, key, None, None, common.problems);
    }
    section.ignore(&[key]);
    None
}

/// Notes what is wrong with the texts of `key`, and the targets for which there is none.
fn check_each(
    key: &str,
    texts: &PerTarget,
    offset: usize,
    common: &Common,
    problem: impl Fn(&str) -> Option<String>,
) {
    let texts_written: Vec<String> = match texts {
        PerTarget::Map(map) => map.values().cloned().collect(),
        PerTarget::Pattern(pattern) => vec![pattern.replace("{target}", SAMPLES[0])],
    };
    for problem in texts_written.iter().filter_map(|text| problem(text)) {
        common.problems.at(offset, format!("'{key}': {problem}"));
    }
    let known = common.known_targets(texts).into_iter();
    for node in known.filter(|node| texts.of(node).is_none()) {
        common.problems.at(offset, format!("'{key}': there is none for '{node}'"));
    }
}

/// The port that a BMC has unless another one is written.
pub(super) const HTTPS_PORT: &str = "443";

const LOGINS: [(&str, RedfishLogin); 2] =
    [("basic", RedfishLogin::Basic), ("session", RedfishLogin::Session)];

/// Names of targets, where none are listed.
const SAMPLES: [&str; 2] = ["n1", "n2"];

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use fence_device::SecretSource;

    use super::*;
    use crate::config::{DeviceKind, Origin, Settings, parse};

    const PIN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// The device with these lines; where it is wrong, the problems and their lines.
    fn read(lines: &str) -> Result<RedfishSettings, String> {
        let file = Path::new("w.toml");
        let origin = Origin { file, node: "a".into(), environment: &[], programs_must_exist: true };
        let text = format!("[[device]]\nname = 'bmc'\ntype = 'redfish'\n{lines}");
        match parse(&text, &origin) {
            Ok(Settings { mut devices, .. }) => match devices.remove(0).kind {
                DeviceKind::Redfish(settings) => Ok(settings),
                other => panic!("{other:?}"),
            },
            Err(error) => Err(error.to_string()),
        }
    }

    /// The same with a login.
    fn read_known(lines: &str) -> Result<RedfishSettings, String> {
        read(&format!("{lines}\nusername = 'u'\npassword_file = '/p'"))
    }

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    #[test]
    fn a_device_has_an_address_for_each_target_and_a_certificate_to_expect() {
        let settings =
            read_known("targets = 'n[1-2]'\naddress = 'bmc-{target}'\nca_file = '/ca.pem'");
        let settings = settings.unwrap();
        assert_eq!(settings.address.of(&node("n2")).unwrap(), "bmc-n2");
        assert_eq!(settings.known_targets, [node("n1"), node("n2")].into());
        assert_eq!(settings.trust, RedfishTrust::CaFile(PathBuf::from("/ca.pem")));
        assert_eq!(settings.password, SecretSource::File(PathBuf::from("/p")));
        assert_eq!((settings.system, settings.login), (None, RedfishLogin::Basic));

        let map = read_known(&format!(
            "targets = {{ n1 = '10.0.0.1', n2 = '10.0.0.2' }}\nauth = 'session'\n\
             system = '/redfish/v1/Systems/{{target}}'\nfingerprint = {{ 'n[1-2]' = '{PIN}' }}"
        ))
        .unwrap();
        assert_eq!(map.address.of(&node("n2")).unwrap(), "10.0.0.2");
        assert_eq!(map.system.unwrap().of(&node("n1")).unwrap(), "/redfish/v1/Systems/n1");
        assert_eq!(map.login, RedfishLogin::Session);
        assert!(matches!(map.trust, RedfishTrust::Fingerprint(_)));

        let chassis = "targets = 'discover'\naddress = 'http://enc'\nsystem = '{target}'\n";
        let chassis = read_known(&format!("{chassis}insecure = true")).unwrap();
        assert_eq!((chassis.known_targets.len(), chassis.trust), (0, RedfishTrust::Insecure));
    }

    #[test]
    fn all_that_is_wrong_is_said_with_its_line() {
        assert_eq!(
            read("targets = 'n1'").unwrap_err(),
            "w.toml:1: 'address' is missing\n\
             w.toml:1: 'username' is missing\n\
             w.toml:1: no password: give 'password_file', 'password_env' or 'password_credential'\n\
             w.toml:1: nothing says how the BMCs' certificates are checked: give 'ca_file', \
             'fingerprint' or 'insecure = true'"
        );
        let text = "targets = 'n[1-3]'
address = { n1 = 'http://b', n2 = 'https://b/redfish/v1' }
system = { n1 = '/redfish', n2 = 'a', n3 = 'b' }
ca_file = '/ca'
fingerprint = 'AB:CD'
insecure = 'yes'
username = 'a:b'
auth = 'digest'
password_file = '/p'
password_env = 'P'";
        assert_eq!(
            read(text).unwrap_err(),
            "w.toml:5: 'address': 'http://b' would send the password unencrypted: use https, or \
             give 'insecure = true'\n\
             w.toml:5: 'address': 'https://b/redfish/v1' holds a path: write the host alone, and \
             the path in 'system'\n\
             w.toml:5: 'address': there is none for 'n3'\n\
             w.toml:6: 'system': '/redfish' is neither a name nor a path under /redfish/v1/\n\
             w.toml:7: give only one of 'ca_file', 'fingerprint' or 'insecure = true'\n\
             w.toml:8: 'fingerprint': 'AB:CD' is no SHA-256 fingerprint: 64 hexadecimal digits, \
             colons between\n\
             w.toml:9: 'insecure': expected true or false, not a text\n\
             w.toml:10: 'username': with a colon in it, 'auth' must be \"session\"\n\
             w.toml:11: 'auth': \"digest\" is none of \"basic\", \"session\"\n\
             w.toml:12: give only one of 'password_file', 'password_env', 'password_credential'"
        );
    }

    #[test]
    fn two_targets_are_never_the_same_system() {
        for (lines, others) in [
            ("targets = 'n[1-2]'\naddress = 'b'", "'n1' and 'n2' have the same BMC"),
            ("targets = 'n[1-2]'\naddress = 'b'\nsystem = '1'", "'n1' and 'n2'"),
            ("targets = { n3 = 'b', n4 = 'c', n5 = 'https://b/' }", "'n3' and 'n5'"),
            ("targets = { n3 = 'b', n4 = 'B:443' }", "'n3' and 'n4'"),
            ("targets = { n3 = 'b', n4 = 'http://b.' }", "'n3' and 'n4'"),
            ("targets = { n3 = '[fd00::1]', n4 = 'https://[FD00:0::1]:443/' }", "'n3' and 'n4'"),
            (
                "targets = { n3 = 'b', n4 = 'B' }\n\
                 system = { n3 = '1', n4 = '/redfish/v1/Systems/1/' }",
                "'n3' and 'n4'",
            ),
            ("targets = '*'\naddress = 'b'", "have the same BMC"),
            ("targets = 'discover'\naddress = 'b'", "have the same BMC"),
            ("targets = 'discover'\naddress = 'b-{target}'\nsystem = '{target}'", "one for all"),
        ] {
            let problem = read_known(&format!("{lines}\ninsecure = true")).unwrap_err();
            assert!(problem.contains(others), "{lines}: {problem}");
        }
        for lines in [
            "targets = 'n1'\naddress = 'b'",
            "targets = 'n[1-2]'\naddress = 'b'\nsystem = '{target}'",
            "targets = '*'\naddress = 'b-{target}'",
            "targets = { n3 = 'b', N3 = 'b', 'n3.example.com' = 'B' }",
            "targets = { n3 = 'b:8001', n4 = 'b:8002' }",
            "targets = { n3 = 'b', n5 = 'b' }\nsystem = { n3 = '1', n5 = '2' }",
        ] {
            read_known(&format!("{lines}\ninsecure = true")).unwrap();
        }
        let pins = "targets = 'discover'\naddress = 'b'\nsystem = '{target}'\n";
        let pins = format!("{pins}fingerprint = {{ n1 = '{PIN}' }}");
        assert!(read_known(&pins).unwrap_err().contains("there is one BMC"));
    }
}
