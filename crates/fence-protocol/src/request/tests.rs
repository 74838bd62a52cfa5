//! Requests as clients of all versions write them.

use super::*;
use crate::FenceAction;

const ID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn first_version(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Vec<u8> {
    let mut value = serde_json::json!({
        "request_id": ID, "timestamp": "2026-11-21T20:00:00.123456+00:00", "action": "reboot",
        "target_node": "n3", "gfs2_filesystems": ["storage"], "recorder_node": "n1",
    });
    change(value.as_object_mut().unwrap());
    serde_json::to_vec(&value).unwrap()
}

#[test]
fn a_request_of_the_first_version_is_read_with_its_seven_members() {
    let request = Request::parse(&first_version(|_| {})).unwrap();

    assert_eq!(request.request_id.as_str(), ID);
    assert_eq!(request.action, Requested::Fence(FenceAction::Reboot));
    assert_eq!(request.target_node.unwrap().as_str(), "n3");
    assert_eq!(request.gfs2_filesystems, ["storage"]);
    assert_eq!((request.deadline, request.boot_id, request.held), (None, None, false));
}

#[test]
fn what_is_written_is_read_again() {
    let mut request = Request::parse(&first_version(|_| {})).unwrap();
    request.timestamp = DateTime::from_timestamp_millis(1_800_000_000_123).unwrap();
    request.deadline = DateTime::from_timestamp_millis(1_800_000_060_000);
    request.boot_id = Some("boot".into());
    request.deadline_boottime_ms = Some(u64::MAX);
    request.device = Some("pdu".into());
    request.held = true;

    assert_eq!(Request::parse(&request.to_json()), Ok(request));
}

#[test]
fn a_list_of_the_members_values_is_no_request() {
    let values = serde_json::json!([
        ID,
        "2026-11-21T20:00:00Z",
        "off",
        "n3",
        [],
        "n1",
        null,
        null,
        null,
        null,
        false
    ]);
    let error = Request::parse(&serde_json::to_vec(&values).unwrap()).unwrap_err().error;

    assert_eq!(error, RequestError::NotJson("it is not an object".to_owned()));
    let blank_before = [b" \n", &first_version(|_| {})[..]].concat();
    assert!(Request::parse(&blank_before).is_ok());
}

#[test]
fn bytes_that_are_no_text_are_refused_in_an_unknown_member_too() {
    let mut text = first_version(|_| {});
    text.splice(1..1, *b"\"other\":\"\xff\",");

    let error = Request::parse(&text).unwrap_err().error;

    assert_eq!(error, RequestError::NotJson("it is not UTF-8 text".to_owned()));
}

#[test]
fn a_known_member_of_the_wrong_type_makes_the_request_invalid_and_unknown_ones_do_not() {
    for (member, value) in [
        ("request_id", Value::from(1)),
        ("timestamp", "yesterday".into()),
        ("timestamp", "2026-11-21T20:00:00".into()),
        ("action", Value::from(true)),
        ("target_node", "../n3".into()),
        ("target_node", "-n3".into()),
        ("target_node", "".into()),
        ("gfs2_filesystems", "storage".into()),
        ("gfs2_filesystems", Value::from(vec![1])),
        ("recorder_node", Value::from(7)),
        ("deadline", Value::from(7)),
        ("deadline_boottime_ms", Value::from(-1)),
        ("deadline_boottime_ms", Value::from(1.5)),
        ("held", "yes".into()),
        ("device", Value::from(vec!["a"])),
    ] {
        let text = first_version(|members| {
            members.insert(member.into(), value.clone());
        });
        let error = Request::parse(&text).unwrap_err().error;
        assert!(
            matches!(&error, RequestError::Member { member: m, .. } if *m == member),
            "{member}={value}: {error}"
        );
    }
    let text = first_version(|members| {
        members.insert("attempt".into(), Value::from(vec![1, 2]));
    });
    assert!(Request::parse(&text).is_ok());
}

#[test]
fn what_is_readable_of_a_bad_request_is_kept_for_its_answer() {
    let without_timestamp = first_version(|members| {
        members.remove("timestamp");
    });
    let mut no_text = first_version(|_| {});
    no_text.splice(1..1, *b"\"other\":\"\xff\",");
    let mut deep = first_version(|_| {});
    let nested = format!("\"other\":{}{},", "[".repeat(10_000), "]".repeat(10_000));
    deep.splice(1..1, nested.into_bytes());

    for text in [without_timestamp, no_text, deep] {
        let rejection = Request::parse(&text).unwrap_err();

        assert_eq!(rejection.request_id.unwrap().as_str(), ID);
        assert_eq!(rejection.target_node.unwrap().as_str(), "n3");
        assert_eq!(rejection.action.as_deref(), Some("reboot"));
        assert_eq!(rejection.recorder_node.as_deref(), Some("n1"));
    }
}

#[test]
fn a_member_that_cannot_be_read_is_not_kept_and_hides_no_other() {
    for (member, value) in [
        ("request_id", Value::from("7")),
        ("target_node", "../n3".into()),
        ("action", Value::from(true)),
        ("recorder_node", Value::from(7)),
    ] {
        let rejection = Request::parse(&first_version(|members| {
            members.insert(member.into(), value);
        }))
        .unwrap_err();

        assert_eq!(rejection.request_id.is_none(), member == "request_id");
        assert_eq!(rejection.target_node.is_none(), member == "target_node");
        assert_eq!(rejection.action.is_none(), member == "action");
        assert_eq!(rejection.recorder_node.is_none(), member == "recorder_node");
    }
}

#[test]
fn every_beginning_of_a_request_counts_as_incomplete() {
    let text = first_version(|_| {});
    for end in 0..text.len() {
        let error = Request::parse(&text[..end]).unwrap_err().error;
        assert_eq!(error, RequestError::Incomplete, "cut at {end}");
    }
}

#[test]
fn hostile_texts_are_refused_without_harm() {
    let twice = format!("{{\"request_id\":\"{ID}\",\"request_id\":\"{ID}\"}}");
    for text in
        [&b"\xff\xfe"[..], b"\0\0\0", b"[1,2]", b"null", b"\"x\"", b"{} {}", twice.as_bytes()]
    {
        let error = Request::parse(text).unwrap_err().error;
        assert!(
            matches!(error, RequestError::NotJson(_) | RequestError::Member { .. }),
            "{error:?}"
        );
    }
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(matches!(Request::parse(deep.as_bytes()).unwrap_err().error, RequestError::NotJson(_)));
    let valid = String::from_utf8(first_version(|_| {})).unwrap();
    let deep_member = valid.replacen('{', &format!("{{\"other\":{deep},"), 1);
    assert!(matches!(
        Request::parse(deep_member.as_bytes()).unwrap_err().error,
        RequestError::NotJson(_)
    ));
    let large = vec![b' '; usize::try_from(RECORD_BYTES_MAX).unwrap() + 1];
    assert!(matches!(Request::parse(&large).unwrap_err().error, RequestError::TooLarge(_)));
}

#[test]
fn questions_may_concern_no_target() {
    let text = first_version(|members| {
        members.insert("action".into(), "monitor".into());
        members.insert("target_node".into(), "".into());
    });
    assert_eq!(Request::parse(&text).unwrap().target_node, None);
}
