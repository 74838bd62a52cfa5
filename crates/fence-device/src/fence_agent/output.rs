//! The lists of fence agents.

use crate::pin::Listing;

/// A plug, as an agent lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The value that the agent expects.
    pub plug: &'a str,
    /// The agent's other name for it; may be empty.
    pub alias: &'a str,
}

/// Why an agent that has the action wrote no list, if it reports that: with these options it has no
/// plugs, or it has no code that lists them. ClusterLabs' agents use these words alone, and exit
/// with 0.
pub(super) fn no_list(stdout: &str) -> Option<Listing> {
    match stdout.trim() {
        "N/A" => Some(Listing::OneMachine),
        "NOTICE: List option is not working on this device yet" => Some(Listing::NoList),
        _ => None,
    }
}

/// The plugs that an agent lists: `plug`, `plug,alias` (with any separator) or, as `fence_virt`
/// and `fence_xvm` write it, `name uuid state`, one a line.
///
/// A line of another form is the error, and no list is returned: agents without a list report this
/// in prose, and exit with 0.
pub fn listed_plugs<'a>(stdout: &'a str, separator: &str) -> Result<Vec<Listed<'a>>, &'a str> {
    let lines = stdout.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            if !separator.is_empty()
                && let Some((plug, rest)) = line.split_once(separator)
            {
                let alias = rest.split(separator).next().unwrap_or_default();
                return Ok(Listed { plug: plug.trim(), alias: alias.trim() });
            }
            if !line.contains(char::is_whitespace) && line != "N/A" {
                return Ok(Listed { plug: line, alias: "" });
            }
            of_columns(line).ok_or(line)
        })
        .collect()
}

/// The line `name uuid state`; the name may contain blanks.
fn of_columns(line: &str) -> Option<Listed<'_>> {
    let (rest, state) = line.rsplit_once(char::is_whitespace)?;
    let (name, uuid) = rest.trim_end().rsplit_once(char::is_whitespace)?;
    let is_uuid = uuid.len() == 36 && uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (is_uuid && ["on", "off"].contains(&state))
        .then(|| Listed { plug: name.trim_end(), alias: uuid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugs(stdout: &str) -> Vec<(&str, &str)> {
        let listed = listed_plugs(stdout, ",").unwrap();
        listed.into_iter().map(|listed| (listed.plug, listed.alias)).collect()
    }

    #[test]
    fn each_form_of_a_list_is_understood() {
        assert_eq!(
            plugs("n1\n\n n2 ,second node,on\n3,\n"),
            [("n1", ""), ("n2", "second node"), ("3", "")]
        );
        let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
        assert_eq!(
            plugs(&format!("test      {uuid} on\nmy vm  {uuid} off\n")),
            [("test", uuid), ("my vm", uuid)]
        );
        assert_eq!(plugs(""), []);
        let other = listed_plugs("a,b;first\n", ";").unwrap();
        assert_eq!(other, [Listed { plug: "a,b", alias: "first" }]);
    }

    #[test]
    fn an_agent_says_in_known_words_alone_that_it_has_no_list() {
        let notice = "NOTICE: List option is not working on this device yet";
        assert_eq!(no_list(&format!("{notice}\n")), Some(Listing::NoList));
        assert_eq!(no_list("N/A\n"), Some(Listing::OneMachine));
        for text in ["", "n1", "N/A\nn1", "n/a", "NOTICE: List option", "NOTICE: no answer"] {
            assert_eq!(no_list(text), None, "{text}");
        }
        assert_eq!(no_list(&format!("{notice}\nn1")), None);
    }

    #[test]
    fn prose_is_no_list() {
        for text in [
            "N/A",
            "NOTICE: List option is not working on this device yet",
            "n1\nn2 is broken",
            "n1 maybe on",
            "(12 bytes more)",
        ] {
            assert!(listed_plugs(text, ",").is_err(), "{text}");
        }
    }
}
