complete -c fence_gfs2_recorder -s o -l action -d 'Fencing action: off, on, reboot, status, list, list-status, monitor, metadata, manpage or validate-all; required, except from dlm_controld, which means reboot' -r -f -a "on\t''
off\t''
reboot\t''
status\t''
list\t''
list-status\t''
monitor\t''
metadata\t''
manpage\t''
validate-all\t''"
complete -c fence_gfs2_recorder -s n -l plug -d 'Name of the node to fence, as the responder knows it; off, on, reboot and status need it, and Pacemaker adds it' -r
complete -c fence_gfs2_recorder -l responder -d 'Who executes the requests: fence-watcher, a script of your own, or nnf-sos' -r -f -a "fence-watcher\t''
script\t''
nnf\t''"
complete -c fence_gfs2_recorder -l device -d 'Name of the fence device to use; without it the responder chooses by the target' -r
complete -c fence_gfs2_recorder -l fence-timeout -d 'Seconds after which the agent exits, with or without an answer; keep it below pcmk_reboot_timeout and pcmk_off_timeout' -r
complete -c fence_gfs2_recorder -l poll-interval -d 'Seconds between two looks for the answer if no event announces it' -r
complete -c fence_gfs2_recorder -l delay -d 'Seconds to wait before off and reboot; the delay is part of fence_timeout' -r
complete -c fence_gfs2_recorder -l request-dir -d 'Directory into which the agent writes requests' -r -F
complete -c fence_gfs2_recorder -l response-dir -d 'Directory in which the agent looks for answers' -r -F
complete -c fence_gfs2_recorder -l log-dir -d 'Directory of the audit logs' -r -F
complete -c fence_gfs2_recorder -l gfs2-discovery-enabled -d 'Find out which GFS2 file systems the target holds, and report them to the responder' -r -f -a "yes\t''
no\t''"
complete -c fence_gfs2_recorder -l gfs2-discovery-timeout -d 'Time limit in seconds for the programs that report the file systems; 0 runs no program and reads files only' -r
complete -c fence_gfs2_recorder -l kubectl-cmd -d 'Program that reports the file systems and nodes of Near Node Flash, by name or absolute path; without it kubectl, if kubectl is configured' -r
complete -c fence_gfs2_recorder -l verbose-level -d 'The same as verbose when it is 1 or more' -r
complete -c fence_gfs2_recorder -s D -l debug-file -d 'File to which the verbose output is appended' -r -F
complete -c fence_gfs2_recorder -s C -l separator -d 'Separator between the columns of list-status' -r
complete -c fence_gfs2_recorder -l plug-separator -d 'Separator between several plugs; more than one plug is refused' -r
complete -c fence_gfs2_recorder -l disable-timeout -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -l power-timeout -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -l power-wait -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -l login-timeout -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -l shell-timeout -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -l stonith-status-sleep -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -l retry-on -d 'Accepted for compatibility, without effect' -r
complete -c fence_gfs2_recorder -s v -l verbose -d 'Report each step on standard error; may be repeated'
complete -c fence_gfs2_recorder -s q -l quiet -d 'Write nothing to standard error, but still write the logs'
complete -c fence_gfs2_recorder -s V -l version -d 'Show the version and exit'
complete -c fence_gfs2_recorder -s h -l help -d 'Show this help and exit'
