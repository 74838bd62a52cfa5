//! One machine in two `[[device]]` tables.
//!
//! Most files have one table for each node. So this module compares the targets of all tables of
//! one type, as `twins` compares those of one table. Two targets with one BMC, instance or plug are
//! refused. One target may have the same place in several tables: for fencing levels, or two users.
//!
//! Tables of two types are not compared: the configuration does not show whether an IPMI address
//! and a Redfish address are one BMC.

use std::collections::{BTreeMap, BTreeSet};

use fence_device::{Ec2Settings, FenceAgentSettings, IpmiSettings, RedfishSettings};
use fence_protocol::NodeName;

use super::DeviceSettings;
use super::ec2::{is_id, meant};
use super::fence_agent::spelling;
use super::ipmi::IPMI_PORT;
use super::redfish::{HTTPS_PORT, path_of};
use super::twins::{listed, names, place_of_address, strangers};

/// A place where one machine is reached, as texts that are equal for the same place.
pub(super) type Place = Vec<String>;

/// For each device, in their order, its targets that are also targets of earlier devices under
/// other names, as a problem.
pub(super) fn problems(devices: &[DeviceSettings]) -> Vec<Option<String>> {
    let all: BTreeSet<&NodeName> = devices.iter().flat_map(names).collect();
    let mut earlier: BTreeMap<Place, BTreeMap<usize, BTreeSet<NodeName>>> = BTreeMap::new();
    let problem_of = |(index, device): (usize, &DeviceSettings)| {
        let mut here: BTreeMap<Place, BTreeSet<NodeName>> = BTreeMap::new();
        let mut own = Vec::new();
        for node in may_fence(device, &all) {
            let places = device.kind.places_of(&node);
            for place in places.looked_for {
                here.entry(place).or_default().insert(node.clone());
            }
            own.extend(places.own.into_iter().map(|place| (place, node.clone())));
        }
        let at = |place| earlier.get(place).into_iter().flatten();
        let met = here.iter().flat_map(|(place, nodes)| {
            at(place).filter_map(|(of, others)| meeting(nodes, &devices[*of].name, others))
        });
        let met: Vec<String> = met.collect::<BTreeSet<_>>().into_iter().collect();
        for (place, node) in own {
            earlier.entry(place).or_default().entry(index).or_default().insert(node);
        }
        (!met.is_empty()).then(|| {
            format!(
                "{}: a fence of one would switch the other, so each target needs {}",
                met.join(", "),
                device.kind.own()
            )
        })
    };
    devices.iter().enumerate().map(problem_of).collect()
}

/// The `nodes` that are reached where `device` reaches other nodes among `others`, as a text.
fn meeting(
    nodes: &BTreeSet<NodeName>,
    device: &str,
    others: &BTreeSet<NodeName>,
) -> Option<String> {
    let (here, there) = (strangers(nodes, others), strangers(others, nodes));
    let are = if here.len() > 1 { "are" } else { "is" };
    if here.is_empty() {
        return None;
    }
    let (here, there) = (listed(&here), listed(&there));
    Some(format!("{here} {are} reached where device '{device}' reaches {there}"))
}

/// The targets of `device`; if it has no list of targets, all targets in the file.
fn may_fence(device: &DeviceSettings, all: &BTreeSet<&NodeName>) -> BTreeSet<NodeName> {
    let any = || all.iter().copied().cloned().collect();
    device.targets.nodes().cloned().unwrap_or_else(any)
}

/// The places of a target, and the places in which another target would be the same machine.
#[derive(Default)]
pub(super) struct Places {
    own: Vec<Place>,
    looked_for: Vec<Place>,
}

impl From<Vec<Place>> for Places {
    fn from(own: Vec<Place>) -> Self {
        Places { looked_for: own.clone(), own }
    }
}

pub(super) fn of_ipmi(settings: &IpmiSettings, node: &NodeName) -> Places {
    let address = settings.address.of(node).map(|text| address(&text, IPMI_PORT));
    Vec::from_iter(address.map(|address| vec!["ipmi".to_owned(), address])).into()
}

/// The place of an address as one text.
fn address(text: &str, usual_port: &str) -> String {
    match place_of_address(text, usual_port) {
        (host, Some(port)) => format!("[{host}]:{port}"),
        (host, None) => host,
    }
}

/// A BMC without `system` has one system only. If another table names a system of this BMC, it is
/// that system.
pub(super) fn of_bmc(settings: &RedfishSettings, node: &NodeName) -> Places {
    let Some(text) = settings.address.of(node) else { return Places::default() };
    let address = address(&text, HTTPS_PORT);
    let place = |more: &[&str]| -> Place {
        ["redfish", &address].iter().chain(more).map(|text| (*text).to_owned()).collect()
    };
    let (only, any) = (place(&["only"]), place(&["any"]));
    match settings.system.as_ref().and_then(|systems| systems.of(node)) {
        None => Places { own: vec![only.clone()], looked_for: vec![only, any] },
        Some(system) => {
            let this = place(&["system", &path_of(&system)]);
            Places { own: vec![this.clone(), any], looked_for: vec![this, only] }
        }
    }
}

/// An id is unique everywhere, the value of a tag in one account and one region.
pub(super) fn of_instance(settings: &Ec2Settings, node: &NodeName) -> Places {
    let Some(instance) = settings.instance.of(node) else { return Places::default() };
    let instance = meant(&instance);
    let mut place = vec!["ec2".to_owned(), instance.clone()];
    if !is_id(&instance) {
        let Ec2Settings { tag, region, endpoint, profile, access_key, .. } = settings;
        let key = access_key.as_ref().map(|(id, _)| id);
        let scope = [Some(tag), region.as_ref(), endpoint.as_ref(), profile.as_ref(), key];
        place.extend(scope.into_iter().map(|text| text.cloned().unwrap_or_default()));
    }
    vec![place].into()
}

pub(super) fn of_agent(settings: &FenceAgentSettings, node: &NodeName) -> Places {
    let Some(plug) = settings.plug.of(node) else { return Places::default() };
    let plug_option = settings.plug_option.as_deref();
    let mut places = places_of_plug(&plug, plug_option, &settings.options);
    // On most systems, /usr/sbin and /sbin are one directory.
    let agent = settings.agent.strip_prefix("/usr").unwrap_or(&settings.agent);
    let env = settings.env.iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let env = env.filter(|(name, _)| !is_about_the_way(name) && !SURROUNDINGS.contains(&&**name));
    let env: Vec<String> = env.map(|(name, value)| format!("env {name}={value}")).collect();
    for place in &mut places {
        place.extend(["fence-agent".to_owned(), agent.to_owned()]);
        place.extend_from_slice(&env);
    }
    places.into()
}

/// The places of `plug`, which `plug_option` carries beside `options`. Each plug of a list is a
/// place. Options that only say how the device is reached make no difference.
pub(super) fn places_of_plug(
    plug: &str,
    plug_option: Option<&str>,
    options: &BTreeMap<String, String>,
) -> Vec<Place> {
    let carrier = canonical(plug_option.unwrap_or("plug"));
    let options = options.iter().map(|(name, value)| (canonical(name), value));
    let mut fixed: BTreeMap<String, &str> = options
        .filter(|(name, _)| !is_about_the_way(name))
        .map(|(name, value)| (name, value.as_str()))
        .collect();
    fixed.insert(carrier.clone(), plug);
    let separator = fixed.remove(SEPARATOR).unwrap_or(",");
    let plugs = match fixed.remove("plug") {
        // Agents cut the blanks off.
        Some(plugs) if separator.is_empty() => vec![Some(plugs.trim())],
        Some(plugs) => plugs.split(separator).map(|plug| Some(plug.trim())).collect(),
        None => vec![None],
    };
    let fixed: Place = fixed
        .iter()
        .map(|(name, value)| match name.as_str() {
            "ip" => format!("ip={}", address(value, "")),
            name => format!("{name}={}", value.trim()),
        })
        .collect();
    let place = |plug: Option<&str>| {
        let plug = plug.map(|plug| format!("plug={plug}"));
        fixed.iter().cloned().chain(plug).collect()
    };
    // The empty text at a superfluous separator is not a plug.
    plugs.into_iter().filter(|plug| *plug != Some("")).map(place).collect()
}

/// The one name of an option that has several.
fn canonical(name: &str) -> String {
    match spelling(name).as_str() {
        "port" => "plug".to_owned(),
        "ipaddr" => "ip".to_owned(),
        other => other.to_owned(),
    }
}

/// Whether an option of this name says how the device is reached, and not what is switched.
fn is_about_the_way(name: &str) -> bool {
    name != SEPARATOR && THE_WAY.split(' ').any(|part| name.contains(part))
}

/// The option with the text that separates several plugs.
const SEPARATOR: &str = "plug_separator";

/// Parts of the names of such options.
const THE_WAY: &str = "user login passw passphrase secret token key auth priv cipher ssl tls ssh \
    secure telnet snmp community lanplus identity prompt timeout wait delay sleep retry retries \
    attempts verbose debug quiet logfile log_ inet separator _path http missing";

/// Variables that every program has, in small letters.
const SURROUNDINGS: &[&str] = &["home", "path", "lang", "lc_all", "tz", "tmpdir"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Origin, parse};

    /// A configuration of tables of one type, each with these lines.
    fn read(kind: &str, tables: &[&str]) -> Result<(), String> {
        let more = match kind {
            "fence-agent" => "agent = 'fence_x'\n",
            "ipmi" => "username = 'u'\npassword_env = 'P'\n",
            "redfish" => "username = 'u'\npassword_env = 'P'\ninsecure = true\n",
            _ => "",
        };
        let table = |(number, keys): (usize, &&str)| {
            let agent = if keys.contains("agent = ") { "" } else { more };
            format!("[[device]]\nname = 'd{number}'\ntype = '{kind}'\n{agent}{keys}\n")
        };
        let text: String = tables.iter().enumerate().map(table).collect();
        let file = Path::new("w.toml");
        let origin =
            Origin { file, node: "n1".into(), environment: &[], programs_must_exist: false };
        parse(&text, &origin).map(drop).map_err(|error| error.to_string())
    }

    fn is_refused(kind: &str, tables: &[&str]) {
        let problem = read(kind, tables).expect_err(&format!("{kind} {tables:?}"));
        let found =
            problem.contains("is reached where device") || problem.contains("have the same");
        assert!(found && problem.lines().count() == 1, "{kind} {tables:?}: {problem}");
    }

    fn is_accepted(kind: &str, tables: &[&str]) {
        read(kind, tables).unwrap_or_else(|problem| panic!("{kind} {tables:?}: {problem}"));
    }

    #[test]
    fn two_targets_never_have_one_bmc_whichever_tables_name_them() {
        for kind in ["ipmi", "redfish"] {
            for tables in [
                ["targets = { n3 = 'b' }", "targets = { n4 = 'b' }"],
                ["targets = { n3 = '[fd00::1]' }", "targets = 'n4'\naddress = '[FD00:0::1]'"],
                ["targets = { n3 = 'bmc-n4' }", "targets = 'n4'\naddress = 'bmc-{target}'"],
                // What any device can fence is what the other one names.
                [
                    "targets = '*'\naddress = 'bmc-{target}'",
                    "targets = { n3 = 'c', n4 = 'bmc-n3' }",
                ],
                ["targets = { n3 = 'b' }\nnodes = 'n4'", "targets = { n4 = 'b' }\nnodes = 'n3'"],
            ] {
                is_refused(kind, &tables);
            }
            for tables in [
                ["targets = { n3 = 'b' }", "targets = { n4 = 'c' }"],
                ["targets = { n3 = 'b' }", "targets = { n3 = 'B.' }"],
                ["targets = { n3 = 'b' }", "targets = { 'N3.example.com' = 'b' }"],
                ["targets = { n3 = 'b:6231' }", "targets = { n4 = 'b:6232' }"],
            ] {
                is_accepted(kind, &tables);
            }
        }
        is_refused("ipmi", &["targets = { n3 = 'b:623' }", "targets = { n4 = 'b' }"]);
        is_refused("redfish", &["targets = { n3 = 'b' }", "targets = { n4 = 'https://B:443/' }"]);
        let problem = read("ipmi", &["targets = { n3 = 'b' }", "targets = { n4 = 'b' }"]);
        assert_eq!(
            problem.unwrap_err(),
            "w.toml:12: 'n4' is reached where device 'd0' reaches 'n3': a fence of one would switch \
             the other, so each target needs its own address"
        );
    }

    #[test]
    fn all_targets_that_share_a_place_with_another_table_are_named() {
        for kind in ["ipmi", "redfish"] {
            let problem = read(
                kind,
                &[
                    "targets = { n1 = 'a', n2 = 'b', n3 = 'c' }",
                    "targets = { m1 = 'a', m2 = 'b', m3 = 'd', n3 = 'c' }",
                ],
            );
            let problem = problem.unwrap_err();
            let named = "'m1' is reached where device 'd0' reaches 'n1', 'm2' is reached where \
                         device 'd0' reaches 'n2': a fence of one would switch the other";
            assert!(problem.contains(named) && problem.lines().count() == 1, "{problem}");
        }
        let problem = read(
            "fence-agent",
            &[
                "targets = 'n1'\nplug = '1'",
                "targets = { n2 = '1,2', n3 = '2' }",
                "targets = { n4 = '2' }",
            ],
        );
        let problem = problem.unwrap_err();
        for named in [
            "'n2' is reached where device 'd0' reaches 'n1': a fence",
            "'n2' and 'n3' have the same: a plug controls one node",
            "'n4' is reached where device 'd1' reaches 'n2' and 'n3': a fence",
        ] {
            assert!(problem.contains(named), "{problem}");
        }
    }

    #[test]
    fn systems_of_one_bmc_are_told_apart_by_their_names() {
        let (n3, n4) = ("targets = { n3 = 'b' }", "targets = { n4 = 'b' }");
        let with = |targets: &str, system: &str| format!("{targets}\nsystem = '{system}'");
        is_refused("redfish", &[&with(n3, "1"), &with(n4, "/redfish/v1/Systems/1/")]);
        // A BMC without 'system' has one only.
        is_refused("redfish", &[n3, &with(n4, "1")]);
        is_refused("redfish", &[&with(n3, "1"), n4]);
        is_accepted("redfish", &[&with(n3, "1"), &with(n4, "2")]);
        is_accepted("redfish", &[&with(n3, "1"), n3]);
        let discovering = "targets = 'discover'\naddress = 'b'\nsystem = '{target}'";
        is_refused("redfish", &[&with(n3, "n4"), discovering, "targets = { n4 = 'c' }"]);
        is_accepted("redfish", &[&with(n3, "n3"), discovering, "targets = { n4 = 'c' }"]);
    }

    #[test]
    #[cfg(feature = "ec2")]
    fn two_targets_never_have_one_instance_whichever_tables_name_them() {
        let (n3, id) = ("targets = { n3 = 'web' }", "targets = { n3 = 'i-0aB' }\nregion = 'us-1'");
        is_refused("ec2", &[n3, "targets = { n4 = 'web' }"]);
        is_refused("ec2", &[id, "targets = { n4 = 'I-0Ab' }\nregion = 'eu-1'"]);
        is_refused("ec2", &["targets = '*'", "targets = { n3 = 'n4', n4 = 'n3' }"]);
        is_accepted("ec2", &[n3, n3]);
        is_accepted("ec2", &["targets = '*'", "targets = { n3 = 'n3' }"]);
        for other in ["region = 'eu-1'", "tag = 'fence'", "profile = 'p'"] {
            is_accepted("ec2", &[n3, &format!("targets = {{ n4 = 'web' }}\n{other}")]);
        }
    }

    #[test]
    fn two_targets_never_have_one_plug_whichever_tables_name_them() {
        let (n3, n4) = ("targets = { n3 = '3' }", "targets = { n4 = '3' }");
        let with = |targets: &str, options: &str| format!("{targets}\noptions = {{ {options} }}");
        let pdu = with(n3, "ip = 'pdu', ipport = 22");
        for (one, other) in [
            (n3.to_owned(), n4.to_owned()),
            (pdu.clone(), with(n4, "ipaddr = 'PDU.', ipport = '22'")),
            (pdu.clone(), with(n4, "ip = 'pdu', ipport = 22, login = 'u', ssh = true")),
            (pdu.clone(), with("targets = { n4 = '4,3' }", "ip = 'pdu', ipport = 22")),
            (
                with("targets = { n3 = '3;4' }", "ip = 'pdu', plug_separator = ';'"),
                with("targets = { n4 = '5, 4' }", "ip = 'pdu'"),
            ),
            (
                with(n3, "ip = 'pdu'"),
                with("targets = { n4 = 'pdu' }\nplug_option = 'ipaddr'", "plug = '3'"),
            ),
            (n3.to_owned(), format!("{n4}\nplug_option = 'port'\npassword_env = 'P'")),
            (
                format!("{n3}\nagent = '/sbin/fence_y'"),
                format!("{n4}\nagent = 'fence_y'\nenv = {{ HOME = '/root' }}"),
            ),
            ("targets = 'discover'".to_owned(), "targets = { n3 = 'n4', n4 = '1' }".to_owned()),
        ] {
            is_refused("fence-agent", &[&one, &other]);
            is_refused("fence-agent", &[&other, &one]);
        }
        for (one, other) in [
            (pdu.clone(), with(n4, "ip = 'pdu2', ipport = 22")),
            (pdu.clone(), with(n4, "ip = 'pdu', ipport = 23")),
            (pdu.clone(), with(n4, "ip = 'pdu', ipport = 22, switch = 2")),
            (pdu.clone(), with("targets = { n4 = '4' }", "ip = 'pdu', ipport = 22")),
            (pdu.clone(), with(n3, "ip = 'pdu', ipport = 22, login = 'second'")),
            (n3.to_owned(), format!("{n4}\nagent = 'fence_y'")),
            (n3.to_owned(), format!("{n4}\nenv = {{ AWS_REGION = 'eu-1' }}")),
            ("targets = 'discover'".to_owned(), "targets = 'n[3-4]'".to_owned()),
        ] {
            is_accepted("fence-agent", &[&one, &other]);
        }
    }

    #[test]
    fn lists_of_plugs_are_compared_plug_by_plug() {
        for plugs in ["n3 = '3,4', n4 = '4,3'", "n3 = '3,4', n4 = '4,5'", "n3 = '3', n4 = '1, 3'"] {
            is_refused("fence-agent", &[&format!("targets = {{ {plugs} }}")]);
        }
        is_accepted("fence-agent", &["targets = { n3 = '3,4', n4 = '5,6' }"]);
        is_accepted("fence-agent", &["targets = { n3 = '3,4,', n4 = '5,6,' }"]);
        let with = |plugs: &str, separator: &str| {
            format!("targets = {{ {plugs} }}\noptions = {{ plug_separator = '{separator}' }}")
        };
        is_refused("fence-agent", &[&with("n3 = '3;4', n4 = '4;5'", ";")]);
        is_accepted("fence-agent", &[&with("n3 = 'a,1', n4 = 'a,2'", ";")]);
    }
}
