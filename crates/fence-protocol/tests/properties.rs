//! What holds for all records, names and texts, not only for the examples of the unit tests.

use chrono::{DateTime, Utc};
use fence_protocol::{
    Answer, FenceAction, FenceResult, HostlistError, NODES_MAX, NodeName, PowerState, Query,
    QueryAnswer, QueryCode, QueryKind, ReceivedAnswer, RecordName, Request, RequestId, Requested,
    bounded, expand_hostlist,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

/// Milliseconds of the years 0 to 9999, which RFC 3339 can express.
const MILLISECONDS: std::ops::Range<i64> = -62_167_219_200_000..253_402_300_800_000;

proptest! {
    #[test]
    fn a_request_is_read_as_it_was_written(request in request()) {
        let written = request.to_json();

        prop_assert!(is_one_line(&written));
        prop_assert_eq!(Request::parse(&written), Ok(request));
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Request::parse(&bytes);
        let _ = ReceivedAnswer::parse(&bytes);
        let _ = Query::parse(&bytes);
        let _ = QueryAnswer::parse(&bytes);
    }

    #[test]
    fn a_spoiled_request_is_refused_or_read_as_some_request_that_can_be_written(
        request in request(),
        position in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = request.to_json();
        let position = position.index(bytes.len());
        bytes[position] = byte;

        if let Ok(read) = Request::parse(&bytes) {
            // The bad byte may be another digit of a time, of which records keep only milliseconds.
            let written = Request::parse(&read.to_json()).unwrap();
            prop_assert_eq!(Request::parse(&written.to_json()), Ok(written));
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written(answer in answer(), now in instant()) {
        let written = answer.to_json(now);

        prop_assert!(is_one_line(&written));
        let read = ReceivedAnswer::parse(&written).unwrap();
        prop_assert_eq!(read.success, Some(answer.result == FenceResult::Success));
        let id = answer.request_id.as_ref().map_or("", RequestId::as_str);
        let target = answer.target_node.as_ref().map_or("", NodeName::as_str);
        prop_assert_eq!(read.request_id.as_deref(), Some(id));
        prop_assert_eq!(read.target_node.as_deref(), Some(target));
        prop_assert_eq!(read.action_performed.as_deref(), Some(answer.action_performed));
        prop_assert_eq!(read.result.as_deref(), Some(answer.result.as_str()));
        prop_assert_eq!(read.message, answer.message);
        prop_assert_eq!((read.verified, read.device), (Some(answer.verified), answer.device));
    }

    #[test]
    fn a_query_is_read_as_it_was_written(query in query()) {
        let written = query.to_json();

        prop_assert!(is_one_line(&written));
        prop_assert_eq!(Query::parse(&written), Ok(query));
    }

    #[test]
    fn the_answer_to_a_query_is_read_as_it_was_written(answer in query_answer()) {
        let written = answer.to_json();

        prop_assert!(is_one_line(&written));
        prop_assert_eq!(QueryAnswer::parse(&written), Ok(answer));
    }

    #[test]
    fn a_node_name_that_is_accepted_is_a_safe_path_component_and_argument(
        text in prop_oneof![any::<String>(), "[-._/a-z0-9]{1,6}", "[ -~]{0,260}"],
    ) {
        if let Ok(name) = text.parse::<NodeName>() {
            prop_assert_eq!(name.as_str(), &text);
            prop_assert!(is_path_component(&text));
            prop_assert!(!text.starts_with(['-', '.']) && text.len() <= 253);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }

    #[test]
    fn a_record_name_that_is_accepted_is_a_safe_file_name_in_all_its_forms(
        text in prop_oneof![any::<String>(), "[-._/a-zé]{1,6}", "[ -~é]{200,250}"],
    ) {
        if let Ok(name) = text.parse::<RecordName>() {
            for file_name in [name.file_name(), name.temporary()] {
                prop_assert!(is_path_component(&file_name) && file_name.len() <= 255);
            }
            prop_assert!(RecordName::from_file_name(&name.temporary()).is_none());
            prop_assert_eq!(RecordName::from_file_name(&name.file_name()), Some(name));
        }
    }

    #[test]
    fn a_bounded_text_is_at_most_so_long_and_begins_as_it_did(text: String, max in 0_usize..80) {
        let short = bounded(&text, max);

        prop_assert!(short.len() <= max.max('…'.len_utf8()));
        if text.len() <= max {
            prop_assert_eq!(short, text);
        } else {
            prop_assert!(text.starts_with(short.strip_suffix('…').unwrap()));
        }
    }

    #[test]
    fn a_range_names_its_numbers(
        prefix in "[a-z]{0,5}",
        from in 0_u32..100_000,
        count in 1_u32..200,
    ) {
        let last = from + count - 1;
        let nodes = expand_hostlist(&format!("{prefix}[{from}-{last}]")).unwrap();

        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        let wanted: Vec<String> = (from..=last).map(|number| format!("{prefix}{number}")).collect();
        prop_assert_eq!(names, wanted);
    }

    #[test]
    fn no_expression_names_too_many_nodes_or_makes_the_reader_panic(
        text in prop_oneof![any::<String>(), r"[\[\],0-9a-c-]{0,20}"],
    ) {
        match expand_hostlist(&text) {
            Ok(nodes) => prop_assert!((1..=NODES_MAX).contains(&nodes.len())),
            Err(HostlistError::Name(name, error)) => {
                prop_assert_eq!(name.parse::<NodeName>(), Err(error));
            }
            Err(_) => {}
        }
    }
}

fn is_one_line(bytes: &[u8]) -> bool {
    bytes.iter().position(|byte| *byte == b'\n') == Some(bytes.len() - 1)
}

fn is_path_component(text: &str) -> bool {
    let parts: Vec<_> = std::path::Path::new(text).components().collect();
    !text.contains(['/', '\0']) && matches!(parts[..], [std::path::Component::Normal(_)])
}

fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    MILLISECONDS.prop_map(|milliseconds| {
        DateTime::from_timestamp_millis(milliseconds).expect("a common year")
    })
}

fn node_name() -> impl Strategy<Value = NodeName> {
    "[a-z0-9:@+,=~#%_][A-Za-z0-9_:-]{0,40}".prop_map(|text| text.parse().expect("a name"))
}

fn request_id() -> impl Strategy<Value = RequestId> {
    "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
        .prop_map(|text| text.parse().expect("a name"))
}

fn action_and_target() -> impl Strategy<Value = (Requested, Option<NodeName>)> {
    let order = prop_oneof![
        prop::sample::select(&[FenceAction::Off, FenceAction::On, FenceAction::Reboot])
            .prop_map(Requested::Fence),
        "[A-Z]{0,64}".prop_map(Requested::Unknown),
    ];
    let question = prop::sample::select(&["status", "list", "monitor"]);
    prop_oneof![
        (order, node_name().prop_map(Some)),
        (question.prop_map(Requested::Inquiry), option::of(node_name())),
    ]
}

prop_compose! {
    fn request()(
        request_id in request_id(),
        timestamp in instant(),
        (action, target_node) in action_and_target(),
        gfs2_filesystems in vec(any::<String>(), 0..4),
        recorder_node: String,
        deadline in option::of(instant()),
        boot_id: Option<String>,
        deadline_boottime_ms: Option<u64>,
        device: Option<String>,
        held: bool,
    ) -> Request {
        Request {
            request_id, timestamp, action, target_node, gfs2_filesystems, recorder_node, deadline,
            boot_id, deadline_boottime_ms, device, held,
        }
    }
}

prop_compose! {
    fn answer()(
        request_id in option::of(request_id()),
        target_node in option::of(node_name()),
        action: String,
        recorder_node: String,
        result in prop::sample::select(&FenceResult::ALL),
        action_performed in prop::sample::select(&["off", "on", "reboot", "none"]),
        verified: bool,
        device: Option<String>,
        message: String,
        duration_ms: u64,
    ) -> Answer {
        Answer {
            request_id, target_node, action, recorder_node, result, action_performed, verified,
            device, message, duration_ms,
        }
    }
}

prop_compose! {
    fn query()(
        id in request_id(),
        query in prop::sample::select(&[
            QueryKind::Reachable, QueryKind::Targets, QueryKind::Power, QueryKind::State,
            QueryKind::Check, QueryKind::Reload,
        ]),
        device: Option<String>,
        target: Option<String>,
        deadline_boottime_ms: u64,
        boot_id: Option<String>,
        asked_boottime_ms: Option<u64>,
    ) -> Query {
        let query_id = id.as_str().to_owned();
        Query { query_id, query, device, target, deadline_boottime_ms, boot_id, asked_boottime_ms }
    }
}

prop_compose! {
    fn query_answer()(
        query_id: String,
        code in prop::sample::select(&QueryCode::ALL),
        message: String,
        targets in vec(any::<String>(), 0..4),
        power in option::of(
            prop::sample::select(&[PowerState::On, PowerState::Off, PowerState::Unknown]),
        ),
        state in option::of(any::<(String, u64)>().prop_map(|(key, value)| json!({key: value}))),
        problems in vec(any::<String>(), 0..3),
    ) -> QueryAnswer {
        QueryAnswer { query_id, code, message, targets, power, state, problems }
    }
}
