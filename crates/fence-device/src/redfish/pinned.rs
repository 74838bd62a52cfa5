//! A certificate that the administrator pinned: its key, and the signatures of that key.
//!
//! A pinned certificate is trusted as it is. The fingerprint proves more than the issuer, the
//! version, the extensions and the dates, and BMCs have certificates that no authority would sign:
//! X.509 v1, unknown critical extensions, MD5. So this module reads only the key. The key always
//! checks the signature of the handshake, which proves that the certificate's owner answers.

use std::fmt;
use std::sync::Arc;

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Tag, Tagged};
use ring::signature::{
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY as SHORT_RSA_SHA256,
    RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY as SHORT_RSA_SHA512, UnparsedPublicKey,
};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{SignatureVerificationAlgorithm, alg_id};
use rustls::{CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::names::{fields, items, next};

/// The public key of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    /// The kind of key, in X.509's encoding.
    algorithm: &'a [u8],
    bits: &'a [u8],
}

/// Why the expected certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Its RSA key is so short that the key can check only signatures of TLS 1.2.
    ShortKey,
    /// Another reason.
    Because(&'static str),
}

impl<'a> Key<'a> {
    /// The key in `certificate`, with any other content.
    pub(super) fn of(certificate: &'a [u8]) -> Result<Self, Unusable> {
        let unreadable = |_| Unusable::Because("no public key can be read in it");
        Self::read(certificate).map_err(unreadable)
    }

    fn read(certificate: &'a [u8]) -> der::Result<Self> {
        let mut fields = fields(certificate)?;
        for _serial_signature_issuer_validity_subject in 0..5 {
            next(&mut fields)?;
        }
        let mut key = items(next(&mut fields)?)?;
        let algorithm = sequence(next(&mut key)?)?;
        let bits: BitStringRef<'_> = next(&mut key)?.decode_as()?;
        let bits = bits.as_bytes().ok_or_else(|| Tag::BitString.value_error())?;
        Ok(Key { algorithm, bits })
    }

    /// Checks that this program can check the signatures of this key.
    pub(super) fn check(self, known: &WebPkiSupportedAlgorithms) -> Result<(), Unusable> {
        Err(Unusable::Because(match self.rsa_bits() {
            Some(SHORT_RSA_BITS_MIN..RSA_BITS_MIN) => return Err(Unusable::ShortKey),
            Some(0..SHORT_RSA_BITS_MIN) => "its RSA key has less than 1024 bits",
            Some(RSA_BITS_END..) => "its RSA key has more than 8192 bits",
            _ if known.all.iter().any(|algorithm| self.is_for(*algorithm)) => return Ok(()),
            _ => "its key is not RSA, ECDSA P-256, P-384 or Ed25519",
        }))
    }

    fn is_for(self, algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
        algorithm.public_key_alg_id().as_ref() == self.algorithm
    }

    /// Checks the signature of a handshake.
    pub(super) fn verify(
        self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        known: &WebPkiSupportedAlgorithms,
        is_tls13: bool,
    ) -> Result<(), rustls::Error> {
        let bad = || rustls::Error::InvalidCertificate(CertificateError::BadSignature);
        if self.rsa_bits().is_some_and(|bits| bits < RSA_BITS_MIN) {
            let algorithm = match signed.scheme {
                SignatureScheme::RSA_PKCS1_SHA256 if !is_tls13 => &SHORT_RSA_SHA256,
                SignatureScheme::RSA_PKCS1_SHA512 if !is_tls13 => &SHORT_RSA_SHA512,
                _ => return Err(bad()),
            };
            let key = UnparsedPublicKey::new(algorithm, self.bits);
            return key.verify(message, signed.signature()).map_err(|_| bad());
        }
        let of_scheme = known.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let algorithms = of_scheme.map_or(&[][..], |(_, algorithms)| algorithms);
        // In TLS 1.3, the scheme names the curve of the key as well.
        let count_max = if is_tls13 { 1 } else { usize::MAX };
        let mut mine = algorithms.iter().take(count_max).filter(|it| self.is_for(**it));
        let signature = signed.signature();
        mine.any(|it| it.verify_signature(self.bits, message, signature).is_ok())
            .then_some(())
            .ok_or_else(bad)
    }

    /// The length of the modulus of an RSA key.
    fn rsa_bits(self) -> Option<usize> {
        if self.algorithm != alg_id::RSA_ENCRYPTION.as_ref() {
            return None;
        }
        let read = || -> der::Result<usize> {
            let modulus: UintRef<'_> =
                next(&mut items(AnyRef::from_der(self.bits)?)?)?.decode_as()?;
            let first = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
            Ok(modulus.as_bytes().len() * 8 - first)
        };
        Some(read().unwrap_or(0))
    }
}

/// The signature schemes for a short RSA key.
pub(super) const SHORT_KEY_SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PKCS1_SHA512];

fn sequence(value: AnyRef<'_>) -> der::Result<&[u8]> {
    value.tag().assert_eq(Tag::Sequence)?;
    Ok(value.value())
}

impl From<Unusable> for rustls::Error {
    fn from(why: Unusable) -> Self {
        CertificateError::Other(OtherError(Arc::new(why))).into()
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::ShortKey => f.write_str("its RSA key has less than 2048 bits"),
            Unusable::Because(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Unusable {}

/// The shortest RSA key for every version of TLS, in bits.
const RSA_BITS_MIN: usize = 2048;

/// The shortest RSA key for TLS 1.2.
const SHORT_RSA_BITS_MIN: usize = 1024;

/// The first length that is too long.
const RSA_BITS_END: usize = 8193;
