//! Splits `*_CMD_ARGS`, and commands of the control interface, into words as a POSIX shell does, which is what Python's `shlex` does too.

/// The words, or why there are none.
pub(crate) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(UNCLOSED)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().ok_or(UNESCAPED)?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Between double quotes a backslash escapes only itself and the quote.
fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match chars.next().ok_or(UNCLOSED)? {
            '"' => return Ok(()),
            '\\' => {
                let escaped = chars.next().ok_or(UNESCAPED)?;
                if !matches!(escaped, '"' | '\\') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            c => word.push(c),
        }
    }
}

const UNCLOSED: &str = "No closing quotation";
const UNESCAPED: &str = "No escaped character";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_a_shell() {
        let words = |text| split(text).unwrap_or_default();
        assert_eq!(words("  -w 4\t--bind=:80 "), ["-w", "4", "--bind=:80"]);
        assert_eq!(
            words(r#"--name 'a b' "c \" \n" d\ e ''"#),
            ["--name", "a b", "c \" \\n", "d e", ""]
        );
        assert_eq!(words("a'b'\"c\" #x"), ["abc", "#x"]);
        assert_eq!(split("'a"), Err("No closing quotation"));
        assert_eq!(split("a\\"), Err("No escaped character"));
    }
}
