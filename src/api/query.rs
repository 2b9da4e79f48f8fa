//! The part of a URL after `?`, as Python's `parse_qs` reads it.

/// Decoded pairs in order, without those that have no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=1&b=x%20y`. Never fails: text that cannot be decoded stays unchanged.
    pub fn parse(text: &str) -> Query {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=')?;
            (!value.is_empty()).then(|| (decoded(key), decoded(value)))
        };
        Query(text.split('&').filter_map(pair).collect())
    }

    /// The first value of `key`.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Every key with `prefix`, without the prefix, with its first value.
    pub fn starting_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(move |(key, _)| Some((key.strip_prefix(prefix)?, self.first(key)?)))
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = bytes.get(index + 1..index + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[index], hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                index += 3;
                continue;
            }
            (b'+', _) => plain.push(b' '),
            (byte, _) => plain.push(byte),
        }
        index += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_key_counts_and_empty_ones_do_not() {
        let query = Query::parse("lag=&lag=10MB&lag=1&tag_d%63=a+b%2&x");
        assert_eq!(query.first("lag"), Some("10MB"));
        assert_eq!(query.first("x"), None);
        assert_eq!(query.starting_with("tag_").collect::<Vec<_>>(), [("dc", "a b%2")]);
    }
}
