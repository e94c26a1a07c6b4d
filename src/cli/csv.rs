//! One record of comma-separated values (RFC 4180), as options of `docker buildx` have them:
//! `type=oci,"annotation.note=a, b"`.

/// The fields of `text`; none where quotes are wrong. A field with a comma or a quote is quoted
/// as a whole, quotes in it are doubled.
pub(super) fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return None;
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// The field up to its closing quote, and what follows.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let quote = rest.find('"')?;
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_together() {
        for (text, expected) in [
            ("a=1,b=2", Some(vec!["a=1", "b=2"])),
            ("a", Some(vec!["a"])),
            ("", Some(vec![""])),
            ("a,", Some(vec!["a", ""])),
            (r#"type=x,"a=b,c",d"#, Some(vec!["type=x", "a=b,c", "d"])),
            (r#""a=""b"" c""#, Some(vec![r#"a="b" c"#])),
            (r#""a"#, None),
            (r#""a"b"#, None),
            (r#"a="b""#, None),
        ] {
            let expected = expected.map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(fields(text), expected, "{text}");
        }
    }
}
