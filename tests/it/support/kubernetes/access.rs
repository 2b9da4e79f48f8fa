//! Bearer tokens, and the rights of their subjects.

use std::collections::BTreeMap;

use super::resource::Resource;

/// The rules of a Role: API group, resource (with its subresource), verbs.
pub(crate) type Grants<'a> = &'a [(&'a str, &'a str, &'a [&'a str])];

/// The valid tokens, and the rights.
#[derive(Default)]
pub(crate) struct Access {
    tokens: BTreeMap<String, String>,
    grants: BTreeMap<String, Vec<(String, String, Vec<String>)>>,
    issued: usize,
}

impl Access {
    /// A new token of this subject; older ones stay valid.
    pub(crate) fn issue(&mut self, subject: &str) -> String {
        self.issued += 1;
        let token = format!("token-{}-of-{subject}", self.issued);
        self.tokens.insert(token.clone(), subject.to_owned());
        token
    }

    /// All tokens of this subject have expired.
    pub(crate) fn expire(&mut self, subject: &str) {
        self.tokens.retain(|_, owner| owner != subject);
    }

    /// From now on this subject has these rights, and no others. A subject without such a list may do everything.
    pub(crate) fn grant(&mut self, subject: &str, grants: Grants<'_>) {
        let owned = grants.iter().map(|(group, resource, verbs)| {
            let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
            ((*group).to_owned(), (*resource).to_owned(), verbs)
        });
        self.grants.insert(subject.to_owned(), owned.collect());
    }

    /// The subject of the token in an `Authorization` header.
    pub(crate) fn subject(&self, authorization: Option<&str>) -> Option<String> {
        self.tokens.get(authorization?.strip_prefix("Bearer ")?.trim()).cloned()
    }

    /// Whether the subject has this right.
    pub(crate) fn allows(&self, subject: &str, verb: &str, resource: &Resource, subresource: &str) -> bool {
        let wanted = match subresource {
            "" => resource.plural.to_owned(),
            subresource => format!("{}/{subresource}", resource.plural),
        };
        self.grants.get(subject).is_none_or(|grants| {
            grants.iter().any(|(group, granted, verbs)| {
                group == resource.group && *granted == wanted && verbs.iter().any(|one| one == verb)
            })
        })
    }
}
