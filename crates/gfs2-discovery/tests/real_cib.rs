//! CIBs of Pacemaker itself: its `cibadmin` configures GFS2 clones. Its `crm_simulate` starts them,
//! lets a node die and writes the history as the real cluster does. Then its `cibadmin` is queried.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../../../tests/common/left_out.rs"]
mod left_out;
#[path = "../../../tests/common/tree.rs"]
mod tree;

use std::process::{Command, Stdio};

use gfs2_discovery::{Report, Source};
use left_out::left_out;
use tree::{Tree, report};

#[test]
fn pacemakers_own_cib_tells_what_the_dead_node_had_until_its_fence_succeeded() {
    let Some(cluster) = Cluster::new() else { return };

    cluster.simulate("up", &["--node-up=n1", "--node-up=n2", "--node-up=n3", "--simulate"]);
    assert_eq!(cluster.names("n2"), ["home", "scratch"]);
    assert_eq!(cluster.names("n3"), ["home"]);

    cluster.simulate("dead", &["--node-fail=n2"]);
    assert_eq!(cluster.names("n2"), ["home", "scratch"]);

    cluster.simulate("fenced", &["--simulate"]);
    assert_eq!(cluster.names("n2"), [""; 0]);
    assert_eq!(cluster.names("n1"), ["home", "scratch"]);
}

#[test]
fn what_could_not_be_stopped_is_still_held_and_what_was_stopped_is_not() {
    let Some(cluster) = Cluster::new() else { return };
    cluster.simulate("up", &["--node-up=n1", "--node-up=n2", "--node-up=n3", "--simulate"]);

    let stopped = "<nvpair id='stop' name='target-role' value='Stopped'/>";
    cluster.configure(
        "resources",
        &format!(
            "<clone id='scratch-clone'><meta_attributes id='m'>{stopped}</meta_attributes></clone>"
        ),
    );
    cluster.simulate("stopped", &["--simulate", "--op-fail=scratch_stop_0@n2=1"]);

    assert_eq!(cluster.names("n1"), ["home"]);
    assert_eq!(cluster.names("n2"), ["home", "scratch"]);
}

#[test]
fn parameters_are_what_pacemakers_own_tool_says_they_are() {
    let pair =
        |id: &str, value: &str| format!("<nvpair id='{id}' name='directory' value='/{value}'/>");
    let set = |id: &str, more: &str, value: &str| {
        let (rule, score) = if more.starts_with('<') { (more, "") } else { ("", more) };
        let pair = pair(&format!("{id}-d"), value);
        format!("<instance_attributes id='{id}' {score}>{rule}{pair}</instance_attributes>")
    };
    let fixed = "<instance_attributes id='fixed' score='-9'><nvpair id='fixed-f' name='fstype' \
                 value='gfs2'/><nvpair id='fixed-v' name='device' \
                 value='/dev/x'/></instance_attributes>";
    let template = format!(
        "<template id='t' class='ocf' provider='heartbeat' type='Filesystem'>{}{}</template><!-- \
         -->",
        set("t1", "", "template"),
        "<instance_attributes id='t2' score='-8'><nvpair id='t2-f' name='fstype' \
         value='gfs2'/></instance_attributes>"
    );
    let primitive = |inside: &str| {
        format!(
            "<primitive id='x' class='ocf' provider='heartbeat' \
             type='Filesystem'>{fixed}{inside}</primitive>"
        )
    };
    for resource in [
        primitive(&(set("a", "score='1'", "one") + &set("b", "score='10'", "two"))),
        primitive(&(set("a", "score='10'", "one") + &set("b", "score='1'", "two"))),
        primitive(&(set("a", "", "one") + &set("b", "", "two"))),
        primitive(&(set("a", "", "one") + &set("b", "score='-INFINITY'", "two"))),
        primitive(
            &(set("a", "", "one")
                + "<instance_attributes id='b' score='3'><nvpair \
                   id-ref='a-d'/></instance_attributes>"),
        ),
        template.clone() + "<primitive id='x' template='t'/>",
        template.clone()
            + &format!("<primitive id='x' template='t'>{}</primitive>", set("a", "", "own")),
        template
            + &format!(
                "<primitive id='x' template='t'>{}</primitive>",
                set("a", "score='-1'", "own")
            ),
        format!("<group id='g'>{}{}</group>", set("ga", "score='9'", "group"), primitive("")),
        format!(
            "<group id='g'>{}{}</group>",
            set("ga", "", "group"),
            primitive(&set("a", "", "own"))
        ),
    ] {
        let Some(cluster) = Cluster::empty() else { return };
        for element in resource.split("<!-- -->") {
            cluster.configure("resources", element);
        }
        cluster.simulate("up", &["--node-up=n1", "--node-up=n2", "--node-up=n3", "--simulate"]);
        let mut asked = tool("crm_resource");
        asked
            .args(["--resource", "x", "--get-parameter", "directory"])
            .env("CIB_file", cluster.file());
        let said = asked.stdout(Stdio::piped()).output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();

        let mut found: Vec<String> =
            ["n1", "n2", "n3"].into_iter().flat_map(|node| cluster.names(node)).collect();
        found.dedup();

        assert_eq!(found, [said.trim().trim_start_matches('/')], "{resource}");
    }
}

/// A cluster in a file, in the form that Pacemaker's tools use.
struct Cluster(Tree);

impl Cluster {
    /// Three nodes; `home` on all of them, `scratch` not on n3, and another file system that is not
    /// GFS2.
    fn new() -> Option<Self> {
        let cluster = Cluster::empty()?;
        let resources = [
            clone("home", "/srv/home", "gfs2"),
            clone("scratch", "/srv/scratch", "gfs2"),
            clone("local", "/srv/local", "ext4"),
        ];
        for resource in &resources {
            cluster.configure("resources", resource);
        }
        let ban = "<rsc_location id='b' rsc='scratch-clone' node='n3' score='-INFINITY'/>";
        cluster.configure("constraints", ban);
        Some(cluster)
    }

    /// Three nodes with a fence device.
    fn empty() -> Option<Self> {
        if !tool("crm_simulate").arg("--version").status().is_ok_and(|status| status.success()) {
            left_out("real_cib", "Pacemaker's tools are missing");
            return None;
        }
        let cluster = Cluster(Tree::new());
        let empty = tool("cibadmin").arg("--empty").stdout(Stdio::piped()).output().unwrap();
        cluster.0.write("cib.xml", &String::from_utf8(empty.stdout).unwrap());
        cluster.0.program(
            "cibadmin",
            &format!("CIB_file='{}' exec /usr/sbin/cibadmin \"$@\"", cluster.file()),
        );
        for (number, name) in [(1, "n1"), (2, "n2"), (3, "n3")] {
            cluster.configure("nodes", &format!("<node id='{number}' uname='{name}'/>"));
        }
        let fence = "<primitive id='fence' class='stonith' type='fence_gfs2_recorder'/>";
        cluster.configure("resources", fence);
        Some(cluster)
    }

    fn file(&self) -> String {
        self.0.path("cib.xml").display().to_string()
    }

    fn configure(&self, section: &str, xml: &str) {
        let mut cibadmin = tool("cibadmin");
        cibadmin.args(["--modify", "--allow-create", "--scope", section, "--xml-text", xml]);
        assert!(cibadmin.env("CIB_file", self.file()).status().unwrap().success(), "{xml}");
    }

    fn simulate(&self, name: &str, what: &[&str]) {
        let next = self.0.path(&format!("{name}.xml"));
        let mut simulate = tool("crm_simulate");
        simulate.arg("--xml-file").arg(self.file()).arg("--save-output").arg(&next);
        assert!(simulate.arg("--quorum=1").args(what).status().unwrap().success(), "{name}");
        std::fs::rename(next, self.file()).unwrap();
    }

    fn names(&self, node: &str) -> Vec<String> {
        let found = self.0.discover(node);
        assert!(matches!(report(&found, Source::Cib), Report::Answered { .. }), "{found}");
        found.names()
    }
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(format!("/usr/sbin/{name}"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn clone(name: &str, directory: &str, kind: &str) -> String {
    format!(
        "<clone id='{name}-clone'><group id='{name}-group'><primitive id='{name}' class='ocf' \
         provider='heartbeat' type='Filesystem'><instance_attributes id='{name}-a'>\
         <nvpair id='{name}-1' name='device' value='/dev/vg/{name}'/>\
         <nvpair id='{name}-2' name='directory' value='{directory}'/>\
         <nvpair id='{name}-3' name='fstype' value='{kind}'/></instance_attributes></primitive>\
         </group></clone>"
    )
}
