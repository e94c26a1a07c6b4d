//! Constraints on versions, as `semvercmp` takes them.
//!
//! Source: the documentation of <https://github.com/Masterminds/semver>.

use std::cmp::Ordering;

/// A version; parts that are not given, or `x`, are none.
#[derive(Debug, Clone)]
struct Version {
    parts: [Option<u64>; 3],
    pre: Vec<String>,
}

impl Version {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a version");
        let plain = text.trim().trim_start_matches('v');
        let (plain, _) = plain.split_once('+').unwrap_or((plain, ""));
        let (numbers, pre) = match plain.split_once('-') {
            Some((_, "")) => return Err(wrong()),
            Some((numbers, pre)) => (numbers, pre.split('.').map(str::to_owned).collect()),
            None => (plain, Vec::new()),
        };
        let mut parts = [None; 3];
        let given: Vec<&str> = numbers.split('.').collect();
        if given.len() > 3 || numbers.is_empty() {
            return Err(wrong());
        }
        for (part, given) in parts.iter_mut().zip(given) {
            *part = match given {
                "x" | "X" | "*" => None,
                digits => Some(digits.parse().map_err(|_| wrong())?),
            };
        }
        Ok(Self { parts, pre })
    }

    fn numbers(&self) -> [u64; 3] {
        self.parts.map(Option::unwrap_or_default)
    }

    fn order(&self, other: &Self) -> Ordering {
        self.numbers().cmp(&other.numbers()).then_with(|| {
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => pre_order(&self.pre, &other.pre),
            }
        })
    }

    /// The first version after all that begin with the first `count` parts of this.
    fn after(&self, count: usize) -> Self {
        let mut numbers = self.numbers();
        for number in &mut numbers[count..] {
            *number = 0;
        }
        if let Some(last) = count.checked_sub(1) {
            numbers[last] = numbers[last].saturating_add(1);
        }
        Self {
            parts: numbers.map(Some),
            pre: Vec::new(),
        }
    }

    /// How many parts are given.
    fn given(&self) -> usize {
        self.parts.iter().take_while(|part| part.is_some()).count()
    }
}

fn pre_order(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// Whether `version` meets `constraint`.
pub(super) fn satisfies(version: &str, constraint: &str) -> Result<bool, String> {
    let version = Version::parse(version)?;
    let mut any = false;
    for alternative in constraint.split("||") {
        any |= all(&version, alternative)?;
    }
    Ok(any)
}

/// Whether `version` meets all of the constraints in `text`.
fn all(version: &Version, text: &str) -> Result<bool, String> {
    if let Some((low, high)) = text.split_once(" - ") {
        return Ok(one(version, ">=", low)? & one(version, "<=", high)?);
    }
    let mut met = true;
    let mut some = false;
    // A space may stand between operator and version, and between constraints.
    let mut operator = String::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let end = word.find(|c| !"=!<>~^".contains(c)).unwrap_or(word.len());
        operator.push_str(&word[..end]);
        if end == word.len() {
            continue;
        }
        met &= one(version, &operator, &word[end..])?;
        some = true;
        operator.clear();
    }
    if !some {
        return Err(format!("`{text}` is not a constraint on versions"));
    }
    Ok(met)
}

fn one(version: &Version, operator: &str, text: &str) -> Result<bool, String> {
    let wanted = Version::parse(text)?;
    let given = wanted.given();
    // A version before a release is meant only where one is named.
    if !version.pre.is_empty() && wanted.pre.is_empty() && operator != "!=" {
        return Ok(false);
    }
    let order = version.order(&wanted);
    let below = |end: Version| version.order(&end).is_lt();
    let inside = order.is_ge() && (given == 0 || below(wanted.after(given)));
    Ok(match operator {
        "" | "=" | "==" if given < 3 => inside,
        "" | "=" | "==" => order.is_eq(),
        "!=" if given < 3 => !inside,
        "!=" => order.is_ne(),
        ">" if given < 3 => given > 0 && !below(wanted.after(given)),
        ">" => order.is_gt(),
        "<" => order.is_lt(),
        ">=" | "=>" => order.is_ge(),
        "<=" | "=<" if given < 3 => given == 0 || below(wanted.after(given)),
        "<=" | "=<" => order.is_le(),
        "~" | "~>" => order.is_ge() && (given == 0 || below(wanted.after(given.min(2)))),
        "^" => {
            // Up to the first part that is not zero.
            let [major, minor, _] = wanted.numbers();
            let count = match (major, minor) {
                (1.., _) => 1,
                (0, _) if given == 1 => 1,
                (0, 1..) => 2,
                (0, 0) if given == 2 => 2,
                (0, 0) => 3,
            };
            order.is_ge() && (given == 0 || below(wanted.after(count)))
        }
        _ => return Err(format!("`{operator}` is not an operator for versions")),
    })
}

#[cfg(test)]
mod tests {
    use super::satisfies;

    #[test]
    fn constraints() {
        for (version, constraint, met) in [
            ("1.2.3", ">= 1.0.0", true),
            ("1.2.3", ">=1.0.0, <1.2.0", false),
            ("1.2.3", "~1.2", true),
            ("1.3.0", "~1.2", false),
            ("1.9.0", "^1.2", true),
            ("2.0.0", "^1.2", false),
            ("0.2.5", "^0.2.3", true),
            ("0.3.0", "^0.2.3", false),
            ("1.2.3", "1.2.x", true),
            ("1.2.3", "1.x", true),
            ("2.0.0", "*", true),
            ("1.5.0", "1.2 - 1.5", true),
            ("1.2.3", "<1 || >1.1", true),
            ("1.2.3", ">1.2", false),
            ("1.2.3-beta", ">=1.0.0", false),
            ("1.2.3-beta", ">=1.2.3-alpha", true),
            ("v1.2.3", "!=1.2.4", true),
        ] {
            assert_eq!(
                satisfies(version, constraint),
                Ok(met),
                "{version} {constraint}"
            );
        }
        assert!(satisfies("x1", "1").is_err());
        assert!(satisfies("1.0.0", ">>1").is_err());
        assert!(satisfies("1.0.0", "").is_err());
    }
}
