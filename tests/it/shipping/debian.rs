//! The Debian package, built from the programs under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{PROGRAM, output_of, repository, text_of};
use crate::support::Place;

fn build(place: &Place) -> PathBuf {
    let programs = Path::new(PROGRAM).parent().expect("a program lies in a folder");
    let mut build = Command::new(repository("deploy/debian/build"));
    // Programs with debug information take long to compress.
    build.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let package = text_of(build.arg(programs).arg(place.path().join("out")));
    PathBuf::from(package.trim())
}

fn field(package: &Path, name: &str) -> String {
    text_of(Command::new("dpkg-deb").arg("--field").arg(package).arg(name)).trim().to_owned()
}

/// Mode, owner and path of each file, as `dpkg-deb` lists them.
fn listed(package: &Path) -> Vec<[String; 3]> {
    let text = text_of(Command::new("dpkg-deb").arg("--contents").arg(package));
    let parts = |line: &str| {
        let parts: Vec<&str> = line.split_whitespace().collect();
        [parts[0], parts[1], parts[5]].map(str::to_owned)
    };
    text.lines().map(parts).collect()
}

#[test]
fn the_debian_package_is_sound() {
    let place = Place::new();
    let package = build(&place);
    has_its_fields(&package);
    has_its_files(&package);
    installs_and_goes(&place, &package);
}

fn has_its_fields(package: &Path) {
    let version = env!("CARGO_PKG_VERSION");
    let architecture = text_of(Command::new("dpkg").arg("--print-architecture"));
    let name = format!("matriarch_{version}_{}.deb", architecture.trim());
    assert_eq!(package.file_name().and_then(|name| name.to_str()), Some(name.as_str()));
    assert_eq!(field(package, "Package"), "matriarch");
    assert_eq!(field(package, "Version"), version);
    assert_eq!(field(package, "Architecture"), architecture.trim());
    assert!(field(package, "Depends").starts_with("libc6 (>= 2."), "{}", field(package, "Depends"));
    assert!(field(package, "Installed-Size").parse::<u32>().is_ok_and(|size| 1000 < size));
    let fields = text_of(Command::new("dpkg-deb").arg("--field").arg(package));
    assert!(!fields.split_whitespace().any(|word| word.starts_with('@')), "{fields}");
}

fn has_its_files(package: &Path) {
    let files = listed(package);
    for [mode, owner, path] in &files {
        assert_eq!(owner, "root/root", "{path}");
        let expected = match path.as_str() {
            path if path.ends_with('/') => "drwxr-xr-x",
            path if path.contains("/kubectl-matriarch") => "lrwxrwxrwx",
            path if path.starts_with("./usr/bin/") => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{path}");
    }
    let has = |wanted: &str| files.iter().any(|[_, _, path]| path == wanted);
    for wanted in [
        "./usr/bin/matriarch",
        "./usr/bin/kubectl-matriarch",
        "./usr/bin/matriarch-guard",
        "./usr/lib/systemd/system/matriarch.service",
        "./usr/share/man/man1/matriarch.1.gz",
        "./usr/share/man/man1/matriarch-switchover.1.gz",
        "./usr/share/bash-completion/completions/matriarch",
        "./usr/share/zsh/vendor-completions/_matriarch",
        "./usr/share/fish/vendor_completions.d/matriarch.fish",
        "./usr/share/doc/matriarch/copyright",
        "./usr/share/doc/matriarch/changelog.gz",
        "./usr/share/doc/matriarch/CHANGELOG.md.gz",
        "./usr/share/doc/matriarch/examples/matriarch.yml",
        "./etc/matriarch/",
    ] {
        assert!(has(wanted), "{wanted}: {files:?}");
    }
    // An installation configures, enables and starts nothing.
    let settings = files.iter().filter(|[_, _, path]| path.starts_with("./etc/") && !path.ends_with('/'));
    assert_eq!(settings.count(), 0, "{files:?}");
}

/// dpkg below a root of its own.
fn dpkg(root: &Path, words: &[&str]) -> Command {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg(format!("--root={}", root.display())).args(["--force-not-root", "--force-script-chrootless"]);
    dpkg.args(["--force-depends", "--force-bad-path", "--log=/dev/null"]).args(words).env("LC_ALL", "C");
    dpkg
}

/// Installs into an empty root, upgrades, removes.
fn installs_and_goes(place: &Place, package: &Path) {
    let root = place.folder("root");
    for folder in ["var/lib/dpkg/updates", "var/lib/dpkg/info"] {
        std::fs::create_dir_all(root.join(folder)).expect("our own place is writable");
    }
    std::fs::write(root.join("var/lib/dpkg/status"), "").expect("our own place is writable");
    let package = package.to_string_lossy().into_owned();
    let said = text_of(&mut dpkg(&root, &["--install", &package]));
    assert!(said.contains("nothing was started") && said.contains("matriarch check"), "{said}");
    let installed = root.join("usr/bin/matriarch");
    let version = text_of(Command::new(&installed).arg("--version"));
    assert_eq!(version.trim(), concat!("matriarch ", env!("CARGO_PKG_VERSION")));
    let guard = output_of(&mut Command::new(root.join("usr/bin/matriarch-guard")));
    assert!(String::from_utf8_lossy(&guard.stderr).starts_with("matriarch-guard: "), "{guard:?}");
    // What would start it with the machine.
    assert!(!root.join("etc/systemd").exists());

    let again = text_of(&mut dpkg(&root, &["--install", &package]));
    assert!(!again.contains("nothing was started"), "{again}");
    std::fs::write(root.join("etc/matriarch/matriarch.yml"), "scope: a").expect("our own place is writable");
    text_of(&mut dpkg(&root, &["--purge", "matriarch"]));
    assert!(!installed.exists() && !root.join("usr/lib/systemd").exists());
    // The operator's own file stays.
    assert!(root.join("etc/matriarch/matriarch.yml").exists());
}

/// In what follows an upgrade and precedes a removal, no command stops, starts or enables a unit.
#[test]
fn the_scripts_of_the_package_leave_the_supervisor_alone() {
    for script in ["postinst", "prerm", "postrm"] {
        let text = std::fs::read_to_string(repository("deploy/debian").join(script)).expect("it is there");
        let called = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let asks = |line: &str| line.contains("daemon-reload") || line.contains("is-active");
        let commands = called.filter(|line| {
            line.starts_with("systemctl ") || line.contains("if systemctl ") || line.contains("&& systemctl ")
        });
        for line in commands {
            assert!(asks(line), "{script}: {line}");
        }
        text_of(Command::new("sh").arg("-n").arg(repository("deploy/debian").join(script)));
    }
}
