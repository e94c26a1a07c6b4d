//! The forms of expansion, with the results that BuildKit gives.

use std::collections::BTreeMap;

use crate::dockerfile::expand::{ExpandError, Expander};

fn variables() -> BTreeMap<String, String> {
    [
        ("x", "value"),
        ("empty", ""),
        ("path", "/usr/local/lib/a.tar.gz"),
        ("stars", "a*b*c"),
        ("spaced", "one two"),
        ("PWD", "/home"),
        ("repeat", "foofoo"),
        ("slash", "a/b/c"),
        ("héé", "unicode"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .into()
}

#[test]
fn words_expand_as_in_buildkit() {
    for (text, expected) in [
        ("", ""),
        ("hello", "hello"),
        ("he'll'o", "hello"),
        ("he\"ll\"o", "hello"),
        ("he\\'llo", "he'llo"),
        ("he\\\\llo", "he\\llo"),
        ("hello\\", "hello"),
        ("'single $x'", "single $x"),
        ("\"double $x\"", "double value"),
        ("\"a 'quoted' b\"", "a 'quoted' b"),
        ("'a \"quoted\" b'", "a \"quoted\" b"),
        ("\"esc \\\" \\$x \\\\ \\a\"", "esc \" $x \\ \\a"),
        ("$x", "value"),
        ("${x}", "value"),
        ("$x$x", "valuevalue"),
        ("$x.$x", "value.value"),
        ("${x}s", "values"),
        ("$xs", ""),
        ("a$", "a$"),
        ("a$.b", "a$.b"),
        ("\\$x", "$x"),
        ("$1x", "x"),
        ("$héé", "unicode"),
        ("${unset}", ""),
        ("${unset:-d}", "d"),
        ("${unset-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${x:-d}", "value"),
        ("${unset:-$x}", "value"),
        ("${unset:-${empty:-${x}}}", "value"),
        ("${unset:-'a b'}", "a b"),
        ("${unset:-\"$x\"}", "value"),
        ("${unset:-}", ""),
        ("${unset:-a\\}b}", "a}b"),
        ("${x:+set}", "set"),
        ("${x+set}", "set"),
        ("${empty:+set}", ""),
        ("${empty+set}", "set"),
        ("${unset:+set}", ""),
        ("${unset+set}", ""),
        ("${x:?no}", "value"),
        ("${x?no}", "value"),
        ("${empty?no}", ""),
        ("${path#*/}", "usr/local/lib/a.tar.gz"),
        ("${path##*/}", "a.tar.gz"),
        ("${path%.*}", "/usr/local/lib/a.tar"),
        ("${path%%.*}", "/usr/local/lib/a"),
        ("${path#/usr}", "/local/lib/a.tar.gz"),
        ("${path#usr}", "/usr/local/lib/a.tar.gz"),
        ("${path%gz}", "/usr/local/lib/a.tar."),
        ("${path%/*}", "/usr/local/lib"),
        ("${path#????}", "/local/lib/a.tar.gz"),
        ("${stars#a\\*}", "b*c"),
        ("${stars%\\**}", "a*b"),
        ("${stars%%\\**}", "a"),
        ("${unset#a}", ""),
        ("${repeat/foo/bar}", "barfoo"),
        ("${repeat//foo/bar}", "barbar"),
        ("${repeat/o*/x}", "fx"),
        ("${repeat//o/}", "ff"),
        ("${slash/\\//-}", "a-b/c"),
        ("${slash//\\//-}", "a-b-c"),
        ("${slash//?/x}", "xxxxx"),
        ("${repeat/foo/$x}", "valuefoo"),
        ("${repeat/nothing/x}", "foofoo"),
        ("${unset/a/b}", ""),
        ("a < b << c", "a < b << c"),
        ("$(command)", "$(command)"),
        ("`tick`", "`tick`"),
    ] {
        let result = Expander::new('\\').expand(text, &variables());
        assert_eq!(result.map(|e| e.text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn faults_are_named() {
    let quote = |quote| ExpandError::OpenQuote { quote };
    let modifier = |modifier: &str| ExpandError::Modifier {
        modifier: modifier.to_owned(),
    };
    let required = |message: &str| ExpandError::Required {
        name: "unset".to_owned(),
        message: message.to_owned(),
    };
    for (text, expected) in [
        ("'a", quote('\'')),
        ("\"a", quote('"')),
        ("${x", ExpandError::OpenBrace),
        ("${", ExpandError::OpenBrace),
        ("${x:", ExpandError::OpenBrace),
        ("${x:-a", ExpandError::OpenBrace),
        ("${}", ExpandError::NoName),
        ("${{x}}", ExpandError::NoName),
        ("${:x}", ExpandError::NoName),
        ("${x:#a}", modifier(":#")),
        ("${x=a}", modifier("=")),
        ("${x@Q}", modifier("@")),
        ("${unset?}", required("it must be set")),
        ("${unset:?message}", required("message")),
        ("${x/a}", ExpandError::NoSlash),
        ("${x/a/b", ExpandError::OpenBrace),
        (
            "${x#\\a}",
            ExpandError::Pattern {
                pattern: "\\a".to_owned(),
            },
        ),
    ] {
        let result = Expander::new('\\').expand(text, &variables());
        assert_eq!(result.map(|e| e.text), Err(expected), "{text}");
    }
    let bomb = BTreeMap::from([("x".to_owned(), "y".repeat(1 << 20))]);
    for text in [
        "$x".repeat(5),
        "\"$x$x$x$x$x\"".to_owned(),
        "${x//y/$x}".to_owned(),
    ] {
        let result = Expander::new('\\').expand(&text, &bomb);
        assert_eq!(result, Err(ExpandError::TooLong), "{text}");
    }
    // A value that is also the pattern, and one that a pattern makes longer and longer.
    for text in ["${x#$x}", "${x%%*$x}", "${x/$x/}", "${x%${x///ab}}"] {
        let result = Expander::new('\\').expand(text, &bomb);
        assert_eq!(result, Err(ExpandError::TooMuch), "{text}");
    }
    let deep = "${a:-".repeat(100_000);
    let result = Expander::new('\\').expand(&deep, &variables());
    assert_eq!(result, Err(ExpandError::TooDeep));
}

#[test]
fn words_split_after_expansion_but_not_inside_quotes() {
    for (text, expected) in [
        ("a b", vec!["a", "b"]),
        ("'a b' c", vec!["a b", "c"]),
        ("$spaced three", vec!["one", "two", "three"]),
        ("\"$spaced\" three", vec!["one two", "three"]),
        ("a\\ b", vec!["a b"]),
        ("  a  ", vec!["a"]),
        ("cat << EOF", vec!["cat", "<< EOF"]),
    ] {
        let result = Expander::new('\\').words(text, &variables()).unwrap();
        assert_eq!(result, expected, "{text}");
    }
}

#[test]
fn variants_keep_what_they_say() {
    let base = Expander::new('\\');
    let text = |expander: Expander, text: &str| expander.expand(text, &variables()).unwrap().text;
    let keep_unset = Expander {
        keep_unset: true,
        ..base
    };
    for form in ["$u", "${u}", "${u:-a}", "${u#a}", "${u/a/b}", "${u//a/b}"] {
        assert_eq!(text(keep_unset, form), form);
    }
    let keep_quotes = Expander {
        keep_quotes: true,
        ..base
    };
    assert_eq!(text(keep_quotes, "'$x' \"$x\""), "'$x' \"value\"");
    assert_eq!(
        text(Expander::heredoc(), "'$x' \"$x\""),
        "'value' \"value\""
    );
    assert_eq!(text(Expander::heredoc(), "\\$x \\\\"), "$x \\");
    assert_eq!(text(Expander::new('`'), "`$x C:\\dir"), "$x C:\\dir");
    assert_eq!(text(Expander::new('`'), "\"`\" \\\""), "\" \\");
}

#[test]
fn used_and_unset_variables_are_reported() {
    let result = Expander::new('\\')
        .expand("$x $u ${v:-d} ${w}", &variables())
        .unwrap();
    assert_eq!(Vec::from_iter(result.used), ["x"]);
    assert_eq!(Vec::from_iter(result.unset), ["u", "v", "w"]);
}
