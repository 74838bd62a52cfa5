//! The names and the fields of a certificate of any form: X.509 v1, unknown critical extensions.
//!
//! Only for a certificate that is already known, byte for byte. The check of the names finds an
//! address that leads to another BMC whose certificate is in the same file. So all names count: the
//! alternative names, and the common name of the subject, which is the only name in old
//! certificates.

use std::iter;
use std::net::IpAddr;

use der::asn1::AnyRef;
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use rustls::CertificateError;
use rustls::pki_types::ServerName;

/// Checks that `certificate` contains the configured name or IP address of the service.
pub(super) fn check(certificate: &[u8], wanted: &ServerName<'_>) -> Result<(), CertificateError> {
    let names = read(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let text = wanted.to_str();
    if names.iter().any(|name| is_called(name, &text)) {
        return Ok(());
    }
    Err(CertificateError::NotValidForNameContext { expected: wanted.to_owned(), presented: names })
}

/// Whether `name`, which may have a `*` as its first label, matches `wanted`.
fn is_called(name: &str, wanted: &str) -> bool {
    if let (Ok(name), Ok(wanted)) = (name.parse::<IpAddr>(), wanted.parse::<IpAddr>()) {
        return name == wanted;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let below = name.strip_prefix("*.").zip(wanted.split_once('.'));
    name.eq_ignore_ascii_case(wanted)
        || below.is_some_and(|(name, (_, rest))| {
            name.eq_ignore_ascii_case(rest) && wanted.parse::<IpAddr>().is_err()
        })
}

fn read(certificate: &[u8]) -> der::Result<Vec<String>> {
    let fields = fields(certificate)?.collect::<der::Result<Vec<_>>>()?;
    let mut names = Vec::new();
    for extensions in fields.iter().filter(|field| field.tag() == context(true, TagNumber::N3)) {
        for extension in items(AnyRef::from_der(extensions.value())?)? {
            let parts = items(extension?)?.collect::<der::Result<Vec<_>>>()?;
            let (kind, value) = parts.first().zip(parts.last()).ok_or_else(missing)?;
            if kind.value() == SUBJECT_ALTERNATIVE_NAME {
                for name in items(AnyRef::from_der(value.value())?)? {
                    names.extend(general_name(name?));
                }
            }
        }
    }
    for part in items(*fields.get(SUBJECT_AT).ok_or_else(missing)?)? {
        for attribute in items(part?)? {
            let mut attribute = items(attribute?)?;
            if next(&mut attribute)?.value() == COMMON_NAME {
                names.extend(text_of(next(&mut attribute)?));
            }
        }
    }
    Ok(names)
}

/// The fields of a certificate after its version, which X.509 v1 omits.
pub(super) fn fields(certificate: &[u8]) -> der::Result<impl Iterator<Item = Item<'_>>> {
    let signed = next(&mut items(AnyRef::from_der(certificate)?)?)?;
    let version = context(true, TagNumber::N0);
    let mut fields = items(signed)?.peekable();
    fields.next_if(|field| matches!(field, Ok(field) if field.tag() == version));
    Ok(fields)
}

/// A host's name or IP address.
fn general_name(name: AnyRef<'_>) -> Option<String> {
    let bytes = name.value();
    match name.tag() {
        tag if tag == context(false, TagNumber::N2) => text_of(name),
        tag if tag == context(false, TagNumber::N7) => {
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let ip = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
            ip.ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

fn text_of(value: AnyRef<'_>) -> Option<String> {
    std::str::from_utf8(value.value()).ok().map(str::to_owned)
}

/// A part of a sequence or a set.
type Item<'a> = der::Result<AnyRef<'a>>;

/// The parts of a sequence or a set, each read when it is needed.
pub(super) fn items(value: AnyRef<'_>) -> der::Result<impl Iterator<Item = Item<'_>>> {
    if !matches!(value.tag(), Tag::Sequence | Tag::Set) {
        return Err(value.tag().unexpected_error(Some(Tag::Sequence)));
    }
    let mut reader = SliceReader::new(value.value())?;
    Ok(iter::from_fn(move || (!reader.is_finished()).then(|| reader.decode())))
}

/// The next part, which must be there.
pub(super) fn next<'a>(items: &mut impl Iterator<Item = Item<'a>>) -> Item<'a> {
    items.next().unwrap_or_else(|| Err(missing()))
}

fn missing() -> der::Error {
    Tag::Sequence.value_error()
}

fn context(constructed: bool, number: TagNumber) -> Tag {
    Tag::ContextSpecific { constructed, number }
}

/// The subject follows the serial number, the signature's kind, the issuer and the dates.
const SUBJECT_AT: usize = 4;

/// 2.5.29.17 and 2.5.4.3 in DER.
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_number_or_a_name_in_any_case_with_one_label_left_open() {
        for (name, wanted) in [
            ("bmc", "bmc"),
            ("BMC.Example.org.", "bmc.example.org"),
            ("*.example.org", "bmc.example.org"),
            ("10.0.0.1", "10.0.0.1"),
            ("fe80::1", "fe80:0:0:0:0:0:0:1"),
        ] {
            assert!(is_called(name, wanted), "{name}");
        }
        for (name, wanted) in [
            ("bmc", "bmc2"),
            ("*.example.org", "a.b.example.org"),
            ("*.example.org", "example.org"),
            ("*", "bmc"),
            ("*.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.2"),
            ("", "bmc"),
        ] {
            assert!(!is_called(name, wanted), "{name}");
        }
    }
}
