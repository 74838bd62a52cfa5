//! The requests to EC2: the parameters of its calls, and the form that carries them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// One call of EC2's Query API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// The name of the call.
    pub(crate) action: &'static str,
    /// The body of the request. Everything but letters, digits and `-._~` is encoded, also the
    /// colon in the name of a filter: the signature covers the encoded text, and a proxy that
    /// decodes and encodes the text again must produce the same text.
    pub(crate) form: String,
}

impl Query {
    /// Asks whether EC2 allows the question, changing and showing nothing. A service without dry
    /// runs returns at least a short page.
    pub(crate) fn may_describe() -> Self {
        Query::new("DescribeInstances").dry().with("MaxResults", "5")
    }

    /// Asks for the instance of this id.
    pub(crate) fn describe_id(id: &str) -> Self {
        Query::new("DescribeInstances").with("InstanceId.1", id)
    }

    /// Asks for all instances whose tag has this value, also the terminated instances. The answer
    /// may contain others: EC2 reads `*` and `?` in a filter as wildcards.
    pub(crate) fn describe_tagged(tag: &str, value: &str) -> Self {
        Query::new("DescribeInstances").with_filter(&format!("tag:{tag}"), value)
    }

    /// Asks for all instances that have the tag.
    pub(crate) fn describe_all(tag: &str) -> Self {
        Query::new("DescribeInstances").with_filter("tag-key", tag).with("MaxResults", "1000")
    }

    /// Asks for the page of this token.
    pub(crate) fn page(&self, token: &str) -> Self {
        self.clone().with("NextToken", token)
    }

    /// Orders the instance to stop by force.
    ///
    /// With "force", EC2 first waits minutes for the guest to shut down, and then stops the
    /// instance. Only `skip_os_shutdown` makes the order a power switch.
    pub(crate) fn stop(id: &str, skip_os_shutdown: bool) -> Self {
        let query = Query::new("StopInstances").with("InstanceId.1", id).with("Force", "true");
        if skip_os_shutdown { query.with("SkipOsShutdown", "true") } else { query }
    }

    /// Orders the instance to start.
    pub(crate) fn start(id: &str) -> Self {
        Query::new("StartInstances").with("InstanceId.1", id)
    }

    /// The same call as a dry run: EC2 reports whether it would allow the call, and does nothing.
    pub(crate) fn dry(self) -> Self {
        self.with("DryRun", "true")
    }

    fn new(action: &'static str) -> Self {
        Query { action, form: format!("Action={action}") }.with("Version", VERSION)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        for (sign, text) in [("&", name), ("=", value)] {
            self.form.push_str(sign);
            self.form.extend(utf8_percent_encode(text, RESERVED));
        }
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
            Query::describe_tagged("Name", "n 1+ü").form,
            "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AName\
             &Filter.1.Value.1=n%201%2B%C3%BC"
        );
    }

    #[test]
    fn off_is_by_force_and_without_a_wait_unless_that_is_asked_for() {
        assert_eq!(
            Query::stop("i-1", true).form,
            "Action=StopInstances&Version=2016-11-15&InstanceId.1=i-1&Force=true\
             &SkipOsShutdown=true"
        );
        assert!(!Query::stop("i-1", false).form.contains("Skip"));
    }
}
