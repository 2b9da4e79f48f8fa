//! Private keys in PEM files, with a password or without.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::tls::TlsError;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
/// A header of OpenSSL's old form.
const OLD_FORM: &str = "Proc-Type: 4,ENCRYPTED";

/// Reads the first private key of a file. A password is needed only for a key that has one.
pub(super) fn read(path: &Path, password: Option<&str>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(|error| read(pem::Error::Io(error)))?;
    let text = String::from_utf8_lossy(&bytes);
    if text.contains(OLD_FORM) {
        return Err(TlsError::OldEncryptedKey { path: path.to_owned() });
    }
    let Some(block) = text.split_once(BEGIN).and_then(|(_, rest)| Some(rest.split_once(END)?.0)) else {
        return PrivateKeyDer::from_pem_slice(&bytes).map_err(read);
    };
    let Some(password) = password else { return Err(TlsError::EncryptedKey { path: path.to_owned() }) };
    let unknown = |why: String| TlsError::UnknownEncryption { path: path.to_owned(), why };
    let base64: String = block.split_whitespace().collect();
    let der = BASE64.decode(base64).map_err(|error| unknown(error.to_string()))?;
    // An algorithm that is not known is an error of the format already.
    let key = EncryptedPrivateKeyInfoRef::try_from(&*der).map_err(|error| unknown(error.to_string()))?;
    match key.decrypt(password) {
        Ok(key) => Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()))),
        Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed) | pkcs8::Error::Asn1(_)) => {
            // With a wrong password the padding is wrong, or what it hides is no key.
            Err(TlsError::WrongPassword { path: path.to_owned() })
        }
        Err(error) => Err(unknown(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    impl Folder {
        fn new() -> Folder {
            let path = std::env::temp_dir().join(format!("matriarch-keys-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a temporary directory");
            Folder(path)
        }

        fn openssl(&self, words: &str) {
            let mut command = Command::new("openssl");
            let output = command.current_dir(&self.0).args(words.split_whitespace()).output();
            let output = output.expect("openssl starts");
            assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        }

        fn read(&self, name: &str, password: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
            read(&self.0.join(name), password).map_err(|error| error.to_string())
        }
    }

    /// Every form that OpenSSL writes: the key, or what to do.
    #[test]
    fn keys_with_and_without_a_password() {
        let folder = Folder::new();
        folder.openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out plain.key");
        let plain = folder.read("plain.key", Some("not needed")).expect("it has no password");
        let convert = "pkcs8 -topk8 -in plain.key -passout pass:right";
        for (name, how) in [("default.key", ""), ("aes128.key", "-v2 aes-128-cbc -v2prf hmacWithSHA512")] {
            folder.openssl(&format!("{convert} {how} -out {name}"));
            assert_eq!(folder.read(name, Some("right")).as_ref(), Ok(&plain), "{name}");
            let wrong = folder.read(name, Some("wrong")).expect_err("it is another password");
            assert!(wrong.starts_with("the password does not open the private key in"), "{wrong}");
            let none = folder.read(name, None).expect_err("no password");
            assert!(none.contains("set `keyfile_password`"), "{none}");
        }
        folder.openssl(&format!("{convert} -scrypt -out scrypt.key"));
        assert_eq!(folder.read("scrypt.key", Some("right")).as_ref(), Ok(&plain));
        folder.openssl(&format!("{convert} -v2 des3 -out des.key"));
        let unknown = folder.read("des.key", Some("right")).expect_err("an outdated cipher");
        assert!(unknown.contains("openssl pkcs8 -topk8 -v2 aes-256-cbc -in"), "{unknown}");
        folder.openssl("ec -in plain.key -aes256 -passout pass:right -out old.key");
        let old = folder.read("old.key", Some("right")).expect_err("the old form");
        assert!(old.contains("old form") && old.contains("openssl pkcs8 -topk8 -in"), "{old}");
    }
}
