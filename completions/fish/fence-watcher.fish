# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_fence_watcher_global_optspecs
    string join \n config= node= h/help V/version
end

function __fish_fence_watcher_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_fence_watcher_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_fence_watcher_using_subcommand
    set -l cmd (__fish_fence_watcher_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -l config -d 'The configuration file' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -l node -d 'The name of this node, if it differs from `uname -n`' -r
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -s h -l help -d 'Print help'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -s V -l version -d 'Print version'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -f -a "run" -d 'Serve requests until stopped (the default)'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -f -a "check" -d 'Check the configuration, whether the service can start, and whether each device can be reached now'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -f -a "status" -d 'Show what the running watcher is doing'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -f -a "reload" -d 'Make the running watcher read its configuration again: a wrong one changes nothing'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -f -a "history" -d 'Show past fences, from the audit log'
complete -c fence-watcher -n "__fish_fence_watcher_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand run" -l node -d 'The name of this node, if it differs from `uname -n`' -r
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand run" -s h -l help -d 'Print help'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand check" -l node -d 'The name of this node, if it differs from `uname -n`' -r
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand check" -l offline -d 'Check the file alone: for a file of another machine'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand check" -l json -d 'As JSON'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand check" -s h -l help -d 'Print help'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand status" -l config -d 'The configuration file' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand status" -l json -d 'As JSON: an object with `"running": false` if no watcher runs'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand status" -s h -l help -d 'Print help'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand reload" -l config -d 'The configuration file' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand reload" -s h -l help -d 'Print help'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l node -d 'Only fences of this node' -r
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l action -d 'Only this action' -r -f -a "off\t''
on\t''
reboot\t''"
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l result -d 'Only fences with this result' -r -f -a "success\t''
unreachable\t''
unacknowledged\t''
device-failure\t''
expired\t''
withdrawn\t''
interrupted\t''
rejected\t''
timed-out\t''
unknown\t''
completed\t''
failed\t''
waiting\t''
running\t''
no-end\t''"
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l since -d 'Only fences since this time: 30m, 2h, 7d ago, or a date or time, such as 2026-01-31, \'2026-01-31 12:00\' or 12:00 (local) or 2026-01-31T12:00:00Z' -r
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l log-dir -d 'The directory of the audit log, if it is not the configured one' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l config -d 'The configuration file' -r -F
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -l json -d 'As JSON: a list, or an object with a `message` if the audit cannot be read'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand history" -s h -l help -d 'Print help'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand help; and not __fish_seen_subcommand_from run check status reload history help" -f -a "run" -d 'Serve requests until stopped (the default)'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand help; and not __fish_seen_subcommand_from run check status reload history help" -f -a "check" -d 'Check the configuration, whether the service can start, and whether each device can be reached now'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand help; and not __fish_seen_subcommand_from run check status reload history help" -f -a "status" -d 'Show what the running watcher is doing'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand help; and not __fish_seen_subcommand_from run check status reload history help" -f -a "reload" -d 'Make the running watcher read its configuration again: a wrong one changes nothing'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand help; and not __fish_seen_subcommand_from run check status reload history help" -f -a "history" -d 'Show past fences, from the audit log'
complete -c fence-watcher -n "__fish_fence_watcher_using_subcommand help; and not __fish_seen_subcommand_from run check status reload history help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
