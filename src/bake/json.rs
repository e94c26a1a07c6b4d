//! JSON whose values know where they stand.

use std::ops::Range;

/// Deeper nesting is refused; a parser that calls itself needs a limit.
const MAX_DEPTH: usize = 100;

/// A JSON value and its place.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    /// As it is written.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    /// In the order of the file; a name may come more than once.
    Object(Vec<(Json, Json)>),
}

impl Json {
    /// The text it is; empty for what is none.
    pub(super) fn text(&self) -> &str {
        match &self.kind {
            Kind::Text(text) => text,
            _ => "",
        }
    }

    /// What it is, for messages.
    pub(super) fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "a bool",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a string",
            Kind::Array(_) => "an array",
            Kind::Object(_) => "an object",
        }
    }
}

/// What is wrong, and the byte where.
type Wrong = (String, usize);

/// Reads one JSON value.
pub(super) fn parse(text: &str) -> Result<Json, Wrong> {
    let mut parser = Parser { text, at: 0 };
    parser.space();
    let value = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.wrong("something follows the value")),
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn wrong(&self, message: &str) -> Wrong {
        (message.to_owned(), self.at)
    }

    fn space(&mut self) {
        let rest = self.rest();
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.at += rest.len() - trimmed.len();
    }

    fn take(&mut self, token: &str) -> bool {
        let taken = self.rest().starts_with(token);
        if taken {
            self.at += token.len();
        }
        taken
    }

    fn value(&mut self, depth: usize) -> Result<Json, Wrong> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("nested too deep"));
        }
        let start = self.at;
        let kind = match self.peek() {
            Some('{') => self.object(depth)?,
            Some('[') => self.array(depth)?,
            Some('"') => Kind::Text(self.text()?),
            Some('-' | '0'..='9') => self.number()?,
            _ if self.take("null") => Kind::Null,
            _ if self.take("true") => Kind::Bool(true),
            _ if self.take("false") => Kind::Bool(false),
            _ => return Err(self.wrong("expected a value")),
        };
        Ok(Json {
            kind,
            range: start..self.at,
        })
    }

    fn number(&mut self) -> Result<Kind, Wrong> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
            .unwrap_or(rest.len());
        let text = rest[..end].to_owned();
        if serde_json::from_str::<serde_json::Number>(&text).is_err() {
            return Err(self.wrong("not a number"));
        }
        self.at += end;
        Ok(Kind::Number(text))
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        let Some((end, _)) = end else {
            return Err(self.wrong("the string has no end"));
        };
        let text = serde_json::from_str(&rest[..=end])
            .map_err(|_| self.wrong("the string has a wrong escape or a line break"))?;
        self.at += end + 1;
        Ok(text)
    }

    fn array(&mut self, depth: usize) -> Result<Kind, Wrong> {
        self.at += 1;
        let mut values = Vec::new();
        self.space();
        if self.take("]") {
            return Ok(Kind::Array(values));
        }
        loop {
            self.space();
            values.push(self.value(depth + 1)?);
            self.space();
            if self.take("]") {
                return Ok(Kind::Array(values));
            }
            if !self.take(",") {
                return Err(self.wrong("expected `,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Kind, Wrong> {
        self.at += 1;
        let mut entries = Vec::new();
        self.space();
        if self.take("}") {
            return Ok(Kind::Object(entries));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some('"') {
                return Err(self.wrong("expected a name in quotes"));
            }
            let key = Json {
                kind: Kind::Text(self.text()?),
                range: start..self.at,
            };
            self.space();
            if !self.take(":") {
                return Err(self.wrong("expected `:`"));
            }
            self.space();
            entries.push((key, self.value(depth + 1)?));
            self.space();
            if self.take("}") {
                return Ok(Kind::Object(entries));
            }
            if !self.take(",") {
                return Err(self.wrong("expected `,` or `}`"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_places() {
        let text = r#"{"a": [1, "x\"y"], "b": {"c": null}}"#;
        let json = parse(text).unwrap();
        let Kind::Object(entries) = &json.kind else {
            panic!("{json:?}");
        };
        assert_eq!(&text[entries[0].1.range.clone()], r#"[1, "x\"y"]"#);
        assert_eq!(&text[entries[1].0.range.clone()], r#""b""#);
        let Kind::Array(values) = &entries[0].1.kind else {
            panic!("{json:?}");
        };
        assert_eq!(values[1].text(), "x\"y");
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for (text, at) in [
            ("{\"a\": }", 6),
            ("[1 2]", 3),
            ("\"x", 0),
            ("{a: 1}", 1),
            ("1 2", 2),
            ("01", 0),
            ("", 0),
        ] {
            assert_eq!(parse(text).unwrap_err().1, at, "{text}");
        }
        let deep = "[".repeat(10_000);
        assert!(parse(&deep).unwrap_err().0.contains("deep"));
    }
}
