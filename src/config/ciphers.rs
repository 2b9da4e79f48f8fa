//! `restapi.ciphers`: ciphers of TLS 1.2 in the form of OpenSSL's lists.

/// The ciphers, each with further names of groups that it belongs to: its parts are such names as well.
const CIPHERS: [(&str, &[&str]); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", &["AESGCM", "AES", "aECDSA", "AES256"]),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", &["AESGCM", "AES", "aECDSA", "AES128"]),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", &["aECDSA"]),
    ("ECDHE-RSA-AES256-GCM-SHA384", &["AESGCM", "AES", "aRSA", "AES256"]),
    ("ECDHE-RSA-AES128-GCM-SHA256", &["AESGCM", "AES", "aRSA", "AES128"]),
    ("ECDHE-RSA-CHACHA20-POLY1305", &["aRSA"]),
];
/// Groups of all of them.
const ALL: [&str; 8] = ["ALL", "DEFAULT", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2"];

/// What a list means here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CipherChoice {
    /// The ciphers, by their names in OpenSSL.
    pub(super) chosen: Vec<&'static str>,
    /// Words that choose none.
    pub(super) unknown: Vec<String>,
}

/// The names of all ciphers, for messages.
pub(super) fn known() -> String {
    CIPHERS.map(|(name, _)| name).join(", ")
}

/// Reads a list. `!` and `-` before a word take its ciphers out. The order, and `+` and `@` before a word, mean
/// nothing: the client's order counts.
pub(super) fn choose(list: &str) -> CipherChoice {
    let mut choice = CipherChoice::default();
    let mut forbidden = Vec::new();
    for word in list.split([':', ',', ' ', ';']).filter(|word| !word.is_empty()) {
        if let Some(word) = word.strip_prefix('!') {
            forbidden.extend(meant(word));
        } else if let Some(word) = word.strip_prefix('-') {
            choice.chosen.retain(|name| !meant(word).contains(name));
        } else if !word.starts_with(['+', '@']) {
            let meant = meant(word);
            choice.unknown.extend(meant.is_empty().then(|| word.to_owned()));
            choice.chosen.extend(meant);
        }
    }
    choice.chosen.retain(|name| !forbidden.contains(name));
    choice.chosen.sort_unstable();
    choice.chosen.dedup();
    choice
}

/// The ciphers of a word: a name, a group, or groups with `+` between them, which all have to have it.
fn meant(word: &str) -> Vec<&'static str> {
    let has = |name: &str, groups: &[&str], group: &str| {
        name == group
            || ALL.contains(&group)
            || groups.contains(&group)
            || name.split('-').any(|part| part == group)
    };
    let has_all = |(name, groups): &&(&str, &[&str])| word.split('+').all(|group| has(name, groups, group));
    CIPHERS.iter().filter(has_all).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_as_openssl_reads_them() {
        for (list, expected) in [
            ("ECDHE-RSA-AES256-GCM-SHA384", &["ECDHE-RSA-AES256-GCM-SHA384"][..]),
            ("ECDHE+AESGCM:!aECDSA", &["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]),
            ("HIGH:!aNULL:!MD5:-CHACHA20:!RSA:!AES128:@STRENGTH", &["ECDHE-ECDSA-AES256-GCM-SHA384"]),
            ("CHACHA20", &["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"]),
            ("!AES128:AES128:CHACHA20+RSA", &["ECDHE-RSA-CHACHA20-POLY1305"]),
            ("RSA:-RSA", &[]),
        ] {
            let choice = choose(list);
            assert_eq!((choice.chosen.as_slice(), choice.unknown.len()), (expected, 0), "{list}");
        }
        assert_eq!(choose("DEFAULT:!DSS").chosen.len(), 6);
        let unknown = choose("DHE-RSA-AES256-GCM-SHA384:AES256-SHA:ECDHE");
        assert_eq!(unknown.unknown, ["DHE-RSA-AES256-GCM-SHA384", "AES256-SHA"]);
        assert_eq!(unknown.chosen.len(), 6);
    }
}
