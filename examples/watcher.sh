#!/bin/bash
# A watcher for responder=script, step by step as "Writing a watcher" in PROTOCOL.md has it.
#
#   watcher.sh REQUEST_DIR RESPONSE_DIR PROGRAM
#
# PROGRAM ACTION TARGET fences, makes sure that it happened, and exits with 0. It exits with 1 if the
# device was not reached, with 2 if the state was not confirmed, and with 3 after any other failure.
# Its output is the message of the answer. It must end by itself. The request is its standard input.
# Requests are served one after the other. Needs jq and flock.
set -u
umask 077
requests=$1 responses=$2 program=$3
default_deadline_s=60

# CLOCK_BOOTTIME in milliseconds. Some containers show another uptime: see PROTOCOL.md.
boottime_ms() {
    local up
    read -r up _ </proc/uptime
    echo $((10#${up/./}0))
}

# is_request FILE: one JSON object whose known members have the right types.
is_request() {
    jq -es 'length == 1 and (.[0] | type == "object"
        and ([.request_id, .timestamp, .action, .target_node] | all(type == "string"))
        and ([.deadline, .boot_id, .device] | all(. == null or type == "string"))
        and (.deadline_boottime_ms | . == null or type == "number")
        and (.held | . == null or type == "boolean"))' "$1" >/dev/null 2>&1
}

# member FILE NAME: a member of a request, or nothing.
member() {
    jq -r --arg name "$2" '.[$name] | strings, numbers, booleans' "$1"
}

# seconds TEXT: an RFC 3339 time in seconds since 1970; 0 for any other text.
seconds() {
    [[ $1 =~ ^[0-9-]{10}[Tt][0-9:.]{8,}([Zz]|[+-][0-9]{2}:[0-9]{2})$ ]] && date -d "$1" +%s || echo 0
}

# answer N RESULT CODE ACTION_PERFORMED MESSAGE FILE: FILE is the request.
answer() {
    local temporary="$responses/.$1.json.tmp" own
    own=$(jq -cs '.[0] | objects' "$6" 2>/dev/null)
    jq -n --argjson own "${own:-null}" --arg n "$1" --arg result "$2" --argjson code "$3" \
        --arg performed "$4" --arg message "$5" --arg now "$(date -u +%Y-%m-%dT%H:%M:%SZ)" '
        def own($name): $own[$name] | strings;
        { request_id: (own("request_id") // $n[-36:]), target_node: (own("target_node") // ""),
          action: (own("action") // ""), recorder_node: (own("recorder_node") // ""),
          success: ($code == 0), status: (if $code == 0 then "success" else "error" end),
          result: $result, result_code: $code, action_performed: $performed, verified: false,
          message: $message, timestamp: $now }' >"$temporary" &&
        sync "$temporary" && mv -n -T "$temporary" "$responses/$1.json" && sync "$responses"
}

# refusal FILE: why a claimed request must not begin, as result and message; nothing if it may.
refusal() {
    local written deadline now
    is_request "$1" || { echo "rejected it is no request"; return; }
    [[ $(member "$1" action) =~ ^(on|off|reboot)$ ]] ||
        { echo "rejected the action is not on, off or reboot"; return; }
    [[ $(member "$1" target_node) =~ ^[A-Za-z0-9_]+([._-][A-Za-z0-9_]+)*$ ]] ||
        { echo "rejected the target is no node name"; return; }
    if [[ $(member "$1" boot_id) && $(member "$1" deadline_boottime_ms) ]]; then
        [[ $(member "$1" boot_id) = "$(</proc/sys/kernel/random/boot_id)" ]] ||
            { echo "expired it is of another boot"; return; }
        jq -e --argjson now "$(boottime_ms)" '.deadline_boottime_ms > $now' "$1" >/dev/null ||
            { echo "expired its deadline has passed"; return; }
    else
        now=$(date +%s) written=$(seconds "$(member "$1" timestamp)")
        ((written <= now + 1)) || { echo "expired its timestamp is in the future"; return; }
        deadline=$((written + default_deadline_s))
        [[ $(member "$1" deadline) ]] && deadline=$(seconds "$(member "$1" deadline)")
        ((deadline > now)) || { echo "expired its deadline has passed"; return; }
    fi
    if [[ $(member "$1" held) = true ]] && flock -s -n "$1" true; then
        echo "withdrawn its client is gone"
    fi
}

# serve N: a request from the first look to its answer.
serve() {
    local n=$1 request="$requests/$1.json" claimed="$requests/.claimed/$1.json"
    local changed why action target message code performed=none
    local results=(success unreachable unacknowledged device-failure)
    [[ -f $request && -O $request && ! -L $request ]] || return
    if [[ -e $responses/$n.json ]]; then
        rm -f "$request"
        return
    fi
    if ! is_request "$request"; then
        # Its client may still be writing it.
        changed=$(stat -c %Y "$request" 2>/dev/null) || return
        (($(date +%s) - changed >= 3)) || return
    fi
    # The kernel decides whether this claim or the withdrawal of the client came first.
    mv -T "$request" "$claimed" 2>/dev/null || return
    sync "$requests/.claimed"
    # No client can change it any more, so this check of the file, the clock and the client counts.
    why=$(refusal "$claimed")
    if [[ $why ]]; then
        answer "$n" "${why%% *}" 3 none "${why#* }" "$claimed" && rm -f "$claimed"
        return
    fi
    action=$(member "$claimed" action) target=$(member "$claimed" target_node)
    message=$("$program" "$action" "$target" 2>&1 <"$claimed")
    code=$?
    ((code <= 3)) || code=3
    ((code == 0)) && performed=$action
    answer "$n" "${results[code]}" "$code" "$performed" "${message:0:4096}" "$claimed" &&
        rm -f "$claimed"
}

mkdir -p "$requests/.claimed" "$responses" || exit 1
# A program that outlives this watcher keeps the lock, which prevents the start of the next watcher.
exec 9>"$requests/.script.lock"
flock -n 9 || { echo "another watcher serves $requests" >&2; exit 1; }
shopt -s nullglob

# The outcome of requests that the previous watcher had claimed is unknown. They must not run again.
for file in "$requests"/.claimed/*.json; do
    n=$(basename "$file" .json)
    [[ -e $responses/$n.json ]] ||
        answer "$n" interrupted 3 none "the watcher ended while it executed this request" "$file" || exit 1
    rm -f "$file"
done

while true; do
    for file in "$requests"/*.json; do
        serve "$(basename "$file" .json)"
    done
    sleep 0.2
done
