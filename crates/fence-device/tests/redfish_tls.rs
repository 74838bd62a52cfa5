//! Pinned certificates of the Redfish driver, of every form that BMCs have: real servers (`openssl
//! s_server`), and one that shows a certificate without having its key.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{fs, thread};

use common::bmc::{assert_text, settings, system};
use common::{Directory, give, long, node};
use fence_core::PerTarget;
use fence_core::execution::{Order, OrderReport};
use fence_device::{Client, FenceDevice, Pin, RedfishDevice, RedfishTrust};
use fence_protocol::PowerState;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A service behind `openssl s_server`, with a certificate of this form.
struct Tls {
    server: Child,
    address: String,
    fingerprint: String,
}

impl Tls {
    fn start(directory: &Directory, certificate: &str, more: &[&str]) -> Self {
        let run = |line: &str| {
            let output =
                Command::new("sh").args(["-c", line]).current_dir(directory.path("")).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(certificate);
        run("mkdir -p redfish/v1/Systems");
        let shown = system("Off", "").split_once("\r\n\r\n").unwrap().1.to_owned();
        fs::write(directory.path("redfish/v1/Systems/1"), shown).unwrap();
        let fingerprint = run("openssl x509 -in cert.pem -noout -fingerprint -sha256");
        let mut server = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW", "-cert", "cert.pem"])
            .args(["-key", "key.pem", "-cipher", "ALL:@SECLEVEL=0"])
            .args(more)
            .current_dir(directory.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(place) = line.strip_prefix("ACCEPT ") {
                break place.rsplit(':').next().unwrap().to_owned();
            }
        };
        // The server must never wait for a reader.
        thread::spawn(move || lines.for_each(drop));
        Tls {
            server,
            address: format!("https://127.0.0.1:{port}"),
            fingerprint: fingerprint.trim().split_once('=').unwrap().1.to_owned(),
        }
    }

    fn power(&self, directory: &Directory, fingerprint: &str) -> (PowerState, String) {
        let trust = RedfishTrust::Fingerprint(PerTarget::Pattern(fingerprint.to_owned()));
        power_by(directory, &self.address, trust)
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn power_by(directory: &Directory, address: &str, trust: RedfishTrust) -> (PowerState, String) {
    let mut settings = settings(directory, address, Some("/redfish/v1/Systems/1"));
    settings.trust = trust;
    let report = RedfishDevice::new(settings).power(&node(), &Pin::default(), long());
    (report.state, report.detail)
}

#[test]
fn a_pinned_certificate_is_trusted_whatever_its_form() {
    let new = "openssl req -x509 -nodes -keyout key.pem -out cert.pem -days 9 -subj /CN=bmc";
    let rsa = format!("{new} -newkey rsa:2048");
    let ec = format!("{new} -newkey ec -pkeyopt ec_paramgen_curve:prime256v1");
    for (certificate, more) in [
        (rsa.clone(), &["-tls1_2"][..]),
        (rsa.clone(), &["-tls1_3"]),
        (ec.clone(), &["-tls1_2"]),
        (ec, &["-tls1_3"]),
        (format!("{new} -newkey ed25519"), &[]),
        (format!("{new} -newkey rsa:1024"), &[]),
        (format!("{new} -newkey rsa:1536"), &["-tls1_2"]),
        (format!("{rsa} -md5"), &[]),
        (format!("{rsa} -addext 1.2.3.4=critical,ASN1:UTF8String:x"), &[]),
        (
            "openssl req -new -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj /CN=bmc \
             && openssl x509 -req -in csr.pem -signkey key.pem -days 9 -out cert.pem"
                .to_owned(),
            &[],
        ),
    ] {
        let directory = Directory::new();
        let bmc = Tls::start(&directory, &certificate, more);

        let (state, detail) = bmc.power(&directory, &bmc.fingerprint);
        assert_eq!(state, PowerState::Off, "{certificate}: {detail}");

        let (state, detail) = bmc.power(&directory, &"00".repeat(32));
        assert_eq!(state, PowerState::Unknown);
        assert_text(&detail, "not the configured one");
    }
}

#[test]
fn a_certificate_in_the_file_is_trusted_for_its_name_whatever_its_form() {
    let new = "openssl req -x509 -nodes -keyout key.pem -out cert.pem -days 9";
    let san = "-addext subjectAltName=IP:127.0.0.1";
    let old = "openssl req -new -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem \
               -subj /CN=127.0.0.1 && openssl x509 -req -in csr.pem -signkey key.pem -days 9 \
               -out cert.pem";
    for (certificate, more) in [
        (old.to_owned(), &[][..]),
        (format!("{new} -newkey rsa:2048 -subj /O=x/CN=127.0.0.1"), &["-tls1_2"]),
        (format!("{new} -newkey rsa:2048 -subj /CN=127.0.0.1"), &["-tls1_3"]),
        (format!("{new} -newkey rsa:1024 -subj /CN=bmc {san}"), &[]),
        (format!("{new} -newkey rsa:2048 -subj /CN=bmc {san} -md5"), &[]),
        (
            format!("{new} -newkey rsa:2048 -subj /CN=b {san} -addext 1.2.3.4=critical,DER:0500"),
            &[],
        ),
    ] {
        let directory = Directory::new();
        let bmc = Tls::start(&directory, &certificate, more);
        let file = directory.path("cert.pem");
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let trust = RedfishTrust::CaFile(file);

        let (state, detail) = power_by(&directory, &bmc.address, trust.clone());
        assert_eq!(state, PowerState::Off, "{certificate}: {detail}");

        // The certificate may be that of another BMC in the same file.
        let elsewhere = bmc.address.replace("127.0.0.1", "localhost");
        let (state, detail) = power_by(&directory, &elsewhere, trust);
        assert_eq!(state, PowerState::Unknown, "{certificate}");
        assert_text(&detail, "not valid for name \"localhost\"");

        // A certificate that is not in the file, and that no certificate there signed.
        let other = "openssl req -x509 -nodes -newkey rsa:2048 -keyout other.key -out other.pem \
                     -days 9 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
        Command::new("sh").args(["-c", other]).current_dir(directory.path("")).output().unwrap();
        let trust = RedfishTrust::CaFile(directory.path("other.pem"));
        let (state, detail) = power_by(&directory, &bmc.address, trust);
        assert_eq!(state, PowerState::Unknown, "{certificate}");
        assert_text(&detail, "not trusted");
    }
}

#[test]
fn a_pinned_certificate_that_cannot_be_used_is_reported() {
    let new = "openssl req -x509 -nodes -keyout key.pem -out cert.pem -days 9 -subj /CN=bmc";
    for (key, words) in [
        (
            "rsa:768",
            "is the configured one, and cannot be used: its RSA key has less than 1024 bits",
        ),
        ("ec -pkeyopt ec_paramgen_curve:secp521r1", "HandshakeFailure; TLS 1.2 with ECDHE or 1.3"),
    ] {
        let directory = Directory::new();
        let bmc = Tls::start(&directory, &format!("{new} -newkey {key}"), &["-tls1_2"]);

        let (state, detail) = bmc.power(&directory, &bmc.fingerprint);

        assert_eq!(state, PowerState::Unknown, "{detail}");
        assert_text(&detail, words);
    }
}

/// A service that shows the certificate of another, whose key it does not have.
#[test]
fn a_host_with_a_pinned_certificate_must_have_its_key() {
    let directory = Directory::new();
    let new = "openssl req -x509 -nodes -days 9 -subj /CN=127.0.0.1";
    let make = |key: &str, certificate: &str, kind: &str| {
        let line = format!(
            "{new} {kind} -keyout {key}.pem -out {certificate}.pem && openssl x509 -in \
             {certificate}.pem -noout -fingerprint -sha256"
        );
        let output =
            Command::new("sh").args(["-c", &line]).current_dir(directory.path("")).output();
        let shown = String::from_utf8(output.unwrap().stdout).unwrap();
        shown.trim().split_once('=').unwrap().1.to_owned()
    };
    let read = |name: &str| fs::read(directory.path(&format!("{name}.pem"))).unwrap();
    for kind in ["-newkey rsa:2048", "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1"] {
        let pinned = make("own-key", "pinned", kind);
        make("other-key", "other", kind);
        for (key, is_its) in [("own-key", true), ("other-key", false)] {
            for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
                let provider = rustls::crypto::ring::default_provider();
                let key = PrivateKeyDer::from_pem_slice(&read(key)).unwrap();
                let key = provider.key_provider.load_private_key(key).unwrap();
                let certificate = CertificateDer::from_pem_slice(&read("pinned")).unwrap();
                // The server does not check that the two match.
                let shown = Shown(Arc::new(CertifiedKey::new(vec![certificate], key)));
                let config = ServerConfig::builder_with_provider(Arc::new(provider))
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(shown));
                let address = serve(config);
                let system = Some("/redfish/v1/Systems/1");
                let mut settings = settings(&directory, &address, system);
                let of_file = RedfishTrust::CaFile(directory.path("pinned.pem"));
                let of_pin = RedfishTrust::Fingerprint(PerTarget::Pattern(pinned.clone()));
                for trust in [of_pin, of_file] {
                    settings.trust = trust;
                    let device = RedfishDevice::new(settings.clone());
                    let report = device.power(&node(), &Pin::default(), long());

                    let state = if is_its { PowerState::Off } else { PowerState::Unknown };
                    assert_eq!(report.state, state, "{kind} {version:?}: {report:?}");
                }
            }
        }
    }
}

/// The connection for an order is a new one. It may take seconds, and the client may die meanwhile.
#[test]
fn a_client_that_dies_while_the_connection_for_an_order_is_made_gets_no_order() {
    let directory = Directory::new();
    let line = "openssl req -x509 -nodes -days 9 -subj /CN=bmc -newkey rsa:2048 -keyout key.pem \
                -out cert.pem";
    Command::new("sh").args(["-c", line]).current_dir(directory.path("")).output().unwrap();
    let read = |name: &str| fs::read(directory.path(name)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).unwrap();
    let certificate = CertificateDer::from_pem_slice(&read("cert.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    for dies in [true, false] {
        let claim = directory.path("claim.json");
        directory.private("claim.json", "{}");
        let held = File::open(&claim).unwrap();
        held.try_lock().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let config = Arc::new(config.clone());
        let service = thread::spawn(move || {
            let mut asked = Vec::new();
            for number in 0..2 {
                let (connection, _) = listener.accept().unwrap();
                if dies && number == 1 {
                    held.unlock().unwrap();
                }
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(tls, connection);
                let mut line = String::new();
                let _ = BufReader::new(&mut stream).read_line(&mut line);
                asked.push(line.split(' ').next().unwrap().to_owned());
                let _ = stream.write_all(system("On", "").as_bytes());
            }
            drop(held);
            asked
        });
        let settings = settings(&directory, &address, Some("/redfish/v1/Systems/1"));

        let client = Client::new(claim, true);
        let device = RedfishDevice::new(settings);
        let report = give(&device, Order::Off, &Pin::default(), Some(&client), long());

        let asked = service.join().unwrap();
        if dies {
            assert_eq!((report, &asked[1][..]), (OrderReport::Withdrawn, ""));
        } else {
            assert!(matches!(report, OrderReport::Acknowledged(_)), "{report:?}");
            assert_eq!(asked[1], "POST");
        }
    }
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A service whose only system is off, over TLS. Returns its address.
fn serve(config: ServerConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let config = Arc::new(config);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(tls, connection.unwrap());
            let mut reader = BufReader::new(&mut stream);
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).is_err() {
                    break;
                }
            }
            let _ = stream.write_all(system("Off", "").as_bytes());
        }
    });
    address
}
