//! The programs that discovery runs: their arguments, and that none of them delays the result.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../../../tests/common/tree.rs"]
mod tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gfs2_discovery::{
    Discovery, Kubernetes, Reading, Report, Search, Source, Target, discover, kubernetes_nodes,
};
use tree::{PLENTY, Tree, await_that, blindness, is_alive, report};

const TARGET: Target<'static> = Target { plug: "node2", nodename: None };

/// Enough for the start of a script, also on a busy machine, and a short wait.
const SHORT: Duration = Duration::from_secs(3);

fn with_kubectl(tree: &Tree, kubectl: &str, time_max: Duration) -> Discovery {
    let mut search = tree.search(time_max);
    search.kubernetes = Kubernetes { kubectl: Some(kubectl.to_owned()), ..Kubernetes::default() };
    discover(TARGET, &search)
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children_and_the_files_still_answer() {
    let tree = Tree::of_capture("at-fence-node1");
    let note = tree.notes_pid();
    tree.program(
        "cibadmin",
        &format!("trap '' TERM INT HUP\n{note}\nsh -c \"{note}; sleep 1000\"\n"),
    );

    let found = discover(TARGET, &tree.search(SHORT));

    assert_eq!(found.names(), ["gfs2-storage", "scratch"], "{found}");
    assert!(blindness(&found, Source::Cib).contains("cibadmin was killed"), "{found}");
    for pid in tree.await_pids(2) {
        await_that("the end of what was killed", || !is_alive(&pid));
    }
}

#[test]
fn discovery_does_not_wait_for_a_process_that_survives_its_kill() {
    let tree = Tree::of_capture("at-fence-node1");
    let pids = tree.path("pids");
    // In its own session, it receives no signal to the program's group, and it holds the outputs.
    tree.program(
        "cibadmin",
        &format!(
            "cat '{}'\nsetsid sh -c 'echo $$ >>{}; exec sleep 1000' &\nwait",
            tree.path("cibadmin.xml").display(),
            pids.display()
        ),
    );

    let found = discover(TARGET, &tree.search(SHORT));

    let survivor = tree.await_pids(1).remove(0);
    assert!(is_alive(&survivor));
    let killed = std::process::Command::new("kill").args(["-KILL", &survivor]).status();
    assert!(killed.unwrap().success());
    assert!(matches!(report(&found, Source::Cib), Report::Blind(_)), "{found}");
    assert_eq!(found.names(), ["gfs2-storage", "scratch"], "{found}");
}

#[test]
fn both_programs_run_at_the_same_time() {
    let tree = Tree::of_capture("at-fence-node3");
    // No event tells a shell that a file appears.
    let meet = |own: &str, other: &str| {
        let (own, other) = (tree.path(own), tree.path(other));
        format!(
            "touch '{}'; until [ -e '{}' ]; do sleep 0.01; done",
            own.display(),
            other.display()
        )
    };
    tree.program(
        "cibadmin",
        &format!("{}\ncat '{}'", meet("a", "b"), tree.path("cibadmin.xml").display()),
    );
    tree.program("kubectl", &format!("{}\necho '{{\"items\": []}}'", meet("b", "a")));

    let found = with_kubectl(&tree, "kubectl", PLENTY);

    assert_eq!(found.names(), ["gfs2-storage", "scratch"], "{found}");
    assert!(matches!(report(&found, Source::Nnf), Report::Answered { .. }), "{found}");
}

#[test]
fn a_program_starts_in_the_root_and_inherits_nothing() {
    let tree = Tree::of_capture("at-fence-node1");
    let seen = tree.path("seen");
    let script = format!("{{ pwd; cat; env | sort; echo \"$@\"; }} >'{}'; exit 3", seen.display());
    tree.program("cibadmin", &script);

    let found = tree.discover("node2");

    assert_eq!(
        fs::read_to_string(&seen).unwrap(),
        "/\nLC_ALL=C\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\n\
         --query --local\n"
    );
    assert_eq!(blindness(&found, Source::Cib), "cibadmin failed (exit status: 3): ");
}

#[test]
fn a_cibadmin_that_does_not_know_local_is_asked_without_it() {
    let tree = Tree::of_capture("at-fence-node3");
    let script = format!(
        "case \"$*\" in *--local*) echo 'Unknown option --local' >&2; exit 64;; esac\ncat '{}'",
        tree.path("cibadmin.xml").display()
    );
    tree.program("cibadmin", &script);
    // The other program must not delay the second try.
    tree.program("kubectl", "exec sleep 1000");

    let found = with_kubectl(&tree, "kubectl", SHORT);

    assert!(matches!(report(&found, Source::Cib), Report::Answered { .. }), "{found}");
    assert_eq!(found.names(), ["gfs2-storage", "scratch"], "{found}");
}

#[test]
fn a_cibadmin_that_refuses_both_ways_is_asked_no_more() {
    let tree = Tree::of_capture("at-fence-node1");
    let seen = tree.path("seen");
    tree.program("cibadmin", &format!("echo \"$@\" >>'{}'; echo no >&2; exit 64", seen.display()));

    let found = tree.discover("node2");

    assert_eq!(fs::read_to_string(&seen).unwrap(), "--query --local\n--query\n");
    assert_eq!(blindness(&found, Source::Cib), "cibadmin failed (exit status: 64): no");
}

#[test]
fn kubectl_is_asked_for_gfs2_only_and_only_where_it_can_reach_something() {
    let tree = Tree::new();
    let seen = tree.path("seen");
    let list = r#"{"items": [{"kind": "NnfNodeBlockStorage", "metadata":
        {"name": "job-0", "namespace": "rabbit-1", "labels":
        {"nnf.cray.hpe.com/allocationset": "gfs2"}}, "status": {"allocations":
        [{"accesses": {"node2": {}}}]}}]}"#;
    tree.write("list.json", list);
    let script = format!(
        "echo \"$@ $KUBECONFIG\" >>'{}'; cat '{}'",
        seen.display(),
        tree.path("list.json").display()
    );
    tree.program("kubectl", &script);

    let found = tree.discover("node2");
    assert!(matches!(report(&found, Source::Nnf), Report::Absent(_)), "{found}");
    assert!(!seen.exists());

    let mut search = tree.search(PLENTY);
    search.kubernetes.config = Some("/none:/etc/kube.conf".to_owned());
    tree.write("etc/kube.conf", "");
    assert_eq!(discover(TARGET, &search).names(), ["job-0"]);
    let nodes = kubernetes_nodes(&search);
    assert!(matches!(&nodes, Reading::Got(nodes) if nodes.contains("node2")), "{nodes:?}");
    let seen = fs::read_to_string(&seen).unwrap();
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    let rest = "--output=json --request-timeout=60s /none:/etc/kube.conf";
    assert_eq!(
        seen,
        [
            format!("get clientmounts.dataworkflowservices.github.io --namespace=node2 {rest}"),
            format!(
                "get nnfnodeblockstorages.nnf.cray.hpe.com,nnfnodestorages.nnf.cray.hpe.com \
                 --all-namespaces --selector=nnf.cray.hpe.com/allocationset=gfs2 {rest}"
            ),
            format!("get storages.dataworkflowservices.github.io --all-namespaces {rest}"),
        ]
    );
    search.kubernetes = Kubernetes::default();
    search.kubernetes.home = Some("/home/admin".into());
    tree.write("home/admin/.kube/config", "");
    assert_eq!(discover(TARGET, &search).names(), ["job-0"]);

    assert_eq!(with_kubectl(&tree, "/usr/sbin/kubectl", PLENTY).names(), ["job-0"]);
    let missing = with_kubectl(&tree, "oc", PLENTY);
    assert_eq!(report(&missing, Source::Nnf), &Report::Blind("there is no oc".to_owned()));
}

#[test]
fn a_program_that_fails_or_writes_nonsense_makes_its_source_blind_with_the_reason() {
    for (script, why) in [
        (
            "echo 'Could not connect to the CIB' >&2; echo again >&2; exit 102",
            "Could not connect to the CIB again",
        ),
        ("kill -KILL $$", "cibadmin failed (signal: 9 (SIGKILL))"),
        ("echo nonsense", "not valid XML"),
        ("echo '<crm_mon/>'", "begins with 'crm_mon'"),
        ("", "not valid XML"),
        ("cat /dev/zero", "wrote more than"),
        ("cat /dev/zero >&2", "cibadmin failed"),
    ] {
        let tree = Tree::of_capture("at-fence-node1");
        tree.program("cibadmin", script);

        let found = tree.discover("node2");

        assert!(blindness(&found, Source::Cib).contains(why), "{script}: {found}");
        assert!(found.to_string().len() < 1000, "{script}");
        assert_eq!(found.names(), ["gfs2-storage", "scratch"], "{script}: {found}");
    }
}

#[test]
fn a_program_that_others_could_replace_is_not_run() {
    let tree = Tree::of_capture("at-fence-node1");
    tree.program("cibadmin", &tree.notes_pid());
    fs::set_permissions(tree.path("usr/sbin/cibadmin"), PermissionsExt::from_mode(0o777)).unwrap();

    let found = tree.discover("node2");

    assert!(blindness(&found, Source::Cib).contains("others can write to it"), "{found}");
    assert!(!tree.path("pids").exists());
}

#[test]
fn without_time_only_the_files_are_read() {
    let tree = Tree::of_capture("at-fence-node1");
    tree.program("cibadmin", &tree.notes_pid());

    let found = discover(TARGET, &tree.search(Duration::ZERO));

    assert_eq!(found.names(), ["gfs2-storage", "scratch"], "{found}");
    assert!(matches!(report(&found, Source::Cib), Report::Absent(_)), "{found}");
    assert!(!tree.path("pids").exists());
}

/// A list of the GFS2 storage of this many rabbits, each with 16 compute nodes that share an
/// allocation.
fn rabbits(count: usize) -> String {
    let labels = r#""labels": {"nnf.cray.hpe.com/allocationset": "gfs2"}"#;
    let device =
        r#"{"NQN": "nqn.2019-08.example:ssd", "namespaceId": "7", "capacityAllocated": 1}"#;
    let devices = vec![device; 16].join(",\n                ");
    let mut items = Vec::new();
    for rabbit in 0..count {
        let accesses: Vec<String> = (0..16)
            .map(|n| {
                format!(r#""node{}": {{"storageGroupId": "job-{rabbit}-0-{n}"}}"#, rabbit * 16 + n)
            })
            .collect();
        let metadata = format!(
            r#""metadata": {{"name": "job", "namespace": "rabbit-{rabbit}",
            "uid": "{rabbit:05}", {labels}}}"#
        );
        items.push(format!(
            r#"{{"kind": "NnfNodeBlockStorage", {metadata}, "spec": {{"sharedAllocation": true}},
            "status": {{"allocations": [{{"accesses": {{{}}}, "devices": [{devices}]}}]}}}},
            {{"kind": "NnfNodeStorage", {metadata},
            "spec": {{"count": 16, "sharedAllocation": true}}}}"#,
            accesses.join(", ")
        ));
    }
    format!("{{\"items\": [{}]}}", items.join(","))
}

#[test]
fn a_list_of_thousands_of_rabbits_is_read_to_its_end() {
    let list = rabbits(8000);
    assert!(list.len() > 20_000_000, "{}", list.len());
    let tree = Tree::new();
    tree.write("list.json", &list);
    let mounts = r#"{"items": [{"kind": "ClientMount", "metadata": {"namespace": "node127990"},
        "spec": {"mounts": [{"device": {"deviceReference": {"objectReference":
        {"kind": "NnfNodeStorage", "name": "job", "namespace": "rabbit-7999"}, "data": 6}}}]}}]}"#;
    tree.write("mounts.json", mounts);
    tree.program(
        "kubectl",
        &format!(
            "case \"$*\" in *clientmounts*--namespace=node127990*) cat '{0}/mounts.json';; \
             *clientmounts*) echo '{{\"items\": []}}';; *) cat '{0}/list.json';; esac",
            tree.path("").display()
        ),
    );
    let names = |plug| {
        let mut search = tree.search(PLENTY);
        search.kubernetes.kubectl = Some("kubectl".to_owned());
        let found = discover(Target { plug, nodename: None }, &search);
        assert!(
            matches!(report(&found, Source::Nnf), Report::Answered { remark: None, .. }),
            "{found}"
        );
        found.names()
    };

    assert_eq!(names("node127990"), ["fs-06-3037393939"]);
    assert_eq!(names("node127989").len(), 16);
    assert_eq!(names("rabbit-7999"), [""; 0]);
}

#[test]
fn a_kubectl_that_writes_without_end_or_half_a_list_leaves_blind() {
    for (script, why) in [
        ("cat /dev/zero", "wrote more than"),
        ("echo '{\"items\": ['; yes '{\"kind\": \"x\"},' | head -n 1000", "not valid JSON"),
        ("echo '{\"items\": []'", "not valid JSON"),
        ("echo '{\"items\": []}'; exit 1", "kubectl failed"),
        ("echo '{\"kind\": \"Status\"}'", "wrote no list"),
    ] {
        let tree = Tree::new();
        tree.program("kubectl", script);

        let found = with_kubectl(&tree, "kubectl", PLENTY);

        assert!(blindness(&found, Source::Nnf).contains(why), "{script}: {found}");
        let mut search = tree.search(PLENTY);
        search.kubernetes.kubectl = Some("kubectl".to_owned());
        assert!(matches!(kubernetes_nodes(&search), Reading::Blind(_)), "{script}");
    }
}

#[test]
fn a_configuration_of_kubectl_that_others_could_have_written_is_not_read() {
    let refused = |search: &Search| {
        let found = discover(TARGET, search);
        assert!(blindness(&found, Source::Nnf).contains("others can write to it"), "{found}");
        assert!(blindness(&found, Source::Nnf).contains("kube"), "{found}");
        assert!(matches!(kubernetes_nodes(search), Reading::Blind(_)));
    };
    let tree = Tree::new();
    tree.program("kubectl", &tree.notes_pid());
    for name in ["home/admin/.kube/config", "etc/sound/kube.conf", "etc/kube.conf"] {
        tree.write(name, "");
    }
    for name in ["home/admin/.kube/config", "etc/kube.conf"] {
        fs::set_permissions(tree.path(name), PermissionsExt::from_mode(0o664)).unwrap();
    }

    let mut search = tree.search(PLENTY);
    search.kubernetes.home = Some("/home/admin".into());
    refused(&search);
    // A configured `kubectl` reads the same configuration.
    search.kubernetes.kubectl = Some("kubectl".to_owned());
    refused(&search);
    for list in ["/etc/kube.conf", "/etc/sound/kube.conf:/etc/kube.conf", "/none:/etc/kube.conf"] {
        search.kubernetes.config = Some(list.to_owned());
        refused(&search);
    }
    assert!(!tree.path("pids").exists(), "nothing was run");
}
