//! The check of a BMC's certificate.
//!
//! BMCs rarely have a certificate of a public authority. So the administrator configures the
//! expected certificate: the authority of the site (or the BMC's own certificate) in a file, the
//! fingerprint of the BMC's certificate, or nothing.

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use fence_spool::TrustedFile;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};

use super::names;
use super::pinned::{Key, SHORT_KEY_SCHEMES, Unusable};

/// The SHA-256 digest of a certificate, as `openssl x509 -fingerprint -sha256` shows it; here as
/// upper-case digits without colons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

/// The expected certificate.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// One of these certificates, or one that these sign, if they are authorities.
    Authorities {
        certificates: Vec<CertificateDer<'static>>,
        verifier: Option<Arc<WebPkiServerVerifier>>,
    },
    /// The certificate with this fingerprint.
    Fingerprint(Fingerprint),
    /// Any certificate: any host may answer.
    Any,
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Fingerprint(digits.to_ascii_uppercase()));
        }
        let shown = text.escape_debug();
        Err(format!("'{shown}' is no SHA-256 fingerprint: 64 hexadecimal digits, colons between"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<&str> = (0..self.0.len()).step_by(2).map(|at| &self.0[at..at + 2]).collect();
        f.write_str(&bytes.join(":"))
    }
}

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let digest = digest(&SHA256, certificate);
        let bytes: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        Fingerprint(bytes.concat())
    }
}

impl Expected {
    /// The certificates in the PEM file at `path`.
    pub(super) fn in_file(path: &Path) -> Result<Self, String> {
        let problem = |what: &str| format!("'ca_file' '{}': {what}", path.display());
        let bytes = TrustedFile::find(path)
            .and_then(|file| file.read(CA_FILE_BYTES_MAX))
            .map_err(|error| problem(&error.to_string()))?;
        let certificates = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let bad = |error| problem(&format!("it contains a bad certificate: {error}"));
        let certificates = certificates.map_err(bad)?;
        let mut roots = RootCertStore::empty();
        // A bundle may contain certificates that are too old for an authority; the others count. A
        // BMC's own certificate needs only a key.
        let (usable, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 && !certificates.iter().any(|own| Key::of(own).is_ok()) {
            return Err(problem("it contains no certificate that can be used (PEM is expected)"));
        }
        let provider = Arc::new(provider::default_provider());
        let verifier = (usable > 0).then(|| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
        });
        let verifier = verifier.transpose().map_err(|error| problem(&error.to_string()))?;
        Ok(Expected::Authorities { certificates, verifier })
    }

    /// The settings of connections to the expected server.
    pub(super) fn into_settings(self) -> Result<TlsSettings, String> {
        let for_short_key = self.clone().into_config(&[&rustls::version::TLS12], true)?;
        let usual = self.into_config(rustls::DEFAULT_VERSIONS, false)?;
        Ok(TlsSettings { usual, for_short_key })
    }

    fn into_config(
        self,
        versions: &[&'static SupportedProtocolVersion],
        has_short_key: bool,
    ) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(provider::default_provider());
        let verifier = Verifier { expected: self, provider: Arc::clone(&provider), has_short_key };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// The settings of connections to one BMC.
#[derive(Clone, Debug)]
pub(super) struct TlsSettings {
    /// The first choice.
    pub(super) usual: Arc<ClientConfig>,
    /// For a pinned certificate with a short RSA key, which cannot check the signatures of TLS 1.3.
    pub(super) for_short_key: Arc<ClientConfig>,
}

#[derive(Debug)]
struct Verifier {
    expected: Expected,
    provider: Arc<CryptoProvider>,
    /// Whether the connection has the settings for a short RSA key.
    has_short_key: bool,
}

impl Verifier {
    /// Whether the administrator configured this exact certificate, which then counts in any form.
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        match &self.expected {
            Expected::Authorities { certificates, .. } => certificates.contains(certificate),
            Expected::Fingerprint(_) => true,
            Expected::Any => false,
        }
    }

    /// Checks that the key of a pinned certificate can check signatures.
    fn check_key(&self, certificate: &CertificateDer<'_>) -> Result<(), Unusable> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match Key::of(certificate)?.check(algorithms) {
            Err(Unusable::ShortKey) if self.has_short_key => Ok(()),
            checked => checked,
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        is_tls13: bool,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if matches!(self.expected, Expected::Any) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        if self.is_pinned(certificate) {
            Key::of(certificate)?.verify(message, signed, algorithms, is_tls13)?;
            return Ok(HandshakeSignatureValid::assertion());
        }
        let verify = if is_tls13 { verify_tls13_signature } else { verify_tls12_signature };
        verify(message, certificate, signed, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.expected {
            Expected::Authorities { .. } if self.is_pinned(end_entity) => {
                // Many BMCs sign their own certificate like an authority, or have an expired one;
                // the usual check refuses both. One file may contain the certificates of several
                // BMCs, so the name counts.
                names::check(end_entity, name)?;
                self.check_key(end_entity)?;
            }
            Expected::Authorities { verifier, .. } => {
                let verifier = verifier.as_ref().ok_or(CertificateError::UnknownIssuer)?;
                return verifier.verify_server_cert(end_entity, chain, name, ocsp, now);
            }
            Expected::Fingerprint(expected) => {
                let found = Fingerprint::of(end_entity);
                if found != *expected {
                    let wrong = format!("its fingerprint is {found}, not the configured one");
                    let wrong = OtherError(Arc::from(Box::<dyn Error + Send + Sync>::from(wrong)));
                    return Err(CertificateError::Other(wrong).into());
                }
                self.check_key(end_entity)?;
            }
            Expected::Any => {}
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed, false)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, certificate, signed, true)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.has_short_key {
            return SHORT_KEY_SCHEMES.to_vec();
        }
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The bundle of all public authorities has a quarter of this size.
const CA_FILE_BYTES_MAX: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_64_hexadecimal_digits_with_or_without_colons() {
        let plain = "0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789";
        let fingerprint: Fingerprint = plain.parse().unwrap();
        let shown = fingerprint.to_string();
        assert!(shown.starts_with("01:23:45:67:89:AB:CD:EF:AB:"), "{shown}");
        assert_eq!(shown.parse(), Ok(fingerprint));
        assert_eq!(shown.replace(':', "").to_lowercase(), plain.to_lowercase());

        for text in ["", "01:23", &format!("{plain}0"), &plain.replace('0', "g"), &"é".repeat(32)]
        {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_certificate() {
        let found = Fingerprint::of(&CertificateDer::from(&b"abc"[..])).to_string();
        assert!(found.starts_with("BA:78:16:BF:8F:01:CF:EA:"), "{found}");
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        for (path, problem) in [
            ("/no/such/file", "'/no/such/file': it does not exist"),
            ("/etc/passwd", "'/etc/passwd': it contains no certificate that can be used"),
        ] {
            let found = Expected::in_file(Path::new(path)).unwrap_err();
            assert!(found.contains(problem), "{found}");
        }
    }
}
