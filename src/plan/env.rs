//! Variables in the order in which they were last set.

use std::collections::{BTreeMap, HashMap};

/// What a pair takes besides its text.
const PAIR: usize = 100;

/// Variables; setting one that is there moves it to the end, as BuildKit's list does. A file may set very many.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    /// By the number of the setting.
    pairs: BTreeMap<usize, (String, String)>,
    /// The number of each name's last setting.
    last: HashMap<String, usize>,
    settings: usize,
}

impl Env {
    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.last.get(name).and_then(|n| self.pairs.get(n)).map(|(_, value)| value.as_str())
    }

    /// Sets `name`.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.settings += 1;
        if let Some(before) = self.last.insert(name.clone(), self.settings) {
            self.pairs.remove(&before);
        }
        self.pairs.insert(self.settings, (name, value.into()));
    }

    /// Sets `name` to `value`, or takes it away.
    pub(super) fn set_or_remove(&mut self, name: &str, value: Option<String>) {
        match value {
            Some(value) => self.set(name, value),
            None => {
                self.last.remove(name).and_then(|n| self.pairs.remove(&n));
            }
        }
    }

    /// The names, the one that was set last at the end.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.values().map(|(name, _)| name.as_str())
    }

    /// About how many bytes of memory a copy takes.
    pub(super) fn weight(&self) -> usize {
        self.pairs.values().map(|(name, value)| name.len() + value.len() + PAIR).sum()
    }

    /// Names and values in the same order.
    pub(super) fn pairs(&self) -> Vec<(String, String)> {
        self.pairs.values().cloned().collect()
    }
}

/// `NAME=value` at the first `=`; without one, the value is empty.
pub(super) fn split(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// Sets `name` in a list of `NAME=value`: in place when it is there, else at the end (the order of an image's `Env`).
pub(super) fn set_in_list(list: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    let is_it = |p: &str| p.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    match list.iter_mut().find(|p| is_it(p)) {
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
