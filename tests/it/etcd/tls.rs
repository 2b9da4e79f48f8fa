//! etcd behind TLS with client certificates.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use matriarch::etcd::TlsFiles;

use super::{Scratch, Server, facts, granted, keep, read, until};

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A new authority, and certificates of it for server and client, in the place of former ones.
fn issue(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    let extensions = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n";
    std::fs::write(directory.join("extensions"), extensions).expect("a file");
    for who in ["server", "client"] {
        openssl(directory, &format!("req {key} -keyout {who}.key -out {who}.csr -subj /CN={who}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions";
        openssl(directory, &format!("x509 -req -in {who}.csr -out {who}.pem {sign}"));
    }
}

/// Certificates are exchanged on the disk, and etcd begins to ask for the new ones: connections that exist read the
/// files again, and the lease is renewed on.
#[tokio::test]
async fn certificates_are_read_again() {
    let scratch = Scratch::new();
    let directory = scratch.0.clone();
    issue(&directory);
    let file = |name: &str| Some(directory.join(name));
    let tls = TlsFiles { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") };
    let mut server = Server::start_with(scratch, Some(tls)).await;
    let etcd = server.connect();
    read(&etcd).await;
    let keeper = keep(server.setup(), 10);
    let lease = granted(&keeper).await;

    issue(&directory);
    server.restart().await;
    until("the new certificates are used", async || etcd.read(Duration::from_secs(1)).await.is_ok()).await;
    let before = keeper.facts().borrow().deadline;
    facts(&keeper, "a renewal", |facts| facts.lease == Some(lease) && before < facts.deadline).await;
}
