//! Splits `*_CMD_ARGS` and commands of the control interface into words, as a POSIX shell and Python's `shlex` do.

/// The text ends within a word. The messages are those of `shlex`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfinished {
    #[error("No closing quotation")]
    Quotation,
    #[error("No escaped character")]
    Escape,
}

/// The words, or why there are none.
pub(crate) fn split(text: &str) -> Result<Vec<String>, Unfinished> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(Unfinished::Quotation)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().ok_or(Unfinished::Escape)?),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Between double quotes a backslash escapes only itself and the quote.
fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), Unfinished> {
    loop {
        match chars.next().ok_or(Unfinished::Quotation)? {
            '"' => return Ok(()),
            '\\' => {
                let escaped = chars.next().ok_or(Unfinished::Escape)?;
                if !matches!(escaped, '"' | '\\') {
                    word.push('\\');
                }
                word.push(escaped);
            }
            c => word.push(c),
        }
    }
}

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
        assert_eq!(split("'a"), Err(Unfinished::Quotation));
        assert_eq!(split("a\\"), Err(Unfinished::Escape));
    }
}
