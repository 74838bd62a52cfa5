//! Small fence agents for the tests, and their devices.

use std::collections::BTreeMap;
use std::fs;

use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport, PowerReport};
use fence_device::{
    AgentAction, ExecutorClient, FenceAgentDevice, FenceAgentSettings, FenceDevice, Limit, Pin,
};
use fence_protocol::NodeName;

use super::{Directory, long, order_in};

pub const PASSWORD: &str = "s3cret  \"pass\" wörd";

pub struct Rig {
    pub directory: Directory,
    pub executor: ExecutorClient,
}

impl Rig {
    pub fn new() -> Self {
        let directory = Directory::new();
        let executor = directory.executor();
        directory.private("password", PASSWORD);
        Rig { directory, executor }
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.path(name).into_os_string().into_string().unwrap()
    }

    /// An agent that runs `body`: `$action` and `$plug` are its input, each call is a line in the
    /// file `calls`. `metadata` is its metadata.
    pub fn agent_with(&self, metadata: &str, body: &str) -> FenceAgentSettings {
        fs::write(self.path("metadata"), metadata).unwrap();
        let script = format!(
            "cd '{}'; input=$(cat); plug=; nodename=\n\
             while IFS='=' read -r name value; do case $name in\n\
             plug|ip|action|nodename) eval \"$name=\\$value\";; esac; done <<END\n$input\nEND\n\
             if [ \"$action\" = metadata ]; then cat metadata; exit; fi\n\
             echo \"$action $plug\" >>calls; echo \"$input\" >input\n{body}",
            self.path("")
        );
        settings(self.directory.script("fence_test", &script))
    }

    /// The same with all actions, and an option that certainly names the target.
    pub fn agent(&self, body: &str) -> FenceAgentSettings {
        let plug_option = Some("plug".to_owned());
        FenceAgentSettings { plug_option, ..self.agent_with(&metadata("plug", &ALL), body) }
    }

    pub fn device(&self, settings: FenceAgentSettings) -> FenceAgentDevice {
        FenceAgentDevice::new(settings, self.executor.clone())
    }

    pub fn calls(&self) -> Vec<String> {
        self.directory.calls()
    }
}

/// An agent whose configuration contains only its program.
pub fn settings(agent: String) -> FenceAgentSettings {
    FenceAgentSettings {
        agent,
        options: BTreeMap::new(),
        secrets: BTreeMap::new(),
        env: BTreeMap::new(),
        plug: PerTarget::Pattern("{target}".to_owned()),
        plug_option: None,
        targets: [node("n1"), node("n2")].into(),
        actions: None,
        needed: [AgentAction::Off, AgentAction::On].into(),
    }
}

pub const ALL: [&str; 6] = ["off", "on", "reboot", "status", "list", "monitor"];

/// Metadata with this option, some others, and these actions.
pub fn metadata(option: &str, actions: &[&str]) -> String {
    let parameter = |name: &str| {
        format!("<parameter name=\"{name}\"><content type=\"string\"/><shortdesc/></parameter>")
    };
    let actions: Vec<_> =
        actions.iter().map(|action| format!("<action name=\"{action}\"/>")).collect();
    format!(
        "<?xml version=\"1.0\"?>\n<resource-agent name=\"fence_test\"><longdesc/><parameters>{}{}{}\
         </parameters><actions>{}</actions></resource-agent>\n",
        parameter(option),
        parameter("username"),
        parameter("password"),
        actions.concat(),
    )
}

pub fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub fn order_by(device: &FenceAgentDevice, order: Order, limit: Limit) -> OrderReport {
    order_in(&Pin::default(), device, order, limit)
}

pub fn off(device: &FenceAgentDevice) -> OrderReport {
    order_by(device, Order::Off, long())
}

pub fn power(device: &FenceAgentDevice) -> PowerReport {
    device.power(&node("n1"), &Pin::default(), long())
}
