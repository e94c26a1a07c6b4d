//! Any word with variables: it is expanded within the promised length, or refused.
//!
//! The first byte chooses the variant, the first line the values of `a` and `b`.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::{Corpus, fuzz_target};
use memobuild_ci::dockerfile::expand::Expander;

/// What the expander promises of its result, in bytes.
const LONGEST: usize = 4 << 20;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&variant, rest)) = data.split_first() else {
        return Corpus::Reject;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return Corpus::Reject;
    };
    let (values, text) = text.split_once('\n').unwrap_or(("", text));
    let (a, b) = values.split_once(' ').unwrap_or((values, ""));
    let variables = BTreeMap::from([
        ("a".to_owned(), a.to_owned()),
        ("b".to_owned(), b.to_owned()),
        ("empty".to_owned(), String::new()),
    ]);
    let escape = if variant & 1 == 0 { '\\' } else { '`' };
    let expander = Expander {
        keep_quotes: variant & 2 != 0,
        keep_escapes: variant & 4 != 0,
        plain_quotes: variant & 8 != 0,
        keep_unset: variant & 16 != 0,
        ..Expander::new(escape)
    };
    let result = expander.expand(text, &variables);
    let words = expander.words(text, &variables);
    assert_eq!(words.err(), result.clone().err());
    match result {
        Ok(expansion) => {
            assert!(expansion.text.len() <= LONGEST);
            assert!(
                expansion
                    .used
                    .iter()
                    .all(|name| variables.contains_key(name))
            );
            assert!(
                expansion
                    .unset
                    .iter()
                    .all(|name| !variables.contains_key(name))
            );
            // Without special characters nothing changes.
            if !text.contains(['$', '"', '\'', escape]) {
                assert_eq!(expansion.text, text);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Corpus::Keep
});
