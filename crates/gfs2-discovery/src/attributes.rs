//! The parameters of a resource in the CIB, as Pacemaker evaluates them.
//!
//! The sets of parameters have this order: first the sets of the resource and its template
//! together, then the sets of its group, then those of its clone. Within one element, a set with a
//! higher score comes first; of equal scores, the later set comes first, so a resource's own set
//! comes before its template's. The first set with a parameter gives its value. Sets and parameters
//! may be references.
//!
//! A set with a rule counts only if the rule holds. This module evaluates rules about a node's name
//! or number. It cannot evaluate other rules (about time or node attributes): such a set may count
//! or not.

use std::cmp::Reverse;
use std::collections::HashMap;

use roxmltree::Node;

/// The elements of the CIB's configuration by their ids.
pub(crate) type Named<'a> = HashMap<&'a str, Node<'a, 'a>>;

/// The parameters of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// In their order of precedence.
    sets: Vec<Set>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    rule: Option<Rule>,
    pairs: Vec<(String, String)>,
}

/// The condition for a set.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    /// The node's name or number is `value`, or is not `value`.
    Node {
        about: About,
        is: bool,
        value: String,
    },
    Always(bool),
    /// This module cannot evaluate it.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Name,
    Id,
}

/// The node for which rules are evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Where<'a> {
    pub(crate) name: &'a str,
    /// The node's number; `None` if the node has several.
    pub(crate) id: Option<&'a str>,
}

/// The value of a parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice<'a> {
    /// The value by the sets that certainly count.
    certain: Option<&'a str>,
    /// The values by the sets that may count.
    possible: Vec<&'a str>,
}

impl<'a> Choice<'a> {
    /// The most probable value; empty if there is none.
    pub(crate) fn value(&self) -> &'a str {
        self.certain.or(self.possible.first().copied()).unwrap_or_default()
    }

    /// Whether `is` holds for the value, or for a possible value.
    pub(crate) fn may_be(&self, is: impl Fn(&str) -> bool) -> bool {
        self.certain.iter().chain(&self.possible).any(|value| is(value))
    }

    /// Whether a rule that cannot be evaluated could change the value.
    pub(crate) fn is_doubtful(&self) -> bool {
        !self.possible.is_empty()
    }
}

impl Parameters {
    /// The parameters of `primitive`, with those of its template, its group and its clone.
    pub(crate) fn of<'a>(
        primitive: Node<'a, 'a>,
        template: Option<Node<'a, 'a>>,
        named: &Named<'a>,
    ) -> Self {
        let around = primitive.ancestors().skip(1);
        let around = around.take_while(|element| !element.has_tag_name("resources"));
        let own = [template, Some(primitive)].into_iter().flatten().collect();
        let levels = std::iter::once(own).chain(around.map(|element| vec![element]));
        let mut sets = Vec::new();
        for level in levels {
            let children = level.iter().flat_map(Node::children);
            let mut found: Vec<_> = children
                .filter(|element| element.has_tag_name("instance_attributes"))
                .filter_map(|element| resolved(element, named))
                .collect();
            found.reverse();
            // A stable sort: of equal scores, the later set stays first.
            found.sort_by_key(|set| Reverse(score(*set)));
            sets.extend(found.into_iter().map(|set| Set::of(set, named)));
        }
        Parameters { sets }
    }

    /// The value of `name` on a node.
    pub(crate) fn choice(&self, name: &str, place: Where<'_>) -> Choice<'_> {
        let mut choice = Choice::default();
        for set in &self.sets {
            let pair = set.pairs.iter().find(|(known, _)| known == name);
            let Some((_, value)) = pair else { continue };
            match set.rule.as_ref().map_or(Some(true), |rule| rule.holds(place)) {
                Some(true) => {
                    choice.certain = Some(value);
                    break;
                }
                Some(false) => {}
                None => choice.possible.push(value),
            }
        }
        choice
    }

    /// All values that `name` can have anywhere.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.sets.iter().flat_map(|set| &set.pairs);
        pairs.filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Set {
    fn of<'a>(set: Node<'a, 'a>, named: &Named<'a>) -> Self {
        let rule = set.children().find(|element| element.has_tag_name("rule"));
        let pairs = set.children().filter(|element| element.has_tag_name("nvpair"));
        let pairs = pairs.filter_map(|pair| {
            let source = resolved(pair, named)?;
            let name = pair.attribute("name").or(source.attribute("name"))?;
            let value = source.attribute("value")?.trim();
            let is_value = !value.eq_ignore_ascii_case("#default");
            is_value.then(|| (name.to_owned(), value.to_owned()))
        });
        Set { rule: rule.map(|rule| Rule::of(rule, named, 0)), pairs: pairs.collect() }
    }
}

impl Rule {
    fn of<'a>(condition: Node<'a, 'a>, named: &Named<'a>, depth: usize) -> Self {
        if depth > RULE_DEPTH_MAX {
            return Rule::Unknown;
        }
        if condition.has_tag_name("expression") {
            return Rule::of_expression(condition);
        }
        if !condition.has_tag_name("rule") {
            return Rule::Unknown;
        }
        let Some(rule) = resolved(condition, named) else { return Rule::Always(false) };
        let parts = rule.children().filter(Node::is_element);
        let parts: Vec<Rule> = parts.map(|part| Rule::of(part, named, depth + 1)).collect();
        match rule.attribute("boolean-op") {
            _ if parts.is_empty() => Rule::Always(true),
            Some(word) if word.eq_ignore_ascii_case("or") => Rule::Any(parts),
            Some(word) if !word.eq_ignore_ascii_case("and") => Rule::Always(false),
            _ => Rule::All(parts),
        }
    }

    fn of_expression(expression: Node<'_, '_>) -> Self {
        let about = match expression.attribute("attribute") {
            Some("#uname") => About::Name,
            Some("#id") => About::Id,
            _ => return Rule::Unknown,
        };
        let source = expression.attribute("value-source").unwrap_or("literal");
        let kind = expression.attribute("type").unwrap_or("string");
        let operation = expression.attribute("operation").unwrap_or_default().to_ascii_lowercase();
        let value = expression.attribute("value").map(str::to_owned);
        match (operation.as_str(), value) {
            ("defined", None) => Rule::Always(true),
            ("not_defined", None) => Rule::Always(false),
            ("eq" | "ne", Some(value))
                if source == "literal" && kind.eq_ignore_ascii_case("string") =>
            {
                Rule::Node { about, is: operation == "eq", value }
            }
            _ => Rule::Unknown,
        }
    }

    /// Whether it holds on a node; `None` if unknown.
    fn holds(&self, place: Where<'_>) -> Option<bool> {
        match self {
            Rule::All(parts) => combined(parts, place, false),
            Rule::Any(parts) => combined(parts, place, true),
            Rule::Node { about, is, value } => {
                let text = match about {
                    About::Name => Some(place.name),
                    About::Id => place.id,
                };
                text.map(|text| text.eq_ignore_ascii_case(value) == *is)
            }
            Rule::Always(holds) => Some(*holds),
            Rule::Unknown => None,
        }
    }
}

/// The result of the parts: `decisive` if one of them is, else unknown if one of them is unknown.
fn combined(parts: &[Rule], place: Where<'_>, decisive: bool) -> Option<bool> {
    let held: Vec<_> = parts.iter().map(|part| part.holds(place)).collect();
    if held.contains(&None) && !held.contains(&Some(decisive)) {
        return None;
    }
    Some(held.contains(&Some(decisive)) == decisive)
}

/// `element`, or the element of the same kind to which it refers.
fn resolved<'a>(element: Node<'a, 'a>, named: &Named<'a>) -> Option<Node<'a, 'a>> {
    match element.attribute("id-ref") {
        None => Some(element),
        Some(id) => named.get(id).copied().filter(|other| other.tag_name() == element.tag_name()),
    }
}

fn score(set: Node<'_, '_>) -> i64 {
    let score = set.attribute("score").unwrap_or_default().trim();
    match score.trim_start_matches(['+', '-']) {
        "INFINITY" | "infinity" if score.starts_with('-') => -SCORE_MAX,
        "INFINITY" | "infinity" => SCORE_MAX,
        // As in Pacemaker, a score that is no number counts as 0.
        _ => score.parse::<i64>().unwrap_or(0).clamp(-SCORE_MAX, SCORE_MAX),
    }
}

/// Pacemaker's infinity.
const SCORE_MAX: i64 = 1_000_000;

/// The deepest rule that is evaluated; nobody nests four rules.
const RULE_DEPTH_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::Document;

    /// The directory of the primitive 'p' on node n2: its value, and whether a rule makes it
    /// doubtful.
    fn directory(resources: &str) -> (String, bool) {
        let text = format!("<cib><resources>{resources}</resources></cib>");
        let document = Document::parse(&text).unwrap();
        let named: Named<'_> =
            document.descendants().filter_map(|node| Some((node.attribute("id")?, node))).collect();
        let template = named.get("t").copied();
        let parameters = Parameters::of(named["p"], template, &named);
        let choice = parameters.choice("directory", Where { name: "n2", id: Some("2") });
        (choice.value().to_owned(), choice.is_doubtful())
    }

    fn set(attributes: &str, inside: &str, value: &str) -> String {
        format!(
            "<instance_attributes {attributes}>{inside}<nvpair name='directory' value='{value}'/>\
             </instance_attributes>"
        )
    }

    fn primitive(sets: &[String]) -> String {
        format!("<primitive id='p' template='t'>{}</primitive>", sets.concat())
    }

    fn template(sets: &[String]) -> String {
        format!("<template id='t'>{}</template>", sets.concat())
    }

    #[test]
    fn of_several_sets_the_highest_score_counts_and_then_the_last() {
        for (scores, expected) in [
            (["score='1'", "score='10'"], "b"),
            (["score='10'", "score='1'"], "a"),
            (["", "score='-1'"], "a"),
            (["score='-INFINITY'", "score='-5'"], "b"),
            (["score='+INFINITY'", "score='99999'"], "a"),
            (["score='INFINITY'", "score='2000000'"], "b"),
            (["", ""], "b"),
            (["score='x'", "score='0'"], "b"),
        ] {
            let sets = [set(scores[0], "", "a"), set(scores[1], "", "b")];
            assert_eq!(directory(&primitive(&sets)), (expected.into(), false), "{scores:?}");
        }
    }

    #[test]
    fn a_templates_set_counts_after_the_resources_own_unless_its_score_is_higher() {
        for (scores, expected) in [(["", ""], "own"), (["score='5'", "score='4'"], "template")] {
            let all = template(&[set(scores[0], "", "template")])
                + &primitive(&[set(scores[1], "", "own")]);
            assert_eq!(directory(&all).0, expected);
        }
        let all = template(&[set("", "", "template")]) + &primitive(&[]);
        assert_eq!(directory(&all).0, "template");
    }

    #[test]
    fn what_a_resource_lacks_its_group_and_clone_have_whatever_their_score() {
        let around = |own: &[String]| {
            let (clone, group) = (set("score='9'", "", "clone"), set("score='5'", "", "group"));
            format!("<clone>{clone}<group>{group}{}</group></clone>", primitive(own))
        };
        assert_eq!(directory(&around(&[])).0, "group");
        assert_eq!(directory(&around(&[set("", "", "own")])).0, "own");
    }

    #[test]
    fn sets_pairs_and_rules_may_be_references() {
        let elsewhere = "<primitive id='x'><instance_attributes id='xs' score='7'><nvpair id='xd' \
            name='directory' value='x'/></instance_attributes><instance_attributes id='xr'><rule \
            id='r'><expression attribute='#uname' operation='eq' \
            value='n1'/></rule></instance_attributes></primitive>";
        let refers =
            |own: &str| directory(&format!("{elsewhere}{}", primitive(&[own.to_owned()]))).0;

        let plain = "<instance_attributes score='1'><nvpair name='directory' \
                     value='own'/></instance_attributes>";
        assert_eq!(refers(&format!("{plain}<instance_attributes id-ref='xs'/>")), "x");
        let pair = "<instance_attributes><nvpair id-ref='xd'/></instance_attributes>";
        assert_eq!(refers(pair), "x");
        assert_eq!(refers(&pair.replace("id-ref", "name='directory' id-ref")), "x");
        assert_eq!(refers(&pair.replace("id-ref", "name='device' id-ref")), "");
        assert_eq!(refers(&pair.replace("'xd'", "'none'")), "");
        assert_eq!(refers(&pair.replace("'xd'", "'xs'")), "");
        let ruled = set("score='5'", "<rule id-ref='r'/>", "ruled");
        assert_eq!(refers(&format!("{plain}{ruled}")), "own");
    }

    #[test]
    fn a_set_counts_where_its_rule_holds_and_is_doubtful_where_that_is_not_known() {
        let uname = |operation: &str, value: &str| {
            format!("<expression attribute='#uname' operation='{operation}' value='{value}'/>")
        };
        let rule = |op: &str, parts: &[&str]| format!("<rule {op}>{}</rule>", parts.concat());
        let (here, there) = (&*uname("eq", "N2"), &*uname("eq", "n1"));
        let date = "<date_expression operation='gt' start='2020-01-01'/>";
        let (and, or) = ("boolean-op='and'", "boolean-op='or'");
        for (rule, expected, is_doubtful) in [
            (rule("", &[here]), "ruled", false),
            (rule("", &[there]), "plain", false),
            (rule("", &[&uname("ne", "n2")]), "plain", false),
            (rule("", &[&uname("ne", "n1")]), "ruled", false),
            (rule("", &["<expression attribute='#id' operation='eq' value='2'/>"]), "ruled", false),
            (rule("", &["<expression attribute='#uname' operation='defined'/>"]), "ruled", false),
            (
                rule("", &["<expression attribute='#uname' operation='not_defined'/>"]),
                "plain",
                false,
            ),
            (rule("", &[here, there]), "plain", false),
            (rule(or, &[there, here]), "ruled", false),
            (rule(and, &[here, &rule(or, &[there, here])]), "ruled", false),
            (rule("", &[]), "ruled", false),
            (rule("boolean-op='xor'", &[here]), "plain", false),
            (rule("", &[date]), "plain", true),
            (rule(and, &[date, there]), "plain", false),
            (rule(or, &[date, here]), "ruled", false),
            (rule(or, &[date, there]), "plain", true),
            (rule(and, &[date, here]), "plain", true),
            (rule("", &["<expression attribute='site' operation='eq' value='a'/>"]), "plain", true),
            (rule("", &[&uname("lt", "n3")]), "plain", true),
            (rule("", &[&here.replace("/>", " value-source='param'/>")]), "plain", true),
        ] {
            let sets = [set("score='9'", &rule, "ruled"), set("", "", "plain")];
            assert_eq!(directory(&primitive(&sets)), (expected.into(), is_doubtful), "{rule}");
        }
        let only = primitive(&[set("", &rule("", &[date]), "ruled")]);
        assert_eq!(directory(&only), ("ruled".into(), true), "better than nothing");
        let behind = [set("score='9'", "", "plain"), set("", &rule("", &[date]), "ruled")];
        assert_eq!(directory(&primitive(&behind)), ("plain".into(), false));
    }
}
