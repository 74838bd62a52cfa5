//! Lines on standard error that look like complaints, although all is well.
//!
//! The table has each remark as a whole line, word for word. An unknown line stays a complaint.

/// Whether `line` is a known remark.
pub(super) fn is_remark(line: &str) -> bool {
    let line = line.trim_matches([' ', '\t']);
    REMARKS.iter().any(|remark| is_line(line, remark))
}

/// Whether the whole line matches `remark`, in which `*` is a name: visible ASCII characters, at
/// least one, and no blank.
fn is_line(line: &str, remark: &str) -> bool {
    let Some((before, after)) = remark.split_once('*') else { return line == remark };
    let Some(rest) = line.strip_prefix(before) else { return false };
    let name = rest.bytes().take_while(u8::is_ascii_graphic).count();
    (1..=name).any(|end| is_line(&rest[end..], after))
}

const REMARKS: [&str; 32] = [
    // ipmitool, without the list of companies' numbers.
    "IANA PEN registry open failed: No such file or directory",
    "IANA PEN registry open failed: Permission denied",
    "Failed to load entries from IANA PEN Registry",
    // OpenSSH.
    "Pseudo-terminal will not be allocated because stdin is not a terminal.",
    "Warning: Permanently added '*' (*) to the list of known hosts.",
    "Warning: Permanently added '*,*' (*) to the list of known hosts.",
    "Warning: Permanently added the * host key for IP address '*' to the list of known hosts.",
    "Warning: Identity file * not accessible: No such file or directory.",
    "Warning: No xauth data; using fake authentication data for X11 forwarding.",
    "X11 forwarding request failed on channel *",
    "** WARNING: connection is not using a post-quantum key exchange algorithm.",
    "** This session may be vulnerable to \"store now, decrypt later\" attacks.",
    "** The server may need to be upgraded. See https://openssh.com/pq.html",
    "Could not chdir to home directory *: No such file or directory",
    "Could not chdir to home directory *: Permission denied",
    // Shells, and what they read when they start.
    "*: warning: setlocale: *: cannot change locale (*)",
    "*: warning: setlocale: *: cannot change locale (*): No such file or directory",
    "*: line *: warning: setlocale: *: cannot change locale (*)",
    "*: line *: warning: setlocale: *: cannot change locale (*): No such file or directory",
    "perl: warning: Setting locale failed.",
    "mesg: ttyname failed: Inappropriate ioctl for device",
    "mesg: ttyname failed: No such device",
    "tput: No value for $TERM and no -T specified",
    "*: no job control in this shell",
    "*: cannot set terminal process group (*): Inappropriate ioctl for device",
    // net-snmp, about the files in which it looks names up.
    "Bad operator (*): At line * in *",
    "Expected \"::=\" (*): At line * in *",
    "Cannot find module (*): At line * in *",
    "Did not find '*' in module * (*)",
    "Undefined identifier: * near line * of *",
    "Cannot adopt OID in *: * ::= { * }",
    "Cannot adopt OID in *: * ::= { * * }",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remark_is_known_as_a_whole_line() {
        for line in [
            "IANA PEN registry open failed: No such file or directory",
            "Pseudo-terminal will not be allocated because stdin is not a terminal.",
            "Warning: Permanently added 'pdu' (ED25519) to the list of known hosts.",
            "Warning: Permanently added '[pdu]:2222' (RSA) to the list of known hosts.",
            "Warning: Permanently added 'pdu,10.0.0.1' (ECDSA) to the list of known hosts.",
            "** This session may be vulnerable to \"store now, decrypt later\" attacks.",
            "Could not chdir to home directory /home/fence: No such file or directory",
            "bash: warning: setlocale: LC_ALL: cannot change locale (en_US.UTF-8)",
            "/bin/bash: warning: setlocale: LC_ALL: cannot change locale (de): No such file or \
             directory",
            "bash: line 1: warning: setlocale: LC_ALL: cannot change locale (en_US.UTF-8)",
            "bash: cannot set terminal process group (-1): Inappropriate ioctl for device",
            "Bad operator (INTEGER): At line 73 in /usr/share/snmp/mibs/ietf/SNMPv2-PDU",
            "Cannot find module (SNMPv2-MIB): At line 0 in (none)",
            "Did not find 'zeroDotZero' in module SNMPv2-SMI (/usr/share/mibs/ietf/ALARM-MIB)",
            "Undefined identifier: mib-2 near line 18 of /usr/share/mibs/ietf/IPATM-IPMC-MIB",
            "Cannot adopt OID in PowerNet-MIB: atsInputEntry ::= { atsInputTable 1 }",
        ] {
            assert!(is_remark(line), "{line}");
            for other in [
                format!("{line} error"),
                format!("error: {line}"),
                format!("{line}; n3: not off"),
                line.replacen(' ', " not ", 1),
                line.replacen(' ', " \u{200b}", 1),
            ] {
                assert!(!is_remark(&other), "{other}");
            }
        }
    }

    #[test]
    fn a_name_in_a_remark_is_one_word() {
        for line in [
            "Could not chdir to home directory : No such file or directory",
            "Could not chdir to home directory /a is not off: No such file or directory",
            "Warning: Permanently added 'pdu' to the list of known hosts. error",
            "Warning: Permanently added 'a b' (RSA) to the list of known hosts.",
            "Warning: Permanently added 'é' (RSA) to the list of known hosts.",
            "Bad operator (INTEGER): At line 73 in /a error",
            "IANA PEN registry open failed: No such file or directory\u{fffd}",
            "** WARNING: connection failed",
            "",
        ] {
            assert!(!is_remark(line), "{line}");
        }
    }
}
