//! What is read of a CIB.

use super::*;

const RESOURCES: &str = r#"
      <template id="t" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="ti">
          <nvpair id="t1" name="fstype" value="gfs2"/>
        </instance_attributes>
      </template>
      <primitive id="ext" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="e">
          <nvpair id="e1" name="fstype" value="ext4"/>
        </instance_attributes>
      </primitive>
      <primitive id="plain" class="ocf" provider="heartbeat" type="Filesystem">
        <instance_attributes id="p">
          <nvpair id="p1" name="directory" value="/mnt/plain/"/>
          <nvpair id="p2" name="device" value="/dev/a"/>
          <nvpair id="p3" name="fstype" value=" GFS2 "/>
        </instance_attributes>
      </primitive>
      <group id="g">
        <primitive id="ip" class="ocf" provider="heartbeat" type="IPaddr2"/>
        <primitive id="grouped" template="t">
          <instance_attributes id="gi">
            <nvpair id="g1" name="directory" value="/a/data"/>
          </instance_attributes>
        </primitive>
      </group>
      <clone id="c"><group id="cg">
        <primitive id="cloned" class="ocf" provider="heartbeat" type="Filesystem">
          <instance_attributes id-ref="p"/>
        </primitive>
        <primitive id="other" template="t">
          <instance_attributes id="oi">
            <nvpair id="o1" name="directory" value="/b/data"/>
          </instance_attributes>
        </primitive>
      </group></clone>"#;

fn cib(status: &str) -> Cib {
    let text = format!(
        "<cib><configuration><nodes><node id='1' uname='n1'/><node id='2' uname='n2.a.org'/>\
         <node id='3' uname='n3'/></nodes><resources>{RESOURCES}</resources></configuration>\
         <status>{status}</status></cib>"
    );
    Cib::parse(&text).unwrap()
}

fn report(cib: &Cib, plug: &str, id: Option<u32>, mounts: &Mounts) -> Report {
    cib.report(cib.node(Target { plug, nodename: None }), id, mounts)
}

fn names(report: Report) -> Vec<String> {
    match report {
        Report::Answered { held, .. } => held.into_iter().map(|held| held.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn state(id: &str, uname: &str, resources: &[(&str, &str)]) -> String {
    let history = resources.iter().map(|(resource, operations)| {
        format!("<lrm_resource id='{resource}' type='Filesystem'>{operations}</lrm_resource>")
    });
    let history: String = history.collect();
    format!(
        "<node_state id='{id}' uname='{uname}'><lrm id='{id}'><lrm_resources>{history}\
         </lrm_resources></lrm></node_state>"
    )
}

fn operation(operation: &str, interval: u32, call: i32, code: i32, status: i32) -> String {
    format!(
        "<lrm_rsc_op operation='{operation}' interval='{interval}' call-id='{call}' \
         rc-code='{code}' op-status='{status}'/>"
    )
}

fn started() -> String {
    operation("start", 0, 4, 0, 0)
}

#[test]
fn gfs2_is_found_in_primitives_groups_clones_templates_and_references() {
    let all = ["ext", "plain", "ip", "grouped", "cloned", "other"];
    let started = started();
    let all: Vec<_> = all.iter().map(|id| (*id, started.as_str())).collect();
    let cib = cib(&state("2", "n2.a.org", &all));

    let found = names(report(&cib, "n2", None, &Mounts::default()));

    // 'plain' and 'cloned' have one directory, 'grouped' and 'other' one last part.
    assert_eq!(found, ["plain", "grouped", "cloned", "other"]);
}

#[test]
fn what_is_mounted_here_has_its_lock_tables_name() {
    let cib = cib(&state("2", "n2.a.org", &[("grouped", &started()), ("plain", &started())]));
    let mounts = Mounts(vec![crate::Mount { directory: "/a/data".into(), table: "c:vol1".into() }]);

    assert_eq!(names(report(&cib, "n2.a.org", None, &mounts)), ["plain", "vol1"]);
}

#[test]
fn the_last_operation_decides_and_doubt_means_active() {
    let pending = |name| operation(name, 0, -1, 193, -1);
    for (history, active) in [
        (vec![], false),
        (vec![operation("monitor", 0, 1, 7, 0)], false),
        (vec![operation("monitor", 0, 1, 5, 0)], false),
        (vec![operation("monitor", 0, 1, 0, 0)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 0, 1, 7, 0)], true),
        (vec![operation("start", 0, 2, 1, 4)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 0, 0)], false),
        (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 1, 4)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 1, 2)], true),
        (vec![pending("stop"), operation("start", 0, 2, 0, 0)], true),
        (vec![pending("stop")], true),
        (vec![pending("start"), operation("monitor", 0, 2, 7, 0)], true),
        (vec![pending("monitor"), operation("monitor", 0, 2, 7, 0)], false),
        (vec![operation("start", 0, 10, 0, 0), operation("stop", 0, 9, 0, 0)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 0)], false),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 1, 4)], true),
        (vec![operation("notify", 0, 5, 0, 0)], false),
        // Only a probe finds nothing where nothing is installed.
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 5, 0)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 5, 6)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 2, 4)], true),
        (vec![operation("start", 0, 2, 5, 5)], true),
        (vec![operation("monitor", 0, 1, 2, 0)], false),
        (vec![operation("monitor", 0, 1, 1, 7)], false),
        (vec![operation("monitor", 0, 1, 1, 4)], true),
        // A stop counts when both of its results say so.
        (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 0, 2)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("stop", 0, 9, 0, 4)], true),
        (vec![operation("stop", 0, 9, 0, 8)], true),
        (vec![operation("stop", 0, 9, 7, 0)], true),
        (vec![operation("stop", 0, 9, 0, 0)], false),
        (vec!["<lrm_rsc_op operation='stop' call-id='9' rc-code='0'/>".to_owned()], true),
        (vec!["<lrm_rsc_op operation='stop' call-id='9' op-status='0'/>".to_owned()], true),
        // So does a monitor that finds nothing.
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 2)], true),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 4)], false),
        (vec![operation("start", 0, 2, 0, 0), operation("monitor", 60, 3, 7, 1)], true),
        (vec![operation("migrate_from", 0, 2, 0, 0)], true),
    ] {
        let history = history.concat();
        let cib = cib(&state("1", "n1", &[("plain", &history)]));
        let found = names(report(&cib, "n1", None, &Mounts::default()));
        assert_eq!(!found.is_empty(), active, "{history}");
    }
}

#[test]
fn all_entries_of_one_name_are_one_node() {
    let text = format!(
        "<cib><configuration><nodes><node id='1' uname='n1'/><node id='7' uname='N1'/></nodes>\
         <resources>{RESOURCES}</resources></configuration><status>{}{}{}</status></cib>",
        state("1", "n1", &[("plain", &started())]),
        state("7", "N1", &[("other", &started())]),
        state("7", "N1", &[("grouped", &operation("stop", 0, 9, 0, 0))]),
    );
    let cib = Cib::parse(&text).unwrap();

    let found = names(report(&cib, "n1", None, &Mounts::default()));
    assert_eq!(found, ["plain", "data"]);
    assert_eq!(names(report(&cib, "outlet", Some(7), &Mounts::default())), found);
    // Which of its numbers is the right one, nobody knows.
    let node = cib.node(Target { plug: "n1", nodename: None }).unwrap();
    assert_eq!(node.number(), None);
}

#[test]
fn zero_is_no_nodes_number() {
    for (id, number) in [("0", None), ("5", Some(5)), ("remote", None)] {
        let cib = Cib::parse(&format!("<cib><status>{}</status></cib>", state(id, "n", &[])));
        let cib = cib.unwrap();
        let node = cib.node(Target { plug: "n", nodename: None }).unwrap();
        assert_eq!(node.number(), number, "{id}");
    }
}

#[test]
fn a_cib_may_lie_in_a_result_of_pacemakers_tools() {
    let cib = format!(
        "<cib><configuration><resources>{RESOURCES}</resources></configuration>\
         <status>{}</status></cib>",
        state("1", "n1", &[("plain", &started())])
    );
    let start = "<pacemaker-result api-version='2.38' request='cibadmin --query'>";
    let end = "<status code='0' message='OK'/></pacemaker-result>";
    for inside in [cib.clone(), format!("<output><![CDATA[\n{cib}\n]]></output>")] {
        let text = format!("<?xml version='1.0'?>\n{start}{inside}{end}");
        let cib = Cib::parse(&text).unwrap();
        assert_eq!(names(report(&cib, "n1", None, &Mounts::default())), ["plain"]);
    }
    let result = |inside: &str| format!("{start}<output><![CDATA[{inside}]]></output>{end}");
    for text in [format!("{start}{end}"), result("x"), result(""), result(&result("x"))] {
        assert!(Cib::parse(&text).is_err(), "{text}");
    }
}

#[test]
fn an_instance_with_a_number_is_its_resource() {
    let cib = cib(&state("1", "n1", &[("plain:12", &started()), ("other:x", &started())]));

    assert_eq!(names(report(&cib, "n1", None, &Mounts::default())), ["plain"]);
}

#[test]
fn a_node_is_found_by_its_number_too_and_a_remote_one_by_its_state() {
    let mut status = state("3", "n3", &[("plain", &started())]);
    status += &state("remote", "remote", &[("other", &started())]);
    let cib = cib(&status);

    assert_eq!(names(report(&cib, "outlet-7", Some(3), &Mounts::default())), ["plain"]);
    assert_eq!(names(report(&cib, "remote", None, &Mounts::default())), ["data"]);
    assert!(matches!(report(&cib, "outlet-7", None, &Mounts::default()), Report::Blind(_)));
}

#[test]
fn without_status_or_gfs2_resources_the_cib_is_blind() {
    let unseen = cib("");
    assert!(matches!(report(&unseen, "n1", None, &Mounts::default()), Report::Blind(_)));
    let other = Cib::parse("<cib><configuration/><status/></cib>").unwrap();
    assert!(matches!(report(&other, "n1", None, &Mounts::default()), Report::Blind(_)));
    let fenced = cib("<node_state id='1' uname='n1'/>");
    assert_eq!(names(report(&fenced, "n1", None, &Mounts::default())), [""; 0]);
}

#[test]
fn lines_before_the_cib_are_passed_over() {
    let plain = cib("");
    let text = "<cib><configuration><nodes><node id='1' uname='n1'/></nodes></configuration></cib>";
    for before in
        ["", "\n", "warning: <x> is deprecated\n", "a\n\nb\n  ", "<?xml version='1.0'?>\n"]
    {
        let found = Cib::parse(&format!("{before}{text}")).unwrap();
        assert_eq!(found.nodes().next(), plain.nodes().next(), "{before:?}");
    }
    for text in ["warning: <cib/>", "<warning>\n<cib/>"] {
        assert!(Cib::parse(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_no_cib_is_refused() {
    for text in ["", "x", "<cib>", "<crm_mon/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><cib>&b;</cib>"] {
        assert!(Cib::parse(text).is_err(), "{text}");
    }
    let deep = format!("<cib>{}{}</cib>", "<a>".repeat(300_000), "</a>".repeat(300_000));
    assert_eq!(Cib::parse(&deep), Ok(Cib::default()));
}
