//! Plain text in 80 columns: wrapped sentences with a hanging indent.

/// The width of a line.
const WIDTH: usize = 80;

/// `head` and the words of `text` after it; further lines begin below the text.
pub fn hanging(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let mut all = String::new();
    let (mut line, mut column) = (head.to_owned(), indent);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        let space = usize::from(indent < column);
        if indent < column && WIDTH < column + space + length {
            all.push_str(line.trim_end());
            all.push('\n');
            (line, column) = (" ".repeat(indent), indent);
        }
        if indent < column {
            line.push(' ');
            column += 1;
        }
        line.push_str(word);
        column += length;
    }
    all.push_str(line.trim_end());
    all.push('\n');
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sentences_are_wrapped_below_their_head() {
        let text = hanging("Cause     ", &"word ".repeat(20));
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("          word")), "{text}");
        assert_eq!(hanging("a  ", ""), "a\n");
        assert_eq!(hanging("", &"x".repeat(100)), format!("{}\n", "x".repeat(100)), "no word is cut");
    }
}
