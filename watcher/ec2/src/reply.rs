//! EC2's answers: XML, error codes, and the choice of the instance. This module does no I/O.

use fence_device::{Ec2Outcome, quoted};
use roxmltree::{Document, Node};

/// An answer: the HTTP status and the body.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// The meaning of an answer for the call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// EC2 carried the call out, or accepted it.
    Accepted,
    /// EC2 refused the call as too fast, in these words, and did not carry it out.
    Throttled(String),
    /// EC2 refused the call with this code and these words, and did not carry it out.
    Refused(String, String),
    /// An error; EC2 may have carried the call out.
    Broken(String),
}

/// The part of an instance's description that a fence needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) state: String,
    tags: Vec<(String, String)>,
}

/// One page of instances.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) instances: Vec<Instance>,
    /// The token of the next page.
    pub(crate) next: Option<String>,
}

impl Reply {
    /// The meaning of the answer for the call.
    pub(crate) fn verdict(&self) -> Meaning {
        if self.status == 200 {
            return Meaning::Accepted;
        }
        let Some((code, message)) = error_in(&self.body) else {
            return Meaning::Broken(format!("HTTP status {}, without words of EC2's", self.status));
        };
        let words = quoted(&format!("{code}: {message}"));
        if lists(THROTTLED, &code) || self.status == 429 {
            return Meaning::Throttled(words);
        }
        match self.status {
            400..=499 if !lists(PASSING, &code) => Meaning::Refused(code, words),
            _ => Meaning::Broken(words),
        }
    }

    /// The instances in the answer.
    pub(crate) fn page(&self) -> Result<Page, String> {
        let document = self.document("DescribeInstancesResponse")?;
        let root = document.root_element();
        let reservations = children(root, "reservationSet").flat_map(|set| children(set, "item"));
        let sets = reservations.flat_map(|reservation| children(reservation, "instancesSet"));
        let instances = sets.flat_map(|set| children(set, "item")).map(instance);
        let instances =
            instances.collect::<Option<_>>().ok_or("EC2 describes an instance without an id")?;
        Ok(Page { instances, next: text_of(root, "nextToken").filter(|token| !token.is_empty()) })
    }

    /// The state of the instance in the answer to an order, `currentState`.
    pub(crate) fn changed(&self, order: &str, id: &str) -> Result<String, String> {
        let document = self.document(&format!("{order}Response"))?;
        let items = children(document.root_element(), "instancesSet");
        items
            .flat_map(|set| children(set, "item"))
            .find(|item| text_of(*item, "instanceId").as_deref() == Some(id))
            .and_then(|item| text_of(children(item, "currentState").next()?, "name"))
            .ok_or_else(|| format!("EC2's answer does not name {id}"))
    }

    fn document(&self, root: &str) -> Result<Document<'_>, String> {
        let document = Document::parse(&self.body).map_err(|error| {
            format!("EC2's answer cannot be read: {}", quoted(&error.to_string()))
        })?;
        let name = document.root_element().tag_name().name();
        if name == root {
            return Ok(document);
        }
        let words = quoted(&format!("{name:?}"));
        Err(format!("EC2's answer is {words} instead of {root}"))
    }
}

impl Instance {
    /// The values of this tag.
    pub(crate) fn values_of<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a str> {
        self.tags.iter().filter(move |(key, _)| key == tag).map(|(_, value)| value.as_str())
    }

    /// Whether the instance is terminated. An instance that is `shutting-down` may still run and
    /// write, for minutes.
    pub(crate) fn is_dead(&self) -> bool {
        self.state == "terminated"
    }

    /// The power state. Only `stopped` and `terminated` are off: an instance that is `stopping` or
    /// `shutting-down` may still run.
    pub(crate) fn power(&self) -> Ec2Outcome {
        match self.state.as_str() {
            "running" => Ec2Outcome::On,
            "stopped" | "terminated" => Ec2Outcome::Off,
            _ => Ec2Outcome::Unclear,
        }
    }
}

/// The one of `instances` with this value of the tag. Terminated instances do not count beside a
/// live one, which has taken over their name. If all are terminated, any of them is right: each is
/// off forever.
pub(crate) fn the_one(instances: &[Instance], tag: &str, value: &str) -> Result<Instance, String> {
    let has_tag = |it: &&Instance| it.values_of(tag).any(|found| found == value);
    let (dead, alive): (Vec<_>, Vec<_>) =
        instances.iter().filter(has_tag).partition(|it| it.is_dead());
    let meant = format!("the tag {tag}={value}");
    match (&alive[..], &dead[..]) {
        ([one], _) | ([], [one, ..]) => Ok((*one).clone()),
        ([], []) => Err(format!("no instance has {meant}")),
        (several, _) => {
            let listed = several.iter().map(|it| format!("{} ({})", it.id, it.state));
            let listed = quoted(&listed.collect::<Vec<_>>().join(", "));
            Err(format!("{} instances have {meant}, one is needed: {listed}", several.len()))
        }
    }
}

/// Whether the words of an error of any AWS service contain the code of a passing error.
pub(crate) fn is_passing(words: &str) -> bool {
    let mut words = words.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| lists(THROTTLED, word) || lists(PASSING, word))
}

fn lists(codes: &str, wanted: &str) -> bool {
    codes.split_whitespace().any(|code| code == wanted)
}

/// The code and the words of an error, which AWS's services write in different places.
fn error_in(body: &str) -> Option<(String, String)> {
    let document = Document::parse(body).ok()?;
    let error = document.descendants().find(|node| is_element(*node, "Error"))?;
    let message = text_of(error, "Message").unwrap_or_default();
    // The rest is very long, and input for `aws sts decode-authorization-message`.
    let message = message.split("Encoded authorization").next().unwrap_or_default().trim();
    Some((text_of(error, "Code")?, message.to_owned()))
}

fn instance(item: Node) -> Option<Instance> {
    let state = children(item, "instanceState").find_map(|state| text_of(state, "name"));
    let tags = children(item, "tagSet").flat_map(|set| children(set, "item"));
    let pair = |tag| Some((text_of(tag, "key")?, text_of(tag, "value").unwrap_or_default()));
    Some(Instance {
        id: text_of(item, "instanceId")?,
        state: state.unwrap_or_else(|| "in an unknown state".to_owned()),
        tags: tags.filter_map(pair).collect(),
    })
}

/// Whether `node` is an element of this name, in any namespace: the namespace contains the version.
fn is_element(node: Node, name: &str) -> bool {
    node.is_element() && node.tag_name().name() == name
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| is_element(*child, name))
}

fn text_of(node: Node, name: &'static str) -> Option<String> {
    Some(children(node, name).next()?.text().unwrap_or_default().to_owned())
}

/// The codes with which AWS refuses a call as too fast: all of AWS's tools wait after these.
const THROTTLED: &str = "
    BandwidthLimitExceeded EC2ThrottledException LimitExceededException PriorRequestNotComplete
    ProvisionedThroughputExceededException RequestLimitExceeded RequestThrottled
    RequestThrottledException SlowDown ThrottledException Throttling ThrottlingException
    TooManyRequestsException TransactionInProgressException
";

/// The codes of passing errors, with any status. AWS may have carried the call out.
const PASSING: &str = "
    InternalError InternalFailure RequestTimeout RequestTimeoutException ServiceUnavailable
    ServiceUnavailableException Unavailable
";

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, body: body.to_owned() }
    }

    fn described(items: &str) -> Reply {
        let namespace = "http://ec2.amazonaws.com/doc/2016-11-15/";
        reply(
            200,
            &format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse \
                 xmlns=\"{namespace}\"><requestId>r</requestId><reservationSet>{items}\
                 </reservationSet></DescribeInstancesResponse>"
            ),
        )
    }

    fn item(id: &str, state: &str, name: &str) -> String {
        format!(
            "<item><reservationId>r-1</reservationId><instancesSet><item><instanceId>{id}\
             </instanceId><instanceState><code>0</code><name>{state}</name></instanceState>\
             <networkInterfaceSet><item><instanceId>i-no</instanceId><tagSet><item><key>Name</key>\
             <value>{name}</value></item></tagSet></item></networkInterfaceSet><tagSet><item>\
             <key>Name</key><value>{name}</value></item></tagSet></item></instancesSet></item>"
        )
    }

    fn instances(items: &[(&str, &str, &str)]) -> Vec<Instance> {
        let items: String = items.iter().map(|(id, state, name)| item(id, state, name)).collect();
        described(&items).page().unwrap().instances
    }

    fn error(status: u16, code: &str, message: &str) -> Reply {
        let error = format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let body = format!("<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>");
        reply(status, &body)
    }

    #[test]
    fn instances_are_found_in_all_reservations_and_nowhere_else() {
        let found = instances(&[("i-1", "running", "a"), ("i-2", "stopped", "b &amp; c")]);

        let shown: Vec<_> = found
            .iter()
            .map(|it| (it.id.as_str(), it.power(), it.values_of("Name").next()))
            .collect();
        assert_eq!(
            shown,
            [("i-1", Ec2Outcome::On, Some("a")), ("i-2", Ec2Outcome::Off, Some("b & c")),]
        );
    }

    #[test]
    fn a_page_tells_whether_another_follows() {
        let page = |token: &str| {
            let reply = described("").body.replace("</reservationSet>", token);
            Reply { status: 200, body: reply }.page().unwrap().next
        };
        assert_eq!(page("</reservationSet><nextToken>t</nextToken>"), Some("t".to_owned()));
        assert_eq!(page("</reservationSet><nextToken/>"), None);
        assert_eq!(page("</reservationSet>"), None);
    }

    #[test]
    fn only_stopped_and_terminated_are_off() {
        for (state, expected) in [
            ("running", Ec2Outcome::On),
            ("stopped", Ec2Outcome::Off),
            ("terminated", Ec2Outcome::Off),
            ("pending", Ec2Outcome::Unclear),
            ("stopping", Ec2Outcome::Unclear),
            ("shutting-down", Ec2Outcome::Unclear),
            ("", Ec2Outcome::Unclear),
        ] {
            assert_eq!(instances(&[("i-1", state, "a")])[0].power(), expected, "{state}");
        }
    }

    #[test]
    fn exactly_one_living_instance_must_have_the_tag() {
        let chosen = |items: &[(&str, &str, &str)]| {
            the_one(&instances(items), "Name", "n1").map(|instance| instance.id)
        };
        assert_eq!(chosen(&[("i-1", "running", "n1")]).unwrap(), "i-1");
        let replaced = [("i-1", "terminated", "n1"), ("i-2", "running", "n1")];
        assert_eq!(chosen(&replaced).unwrap(), "i-2");
        // EC2 takes a filter's `*` for a wildcard, and letters in whatever case of another tag.
        assert_eq!(chosen(&[("i-1", "running", "N1"), ("i-2", "stopped", "n1")]).unwrap(), "i-2");

        assert_eq!(chosen(&[]).unwrap_err(), "no instance has the tag Name=n1");
        assert_eq!(chosen(&[("i-1", "terminated", "n1")]).unwrap(), "i-1");
        for state in ["pending", "running", "stopping", "stopped", "shutting-down", ""] {
            let replaced = [("i-1", "terminated", "n1"), ("i-2", state, "n1")];
            assert_eq!(chosen(&replaced).unwrap(), "i-2", "{state}");
            for other in ["pending", "running", "stopping", "stopped", "shutting-down"] {
                let twins = [("i-1", other, "n1"), ("i-2", state, "n1")];
                assert!(chosen(&twins).unwrap_err().starts_with("2 instances have "), "{state}");
            }
        }
        let dead = [("i-1", "terminated", "n1"), ("i-2", "terminated", "n1")];
        assert_eq!(chosen(&dead).unwrap(), "i-1");
        let dead = [&dead[..], &[("i-3", "shutting-down", "n1")]].concat();
        assert_eq!(chosen(&dead).unwrap(), "i-3");
        assert_eq!(chosen(&[("i-1", "shutting-down", "n1")]).unwrap(), "i-1");
        assert_eq!(
            chosen(&[("i-1", "shutting-down", "n1"), ("i-2", "running", "n1")]).unwrap_err(),
            format!(
                "2 instances have the tag Name=n1, one is needed: {}",
                quoted("i-1 (shutting-down), i-2 (running)")
            )
        );
        assert_eq!(
            chosen(&[("i-1", "stopped", "n1"), ("i-2", "running", "n1")]).unwrap_err(),
            format!(
                "2 instances have the tag Name=n1, one is needed: {}",
                quoted("i-1 (stopped), i-2 (running)")
            )
        );
    }

    #[test]
    fn an_order_counts_as_taken_only_when_it_names_the_instance() {
        let body = "<StopInstancesResponse><instancesSet><item><instanceId>i-1</instanceId>\
                    <currentState><code>64</code><name>stopping</name></currentState>\
                    <previousState><name>running</name></previousState></item></instancesSet>\
                    </StopInstancesResponse>";
        let changed = |order, id| reply(200, body).changed(order, id);

        assert_eq!(changed("StopInstances", "i-1").unwrap(), "stopping");
        assert!(changed("StopInstances", "i-2").is_err());
        assert!(changed("StartInstances", "i-1").is_err());
        assert!(reply(200, &body[..100]).changed("StopInstances", "i-1").is_err());
        // What the proxy of a hotel says.
        assert!(
            reply(200, "<html><body>Welcome</body></html>")
                .changed("StopInstances", "i-1")
                .is_err()
        );
    }

    #[test]
    fn only_ec2s_own_refusal_proves_that_nothing_was_done() {
        let refused =
            |code: &str| Meaning::Refused(code.to_owned(), quoted(&format!("{code}: no")));

        assert_eq!(
            error(403, "UnauthorizedOperation", "no").verdict(),
            refused("UnauthorizedOperation")
        );
        assert_eq!(error(401, "AuthFailure", "no").verdict(), refused("AuthFailure"));
        for code in THROTTLED.split_whitespace() {
            for status in [400, 503] {
                let throttled = Meaning::Throttled(quoted(&format!("{code}: ")));
                assert_eq!(error(status, code, "").verdict(), throttled);
            }
        }
        assert_eq!(error(429, "New", "").verdict(), Meaning::Throttled(quoted("New: ")));
        for reply in [
            error(500, "InternalError", "no"),
            error(503, "Unavailable", "no"),
            error(400, "RequestTimeout", "no"),
            error(400, "InternalFailure", "no"),
            reply(429, "<html/>"),
            reply(408, "Request Timeout"),
            reply(403, "<html/>"),
            reply(502, ""),
        ] {
            assert!(matches!(reply.verdict(), Meaning::Broken(_)), "{reply:?}");
        }
        assert_eq!(reply(200, "").verdict(), Meaning::Accepted);
    }

    #[test]
    fn a_trouble_that_passes_is_found_in_the_words_of_any_service() {
        for (words, expected) in [
            ("service error: Throttling: Rate exceeded", true),
            ("unhandled error (ThrottlingException)", true),
            ("code: Some(\"ServiceUnavailable\")", true),
            ("AccessDenied: User is not authorized", false),
            ("NotThrottlingAtAll", false),
        ] {
            assert_eq!(is_passing(words), expected, "{words}");
        }
    }

    #[test]
    fn the_long_part_of_a_refusal_is_left_out() {
        let words = "You are not authorized. Encoded authorization failure message: xxxxxxxx";
        let Meaning::Refused(_, words) = error(403, "UnauthorizedOperation", words).verdict()
        else {
            panic!("not refused")
        };
        assert_eq!(words, quoted("UnauthorizedOperation: You are not authorized."));
    }
}
