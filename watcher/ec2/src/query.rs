//! What EC2 is asked: the parameters of the four calls, and the form in which they are sent.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// One call of EC2's Query API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    parameters: Vec<(String, String)>,
}

impl Query {
    /// Asks whether we would be allowed to ask, changing and showing nothing. Where a dry run is
    /// not known, the page is at least short.
    pub(crate) fn may_describe() -> Self {
        Query::new("DescribeInstances").with("DryRun", "true").with("MaxResults", "5")
    }

    /// Asks for the instance of this id.
    pub(crate) fn describe_id(id: &str) -> Self {
        Query::new("DescribeInstances").with("InstanceId.1", id)
    }

    /// Asks for all instances whose tag has this value, the dead ones included. More may come: EC2
    /// takes `*` and `?` in a filter for wildcards.
    pub(crate) fn describe_tagged(tag: &str, value: &str) -> Self {
        Query::new("DescribeInstances").with_filter(&format!("tag:{tag}"), value)
    }

    /// Asks for all instances that have the tag.
    pub(crate) fn describe_all(tag: &str) -> Self {
        Query::new("DescribeInstances").with_filter("tag-key", tag).with("MaxResults", "1000")
    }

    /// Asks for the page that `token` stands for.
    pub(crate) fn page(&self, token: &str) -> Self {
        self.clone().with("NextToken", token)
    }

    /// Orders the instance to stop by force.
    ///
    /// "By force" means that EC2 stops an instance that does not shut down by itself, once it has
    /// waited for that, which takes minutes; only without that wait is it a power switch.
    pub(crate) fn stop(id: &str, skip_os_shutdown: bool) -> Self {
        let query = Query::new("StopInstances").with("InstanceId.1", id).with("Force", "true");
        if skip_os_shutdown { query.with("SkipOsShutdown", "true") } else { query }
    }

    /// Orders the instance to start.
    pub(crate) fn start(id: &str) -> Self {
        Query::new("StartInstances").with("InstanceId.1", id)
    }

    /// The same, only asked: EC2 says whether it would be allowed, and does nothing.
    pub(crate) fn dry(self) -> Self {
        self.with("DryRun", "true")
    }

    /// The call as a form. Everything but letters, digits and `-._~` is encoded, the colon of a
    /// filter's name among it: the signature is over the encoded text, and who decodes and encodes
    /// it again on the way has to arrive at the same.
    pub(crate) fn form(&self) -> String {
        let encoded = |text| utf8_percent_encode(text, RESERVED).to_string();
        let pairs = self.parameters.iter();
        pairs
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect::<Vec<_>>()
            .join("&")
    }

    /// The call's name.
    pub(crate) fn action(&self) -> &str {
        self.parameters.first().map_or("", |(_, action)| action)
    }

    fn new(action: &str) -> Self {
        Query { parameters: Vec::new() }.with("Action", action).with("Version", VERSION)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    fn with_filter(self, name: &str, value: &str) -> Self {
        self.with("Filter.1.Name", name).with("Filter.1.Value.1", value)
    }
}

const VERSION: &str = "2016-11-15";

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_so_that_nobody_can_encode_it_otherwise() {
        assert_eq!(
            Query::describe_tagged("Name", "n 1+ü").form(),
            "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AName\
             &Filter.1.Value.1=n%201%2B%C3%BC"
        );
    }

    #[test]
    fn off_is_by_force_and_without_a_wait_unless_that_is_asked_for() {
        assert_eq!(
            Query::stop("i-1", true).form(),
            "Action=StopInstances&Version=2016-11-15&InstanceId.1=i-1&Force=true\
             &SkipOsShutdown=true"
        );
        assert!(!Query::stop("i-1", false).form().contains("Skip"));
    }
}
