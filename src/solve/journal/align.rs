//! Which step of one plan is which of another: steps are added, removed and changed between two builds of a Dockerfile.

use super::{Step, StepKind};

/// The most pairs that are weighed; of longer plans only the equal beginning and end are matched.
const PAIRS: usize = 1 << 20;

/// For each step of `new`, the step of `old` that it was. Steps keep their order; of the ways to match them the one is
/// taken in which most is alike.
pub fn align(old: &[Step], new: &[Step]) -> Vec<Option<usize>> {
    let same = |(a, b): &(&Step, &Step)| alike(a, b) >= SAME;
    let head = old.iter().zip(new).take_while(same).count();
    let (old_rest, new_rest) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(same).count();
    let old_middle = old_rest.get(..old_rest.len() - tail).unwrap_or_default();
    let new_middle = new_rest.get(..new_rest.len() - tail).unwrap_or_default();
    let middle = match old_middle.len().saturating_mul(new_middle.len()) {
        ..=PAIRS => best(old_middle, new_middle),
        _ => vec![None; new_middle.len()],
    };
    let first_of_tail = old.len() - tail;
    (0..head)
        .map(Some)
        .chain(middle.into_iter().map(|m| m.map(|m| m + head)))
        .chain((0..tail).map(|t| Some(first_of_tail + t)))
        .collect()
}

/// The matching with the greatest sum of likenesses, as for a longest common subsequence.
fn best(old: &[Step], new: &[Step]) -> Vec<Option<usize>> {
    let width = old.len() + 1;
    // The best sum for what is left of both, from the end.
    let mut sums = vec![0u32; width * (new.len() + 1)];
    let at = |n: usize, o: usize| n * width + o;
    let weights: Vec<u32> = new.iter().flat_map(|n| old.iter().map(|o| alike(o, n))).collect();
    let weight = |n: usize, o: usize| weights.get(n * old.len() + o).copied().unwrap_or(0);
    let sum = |sums: &[u32], n: usize, o: usize| sums.get(at(n, o)).copied().unwrap_or(0);
    for n in (0..new.len()).rev() {
        for o in (0..old.len()).rev() {
            let matched = match weight(n, o) {
                0 => 0,
                weight => weight + sum(&sums, n + 1, o + 1),
            };
            let best = matched.max(sum(&sums, n + 1, o)).max(sum(&sums, n, o + 1));
            if let Some(cell) = sums.get_mut(at(n, o)) {
                *cell = best;
            }
        }
    }
    let mut matches = vec![None; new.len()];
    let (mut n, mut o) = (0, 0);
    while n < new.len() && o < old.len() {
        let weight = weight(n, o);
        if weight > 0 && sum(&sums, n, o) == weight + sum(&sums, n + 1, o + 1) {
            if let Some(cell) = matches.get_mut(n) {
                *cell = Some(o);
            }
            (n, o) = (n + 1, o + 1);
        } else if sum(&sums, n, o) == sum(&sums, n + 1, o) {
            n += 1;
        } else {
            o += 1;
        }
    }
    matches
}

/// From here on two steps are the same beyond doubt.
const SAME: u32 = 100;

/// How much two steps are alike; 0 for those that can't be the same one.
fn alike(old: &Step, new: &Step) -> u32 {
    if old.kind != new.kind {
        return 0;
    }
    let ((old_stage, old_text), (new_stage, new_text)) = (split(&old.name), split(&new.name));
    let same_stage = old_stage == new_stage;
    let bonus = if same_stage { 20 } else { 0 };
    if old_text == new_text {
        return SAME + bonus;
    }
    if old.definition == new.definition {
        return SAME - 20 + bonus;
    }
    let word = |text: &str| text.split_whitespace().next().map(str::to_owned);
    match same_stage && (word(old_text) == word(new_text) || old.kind == StepKind::Image) {
        true => bonus + likeness(old_text, new_text),
        false => 0,
    }
}

/// From 1 to 50: how much of the longer text is in the beginning and the end that both have.
fn likeness(one: &str, two: &str) -> u32 {
    let length = one.len().max(two.len()).max(1);
    let head = one.bytes().zip(two.bytes()).take_while(|(a, b)| a == b).count();
    let shorter = one.len().min(two.len());
    let tail = one.bytes().rev().zip(two.bytes().rev()).take(shorter - head).take_while(|(a, b)| a == b).count();
    1 + u32::try_from((head + tail) * 49 / length).unwrap_or(0)
}

/// A step's name as its stage (`[linux/amd64 builder 2/5]` without the numbers) and its text.
pub fn split(name: &str) -> (&str, &str) {
    let Some((stage, text)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
        return ("", name);
    };
    let is_number = |last: &str| {
        last.split_once('/')
            .is_some_and(|(a, b)| [a, b].iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())))
    };
    match stage.rsplit_once(' ') {
        Some((stage, last)) if is_number(last) => (stage.trim_end(), text),
        None if is_number(stage.trim_start()) => ("", text),
        _ => (stage, text),
    }
}
