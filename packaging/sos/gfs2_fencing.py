# A plug-in for sos report(1): what is needed to understand a fence afterwards.
#
# It collects the configuration without secrets, the logs, and what fence-watcher says of itself. It collects
# no file that holds a password, and no credential of systemd.

from sos.report.plugins import DebianPlugin, Plugin, RedHatPlugin, SuSEPlugin, UbuntuPlugin


class Gfs2Fencing(Plugin, RedHatPlugin, SuSEPlugin, DebianPlugin, UbuntuPlugin):

    short_desc = "Fencing of GFS2 clusters through files"

    plugin_name = "gfs2_fencing"
    profiles = ("cluster",)
    packages = ("gfs2-fencing",)
    files = ("/usr/sbin/fence-watcher",)
    services = ("fence-watcher",)

    def setup(self):
        # Not the directory: password files are beside the configuration.
        self.add_copy_spec([
            "/etc/gfs2-fencing/fence-watcher.toml",
            "/etc/systemd/system/fence-watcher.service.d/*.conf",
            "/etc/logrotate.d/gfs2-fencing",
        ])
        logs = "/var/log/gfs2-fencing/fence-events*"
        self.add_copy_spec(logs if self.get_option("all_logs") else logs + ".log")
        if not self.get_option("all_logs"):
            self.add_copy_spec(logs + ".jsonl")
        self.add_cmd_output([
            "fence-watcher --version",
            "fence-watcher status",
            "fence-watcher status --json",
            "fence-watcher history",
            "fence-watcher history --json",
            "fence-watcher check --json",
            "ls -laR /etc/gfs2-fencing /run/gfs2-fencing",
        ])

    def postproc(self):
        # Options of fence agents and arguments of programs can hold a password. Names of files, variables
        # and credentials stay.
        word = r"passw|passphrase|pwd|secret|token|community|key|auth|pin"
        value = (
            r"(?:\"\"\".*?\"\"\"|'''.*?'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'"
            r"|\[[^\]]*\]|[^\s,#}]+)"
        )
        named = (
            r"(?is)([\w.'\"-]*(?:" + word + r")[\w-]*"
            r"(?<!_file)(?<!_env)(?<!_credential)(?<!_script)['\"]?\s*=\s*)" + value
        )
        argument = r"(?is)(['\"]--?[\w-]*(?:" + word + r")[\w-]*['\"]\s*,\s*)" + value
        joined = r"(?i)(--?[\w-]*(?:" + word + r")[\w-]*[= ])[^'\"\s]+"
        for pattern, masked in ((named, r'\1"********"'), (argument, r'\1"********"'), (joined, r"\1********")):
            self.do_path_regex_sub(r"/etc/gfs2-fencing/.*", pattern, masked)
        # With the lines that continue it.
        self.do_path_regex_sub(
            r"/etc/systemd/system/fence-watcher.service.d/.*",
            r"(?m)^(\s*(?:Environment|SetCredential\w*|Exec\w*)\s*=)(?:.*\\\n)*.*$", r"\1********",
        )
