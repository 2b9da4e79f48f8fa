//! The Secrets that `secrets.sh` prints are those that the manifests mount, and their certificates have the required
//! content; cert-manager would create the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Secret;

use super::objects::{BUNDLES, Object, overlay, parse, run};
use super::{folder, foreign};
use crate::support::Place;

/// Secrets that an operator has to create, because their content is only known there. The README says so.
const BY_HAND: &[(&str, &[&str])] = &[("pg-backrest", &["s3-key", "s3-key-secret", "cipher-pass"])];

/// As `secrets.sh` prints them.
static PRINTED: LazyLock<Vec<Object>> = LazyLock::new(|| print(Place::new().path(), "all"));

fn print(authorities: &Path, what: &str) -> Vec<Object> {
    let output = run(Command::new(folder().join("secrets.sh")).arg("shop").arg(authorities).arg(what));
    parse(&String::from_utf8(output.stdout).expect("it prints UTF-8"))
}

/// The keys of a Secret.
fn keys(object: &Object) -> BTreeSet<String> {
    object.typed::<Secret>().data.unwrap_or_default().into_keys().collect()
}

/// The text under a key.
pub(super) fn text(name: &str, key: &str) -> String {
    let secret = PRINTED.iter().find(|object| object.name == name).expect("it is printed").typed::<Secret>();
    let bytes = secret.data.and_then(|mut data| data.remove(key)).expect("the key is printed");
    String::from_utf8(bytes.0).expect("a text")
}

/// Every Secret that the manifests may use, with its keys.
pub(super) fn promised() -> BTreeMap<String, BTreeSet<String>> {
    let by_hand = BY_HAND.iter().map(|(name, keys)| {
        ((*name).to_owned(), keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<_>>())
    });
    PRINTED.iter().map(|object| (object.name.clone(), keys(object))).chain(by_hand).collect()
}

#[test]
fn secrets_made_by_hand_are_documented() {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("it is there");
    for (name, keys) in BY_HAND {
        assert!(readme.contains(name), "{name}");
        assert!(keys.iter().all(|key| readme.contains(key)), "{keys:?}");
    }
}

#[test]
fn every_printed_secret_is_one() {
    let faults: Vec<_> = PRINTED.iter().filter_map(super::strict::fault).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let used = |name: &str| BUNDLES.iter().any(|bundle| format!("{:?}", bundle.objects).contains(name));
    assert!(PRINTED.iter().all(|object| used(&object.name)), "one that nobody mounts");
}

/// Long, different from each other and from run to run, and equal in both forms.
#[test]
fn passwords_are_random() {
    let again = print(Place::new().path(), "passwords");
    assert_eq!(again.len(), 1, "passwords alone");
    let again = again[0].typed::<Secret>().data.expect("it has data");
    let mut seen = BTreeSet::new();
    for (key, bytes) in again.iter().filter(|(key, _)| key.ends_with("-password")) {
        let password = text("pg-credentials", key);
        assert!(password.len() == 48 && password.chars().all(|c| c.is_ascii_hexdigit()), "{key}");
        assert!(
            seen.insert(password) && seen.insert(String::from_utf8_lossy(&bytes.0).into_owned()),
            "{key}"
        );
    }
    let pooler = text("pg-credentials", "pooler-password");
    assert_eq!(text("pg-credentials", "userlist.txt"), format!("\"pooler\" \"{pooler}\"\n"));
}

/// Each certificate is signed by the authority beside it, matches the key beside it, and is valid for the names by
/// which it is reached.
#[test]
fn certificates_have_the_requested_contents() {
    let place = Place::new();
    let write = |name: &str, key: &str| {
        let path = place.path().join(format!("{name}-{key}"));
        std::fs::write(&path, text(name, key)).expect("our own place is writable");
        path
    };
    for (name, purpose, hosts) in [
        (
            "pg-postgres-tls",
            "sslserver",
            &["pg-rw", "pg-ro.shop.svc", "pg-0.pg-members", "pg-8.pg-members"][..],
        ),
        ("pg-postgres-tls", "sslclient", &[]),
        ("pg-pooler-tls", "sslserver", &["pg-pooler", "pg-pooler.shop.svc"]),
        ("etcd-tls", "sslserver", &["etcd-0", "etcd-2", "etcd-0.etcd", "etcd-2.etcd", "localhost"]),
        ("etcd-tls", "sslclient", &[]),
        ("pg-etcd-client-tls", "sslclient", &[]),
    ] {
        let (authority, certificate) = (write(name, "ca.crt"), write(name, "tls.crt"));
        let verify = |host: Option<&str>| {
            let mut command = Command::new("openssl");
            command.args(["verify", "-purpose", purpose, "-CAfile"]).arg(&authority);
            if let Some(host) = host {
                command.args(["-verify_hostname", host]);
            }
            command.arg(&certificate);
            command.output().expect("openssl starts").status.success()
        };
        assert!(verify(None), "{name} as {purpose}");
        assert!(hosts.iter().all(|host| verify(Some(host))), "{name}: {hosts:?}");
        assert!(!verify(Some("elsewhere")), "{name}");
        let public = |command: &mut Command| run(command).stdout;
        let of_certificate =
            public(Command::new("openssl").args(["x509", "-noout", "-pubkey", "-in"]).arg(&certificate));
        let key = write(name, "tls.key");
        assert_eq!(of_certificate, public(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(key)));
    }
    assert_ne!(text("pg-postgres-tls", "ca.crt"), text("etcd-tls", "ca.crt"), "two authorities");
}

/// A renewal keeps the authorities, so clients that trust them need no change.
#[test]
fn a_renewal_keeps_the_authorities() {
    let place = Place::new();
    let [first, second] = [0, 1].map(|_| print(place.path(), "certificates"));
    for (old, new) in first.iter().zip(&second) {
        assert_eq!(old.name, new.name);
        assert_eq!(old.json["data"]["ca.crt"], new.json["data"]["ca.crt"]);
        assert_ne!(old.json["data"]["tls.crt"], new.json["data"]["tls.crt"]);
    }
}

/// Both ways give the same Secrets, for the same names and uses.
#[test]
fn both_ways_create_the_same_secrets() {
    let bundle = overlay("cert-manager");
    let certificates = bundle.all::<foreign::Certificate>("Certificate");
    let issuers = bundle.all::<foreign::Issuer>("Issuer");
    let leaves: BTreeMap<&str, &foreign::Certificate> = certificates
        .iter()
        .filter(|certificate| certificate.spec.is_ca != Some(true))
        .map(|certificate| (certificate.spec.secret_name.as_str(), certificate))
        .collect();
    let printed: Vec<&str> =
        PRINTED.iter().map(|object| object.name.as_str()).filter(|name| *name != "pg-credentials").collect();
    assert_eq!(leaves.keys().copied().collect::<BTreeSet<_>>(), printed.iter().copied().collect());
    for (name, certificate) in leaves {
        let issuer = &certificate.spec.issuer_ref.name;
        let issuer =
            issuers.iter().find(|found| found.metadata.name.as_ref() == Some(issuer)).expect("it exists");
        let authority = issuer.spec.ca.as_ref().expect("leaves are signed by an authority");
        let signs = |found: &&foreign::Certificate| found.spec.secret_name == authority.secret_name;
        assert_eq!(certificates.iter().find(signs).expect("it exists").spec.is_ca, Some(true));
        let place = Place::new();
        let path = place.path().join("tls.crt");
        std::fs::write(&path, text(name, "tls.crt")).expect("our own place is writable");
        let output = run(Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(path));
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = certificate.spec.dns_names.iter().flatten();
        assert!(names.clone().all(|host| shown.contains(&format!("DNS:{host}"))), "{name}:\n{shown}");
        let usages = certificate.spec.usages.as_ref().expect("they are said");
        for (usage, title) in [("server auth", "TLS Web Server"), ("client auth", "TLS Web Client")] {
            assert_eq!(usages.iter().any(|found| found == usage), shown.contains(title), "{name}: {usage}");
        }
        assert!(shown.contains(&format!("CN = {}", certificate.spec.common_name)), "{name}:\n{shown}");
    }
}
