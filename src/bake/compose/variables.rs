//! Variables in compose files, and files that set some.
//!
//! Source: <https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md>.

use std::collections::BTreeMap;

/// How deep defaults may be nested.
const MAX_DEPTH: usize = 50;

/// A variable's value.
type Lookup<'l> = &'l mut dyn FnMut(&str) -> Option<String>;

/// Replaces `$NAME`, `${NAME}` and `${NAME:-default}` with its relatives; `$$` is a dollar.
/// A variable that isn't set is empty.
pub(super) fn interpolate(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    nested(text, lookup, 0)
}

fn nested(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    if depth > MAX_DEPTH {
        return Err("variables are nested too deep".to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix('{') {
            let end =
                closing(inside).ok_or_else(|| format!("`${{{inside}` has no closing brace"))?;
            out.push_str(&braced(&inside[..end], lookup, depth)?);
            rest = &inside[end + 1..];
        } else {
            let end = name_length(rest);
            if end == 0 {
                return Err(format!(
                    "`${rest}` does not begin with the name of a variable; a dollar is written `$$`"
                ));
            }
            out.push_str(&lookup(&rest[..end]).unwrap_or_default());
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The place of the brace that closes an open one.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

fn name_length(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match starts {
        true => text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len()),
        false => 0,
    }
}

/// What stands in braces.
fn braced(text: &str, lookup: Lookup<'_>, depth: usize) -> Result<String, String> {
    let (name, operator) = text.split_at(name_length(text));
    if name.is_empty() {
        return Err(format!(
            "`${{{text}}}` does not begin with the name of a variable"
        ));
    }
    let value = lookup(name);
    if operator.is_empty() {
        return Ok(value.unwrap_or_default());
    }
    let (colon, operator) = match operator.strip_prefix(':') {
        Some(operator) => (true, operator),
        None => (false, operator),
    };
    let set = value.filter(|value| !colon || !value.is_empty());
    let word = operator.get(1..).unwrap_or_default();
    match (operator.chars().next(), set) {
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => nested(word, lookup, depth + 1),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => {
            let message = nested(word, lookup, depth + 1)?;
            Err(format!("variable `{name}` is needed: {message}"))
        }
        _ => Err(format!("`${{{text}}}` has an unknown operator")),
    }
}

/// Reads lines of `NAME=VALUE`, as `.env` files have them. `lookup` knows the environment.
pub(super) fn env_file(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut out = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let plain = line.trim_start();
        if plain.is_empty() || plain.starts_with('#') {
            rest = after;
            continue;
        }
        let plain = plain.strip_prefix("export ").unwrap_or(plain).trim_start();
        let Some((name, value)) = plain.split_once(['=', ':']) else {
            // A name alone is taken from the environment.
            let name = plain.trim_end();
            if name.contains(char::is_whitespace) {
                return Err(format!("`{name}` is not `NAME=VALUE`"));
            }
            if let Some(value) = lookup(name) {
                out.insert(name.to_owned(), value);
            }
            rest = after;
            continue;
        };
        let name = name.trim();
        let value = value.trim_start_matches([' ', '\t']);
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (raw, expand) = match quote {
            Some(quote) => {
                // What is quoted may have several lines.
                let start = rest.len()
                    - after.len()
                    - usize::from(!after.is_empty() || rest.ends_with('\n'))
                    - value.len();
                let inside = &rest[start + 1..];
                let end = closing_quote(inside, quote)
                    .ok_or_else(|| format!("the value of `{name}` has no closing quote"))?;
                rest = inside[end + 1..]
                    .split_once('\n')
                    .map_or("", |(_, after)| after);
                match quote {
                    '"' => (unescaped(&inside[..end]), true),
                    _ => (inside[..end].to_owned(), false),
                }
            }
            None => {
                rest = after;
                let end = value.find(" #").unwrap_or(value.len());
                (value[..end].trim_end().to_owned(), true)
            }
        };
        let value = match expand {
            true => interpolate(&raw, &mut |name| {
                lookup(name).or_else(|| out.get(name).cloned())
            })?,
            false => raw,
        };
        out.insert(name.to_owned(), value);
    }
    Ok(out)
}

fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if c == quote && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped && quote == '"';
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn operators() {
        for (text, value) in [
            ("x$A-${A}y", "xa-ay"),
            ("$$A $${A}", "$A ${A}"),
            ("${NO:-d}${EMPTY:-e}${EMPTY-f}", "de"),
            ("${NO-${A}}", "a"),
            ("${NO:-${ALSO:-deep}}", "deep"),
            ("${A:+yes}${NO+no}${EMPTY:+no}${EMPTY+set}", "yesset"),
            ("${A?x}", "a"),
            ("$NO", ""),
        ] {
            assert_eq!(
                interpolate(text, &mut known).as_deref(),
                Ok(value),
                "{text}"
            );
        }
        for wrong in ["${A", "${}", "$1", "${A!x}", "${NO?gone}", "${EMPTY:?gone}"] {
            assert!(interpolate(wrong, &mut known).is_err(), "{wrong}");
        }
        assert!(interpolate(&"${N:-".repeat(100_000), &mut known).is_err());
    }

    #[test]
    fn lines_of_an_env_file() {
        let text = "# comment\nX=1\nexport Y = two # rest\nZ='li$A'\nW=\"a\\n$A ${X}\"\nM=\"one\ntwo\"\nA\n\nL=end";
        let vars = env_file(text, &known).unwrap();
        let expected = [
            ("A", "a"),
            ("L", "end"),
            ("M", "one\ntwo"),
            ("W", "a\na 1"),
            ("X", "1"),
            ("Y", "two"),
            ("Z", "li$A"),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(vars, BTreeMap::from(expected));
        assert!(env_file("X='open\n", &known).is_err());
        assert!(env_file("not a pair\n", &known).is_err());
    }
}
