//! The token in each form: a page of another site cannot read it, so only this member's own pages can send it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use crate::os::random;

/// A secret of this process.
pub(super) struct FormToken(String);

impl FormToken {
    /// A new one.
    pub(super) fn new() -> FormToken {
        FormToken(URL_SAFE_NO_PAD.encode(random::bytes::<32>()))
    }

    /// For the forms.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it came back, in a time that depends on the length alone.
    pub(super) fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_counts() {
        let token = FormToken::new();
        let text = token.as_str().to_owned();
        assert!(token.is(&text) && text.len() == 43);
        for wrong in ["", &text[1..], &format!("{text}="), FormToken::new().as_str()] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }
}
