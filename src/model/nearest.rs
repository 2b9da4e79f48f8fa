//! The known name that is most similar to an unknown name.

/// A word with more edits is not a typing mistake.
const EDITS_MAX: usize = 3;

/// The key that is nearest to `key`, if it is near enough.
pub fn nearest<'a>(key: &str, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = keys.map(|known| (strsim::levenshtein(key, known), known)).min()?;
    (near.0 <= EDITS_MAX.min(key.chars().count() / 2)).then_some(near.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_mistakes_and_nothing_else() {
        let keys = ["listen", "connect_address", "data_dir"];
        assert_eq!(nearest("lisen", keys.into_iter()), Some("listen"));
        assert_eq!(nearest("conect_adress", keys.into_iter()), Some("connect_address"));
        assert_eq!(nearest("shoe_size", keys.into_iter()), None);
    }
}
