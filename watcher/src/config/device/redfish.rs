//! `type = "redfish"`: BMCs, which this process reaches over HTTPS.

use fence_core::PerTarget;
use fence_core::execution::Method;
use fence_device::redfish::{Address, Fingerprint, ResourcePath};
use fence_device::{RedfishLogin, RedfishSettings, RedfishTrust};
use fence_protocol::NodeName;

use super::own::Own;
use super::read::{Common, PASSWORD_CREDENTIAL, PASSWORD_ENV, PASSWORD_FILE, password};
use super::twins::place_of_address;
use crate::config::reader::Section;
use crate::config::table::Form::{self, Boolean, PerTarget as Each, Words};
use crate::config::table::Key;
use crate::config::table::Standing::{Default, Optional, Required};
use crate::config::values::{boolean, one_of, path, per_target, text};

/// The keys of this type.
pub(super) const KEYS: &[Key] = &[
    Key::new("address", Each, Required("\"https://{target}-bmc\"")).help(
        "The address of each target's BMC, or of the service that serves several targets. \
         `targets` can be this table instead. IP addresses keep fencing independent of the name \
         service. `http://` needs `insecure`.",
    ),
    Key::new("system", Each, Optional("\"/redfish/v1/Systems/{target}\"")).help(
        "The system of each target, if one service has several systems: a path (the fastest), \
         an `Id` or a `Name`. A blade or slot that is switched as a chassis has the path of \
         that chassis, such as `/redfish/v1/Chassis/Perif7`. Two systems may have one `Name`, \
         so a `Name` is not used while another system of the service cannot be read; an `Id` \
         is. Without this key a service must have exactly one system.",
    ),
    Key::new("username", Form::Text, Required("\"fence\"")).help(
        "The user, the same on all BMCs. A password is required: give one of the next three \
         keys.",
    ),
    PASSWORD_FILE,
    PASSWORD_ENV,
    PASSWORD_CREDENTIAL,
    Key::new("auth", Words(&["basic", "session"]), Default("\"basic\"")).help(
        "How the watcher logs in. `\"basic\"` sends the login with each call. `\"session\"` \
         opens and ends a session for each fence and each question, at the place that the \
         service root names; a BMC has only a few sessions.",
    ),
    Key::new("ca_file", Form::Path, Optional("\"/etc/gfs2-fencing/bmc-ca.pem\"")).help(
        "The authorities that signed the BMCs' certificates, or the BMCs' own certificates \
         (PEM). The certificates must contain the name or IP address of `address`. Exactly one \
         of `ca_file`, `fingerprint` and `insecure` is required.",
    ),
    Key::new("fingerprint", Each, Optional(PIN_EXAMPLE)).help(
        "The SHA-256 fingerprint of each BMC's certificate, as `openssl s_client -connect \
         HOST:443 </dev/null | openssl x509 -noout -fingerprint -sha256` shows it; a table if \
         there are several BMCs. The certificate is trusted in any form. A fingerprint also \
         detects a BMC in a wrong place.",
    ),
    Key::new("insecure", Boolean, Default("false")).help(
        "`true` disables certificate checks: any host at the address receives the password and \
         is trusted.",
    ),
];

/// The keys that the example sets.
pub(super) const WRITTEN: &[(&str, &str)] = &[
    ("name", "\"bmc\""),
    ("password_file", "\"/etc/gfs2-fencing/bmc-password\""),
    ("ca_file", "\"/etc/gfs2-fencing/bmc-ca.pem\""),
    ("timeout", "\"30s\""),
];

/// A chassis, at the end of the example.
pub(super) const FURTHER: &str = r#"# A chassis: one service for many servers. `system` says which
# of them is whose.
[[device]]
name = "chassis"
type = "redfish"
targets = "blade[1-16]"
address = "https://chassis.example.org:8443"
system = "/redfish/v1/Systems/{target}"
username = "fence"
password_file = "/etc/gfs2-fencing/chassis-password"
ca_file = "/etc/gfs2-fencing/bmc-ca.pem"
timeout = "30s"
"#;

const PIN_EXAMPLE: &str = "{ \"compute-node-[1-16]\" = \
    \"0BC70123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789AB\" }";

/// The device that `section` describes.
pub(super) fn read(section: &mut Section, common: &Common) -> Option<RedfishSettings> {
    let trust = trust(section, common);
    let (address, system) = places(section, common, trust.as_ref());
    let login = section.get("auth", one_of(&LOGINS));
    let username = section.get("username", text);
    if login == Some(RedfishLogin::Basic)
        && username.as_ref().is_some_and(|name| name.contains(':'))
    {
        section.note("username", "with a colon in it, 'auth' must be \"session\"");
    }
    let password = password(section);
    let address = address?;
    Some(RedfishSettings {
        known_targets: common.known_targets(&address),
        address,
        system,
        username: username?,
        password: password?,
        login: login?,
        trust: trust?,
        is_cycled: common.method == Some(Method::Cycle),
    })
}

/// How a BMC's certificate is checked. There is no default: nearly all BMCs sign their own.
fn trust(section: &mut Section, common: &Common) -> Option<RedfishTrust> {
    let keys = "'ca_file', 'fingerprint' or 'insecure = true'";
    let file = section.get("ca_file", path);
    let fingerprints = per_target(section, "fingerprint", None);
    let is_insecure = section.get("insecure", boolean).unwrap_or(false);
    if let Some(fingerprints) = &fingerprints {
        let own = Own { section, common, key: "fingerprint", texts: fingerprints };
        own.check_each(|text| text.parse::<Fingerprint>().err());
        if common.discovers() && fingerprints.of_all().is_none() {
            own.note("with targets = \"discover\" there is one BMC, and so one text");
        }
    }
    match (section.has("ca_file"), section.has("fingerprint"), is_insecure) {
        (false, false, false) => {
            let text = format!("nothing says how the BMCs' certificates are checked: give {keys}");
            section.absent(text);
        }
        (true, false, false) | (false, true, false) | (false, false, true) => {}
        (has_file, ..) => {
            let key = if has_file { "ca_file" } else { "fingerprint" };
            section.at(key, format!("give only one of {keys}"));
        }
    }
    let file = file.map(RedfishTrust::CaFile);
    file.or(fingerprints.map(RedfishTrust::Fingerprint))
        .or(is_insecure.then_some(RedfishTrust::Insecure))
}

/// The addresses of the BMCs, and the system of each target.
fn places(
    section: &mut Section,
    common: &Common,
    trust: Option<&RedfishTrust>,
) -> (Option<PerTarget>, Option<PerTarget>) {
    let addresses = common.per_target(section, "address");
    let systems = per_target(section, "system", None);
    if let Some(systems) = &systems {
        let own = Own { section, common, key: "system", texts: systems };
        own.check_each(system_problem);
    }
    let Some(addresses) = addresses else { return (None, systems) };
    let is_insecure = trust.is_none_or(|trust| *trust == RedfishTrust::Insecure);
    let own = Own { section, common, key: "address", texts: &addresses };
    own.check_each(|text| address_problem(text, is_insecure));
    if common.discovers() && addresses.of_all().is_none() {
        own.note("with targets = \"discover\" it must be one for all");
    } else {
        // An order to one system of a BMC fences all targets that are this system.
        let place = |node: &NodeName| {
            let system = systems.as_ref().and_then(|systems| systems.of(node));
            let address = place_of_address(&addresses.of(node)?, HTTPS_PORT);
            Some((address, system.map(|system| path_of(&system))))
        };
        own.check_apart(place, "the same BMC", ONE_BMC);
    }
    (Some(addresses), systems)
}

/// The path of a system. On nearly all BMCs it ends in the name of the system.
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

/// The port of a BMC if its address has none.
pub(super) const HTTPS_PORT: &str = "443";

const LOGINS: [(&str, RedfishLogin); 2] =
    [("basic", RedfishLogin::Basic), ("session", RedfishLogin::Session)];

const ONE_BMC: &str =
    "for targets that have the same BMC, 'system' must say which of its systems is whose";

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use fence_device::SecretSource;

    use super::*;
    use crate::config::{DeviceKind, Origin, WatcherConfig, parse};

    const PIN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// The device with these lines; where it is wrong, the problems and their lines.
    fn read(lines: &str) -> Result<RedfishSettings, String> {
        let file = Path::new("w.toml");
        let origin = Origin { file, node: "a".into(), environment: &[], programs_must_exist: true };
        let text = format!("[[device]]\nname = 'bmc'\ntype = 'redfish'\n{lines}");
        match parse(&text, &origin) {
            Ok(WatcherConfig { mut devices, .. }) => match devices.remove(0).kind {
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
             w.toml:5: 'address': 'https://b/redfish/v1' contains a path: write the host alone, and \
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
        let all = read_known(
            "targets = { n3 = 'b', n4 = 'B', n5 = 'b:443', n6 = 'c', n7 = 'C' }\ninsecure = true",
        );
        let all = all.unwrap_err();
        assert!(all.contains("'n3', 'n4' and 'n5' have the same BMC"), "{all}");
        assert!(all.contains("'n6' and 'n7' have the same BMC"), "{all}");
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
