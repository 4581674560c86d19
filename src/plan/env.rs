//! Variables in the order in which they were last set.

/// A list of variables; setting one that is there moves it to the end, as BuildKit's does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Env {
    pairs: Vec<(String, String)>,
}

impl Env {
    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Sets `name`.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.pairs.retain(|(k, _)| *k != name);
        self.pairs.push((name, value.into()));
    }

    /// Sets `name` to `value`, or takes it away.
    pub(super) fn set_or_remove(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => self.set(name, value),
            None => self.pairs.retain(|(k, _)| k != name),
        }
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(k, _)| k.as_str())
    }

    /// Names and values.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

/// `NAME=value` at the first `=`; without one, the value is empty.
pub(super) fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Sets `name` in a list of `NAME=value`: in place when it is there, else at the end (the order of an image's `Env`).
pub(super) fn set_in_list(list: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match list.iter_mut().find(|p| split(p).0 == name) {
        Some(old) => *old = pair,
        None => list.push(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_again_moves_to_the_end() {
        let mut env = Env::default();
        for (k, v) in [("a", "1"), ("b", "2"), ("a", "3")] {
            env.set(k, v);
        }
        assert_eq!(env.pairs(), [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "3".to_owned())]);
        assert_eq!(env.get("a"), Some("3"));
        env.set_or_remove("a", None);
        assert_eq!(env.get("a"), None);
    }

    #[test]
    fn a_list_keeps_its_order() {
        let mut list = vec!["A=1".to_owned(), "B".to_owned()];
        set_in_list(&mut list, "A", "x=y");
        set_in_list(&mut list, "B", "2");
        set_in_list(&mut list, "C", "");
        assert_eq!(list, ["A=x=y", "B=2", "C="]);
    }
}
