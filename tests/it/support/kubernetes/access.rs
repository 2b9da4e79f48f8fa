//! Bearer tokens, and what their subjects may do.

use std::collections::BTreeMap;

use super::resource::Resource;

/// What a Role grants, rule by rule: API group, resource (with its subresource), verbs.
pub(crate) type Grants<'a> = &'a [(&'a str, &'a str, &'a [&'a str])];

/// Who may come in.
#[derive(Default)]
pub(crate) struct Access {
    tokens: BTreeMap<String, String>,
    grants: BTreeMap<String, Vec<(String, String, Vec<String>)>>,
    issued: usize,
}

impl Access {
    /// A new token of this subject; older ones stay good.
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

    /// From now on this subject may do this, and nothing else. A subject without grants may do everything.
    pub(crate) fn grant(&mut self, subject: &str, grants: Grants<'_>) {
        let owned = grants.iter().map(|(group, resource, verbs)| {
            let verbs = verbs.iter().map(|verb| (*verb).to_owned()).collect();
            ((*group).to_owned(), (*resource).to_owned(), verbs)
        });
        self.grants.insert(subject.to_owned(), owned.collect());
    }

    /// Whose token an `Authorization` holds.
    pub(crate) fn subject(&self, authorization: Option<&str>) -> Option<String> {
        self.tokens.get(authorization?.strip_prefix("Bearer ")?.trim()).cloned()
    }

    /// Whether the subject may do that.
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
