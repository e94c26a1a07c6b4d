//! Comma-separated values, as options and `csvdecode` have them (RFC 4180).

/// The fields of one line.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut rows = rows(text)?;
    match rows.len() {
        0 => Ok(Vec::new()),
        1 => Ok(rows.remove(0)),
        _ => Err(format!("`{}` has more than one line", text.trim())),
    }
}

/// The fields of all lines; empty lines are left out.
pub(super) fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut field = String::new();
    // Whether something of the current row was read.
    let mut begun = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if field.is_empty() => {
                begun = true;
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                        Some('"') => break,
                        Some(c) => field.push(c),
                        None => return Err(format!("`{text}` has a quote without an end")),
                    }
                }
                if !matches!(chars.peek(), None | Some(',' | '\r' | '\n')) {
                    return Err(format!("`{text}` has something after a closing quote"));
                }
            }
            '"' => return Err(format!("`{text}` has a quote inside a field")),
            ',' => {
                begun = true;
                row.push(std::mem::take(&mut field));
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                if begun {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
                begun = false;
            }
            c => {
                begun = true;
                field.push(c);
            }
        }
    }
    if begun {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas_and_lines() {
        assert_eq!(fields("a,b=c").unwrap(), ["a", "b=c"]);
        assert_eq!(fields("\"a,\"\"b\",c").unwrap(), ["a,\"b", "c"]);
        assert_eq!(fields("").unwrap(), Vec::<String>::new());
        assert_eq!(fields("a,").unwrap(), ["a", ""]);
        assert_eq!(
            rows("a,b\r\n\n\"c\nd\",e\n").unwrap(),
            [["a", "b"], ["c\nd", "e"]]
        );
        for wrong in ["\"a", "\"a\"b", "a\"b", "a\nb"] {
            assert!(fields(wrong).is_err(), "{wrong}");
        }
    }
}
