//! `--chmod`: octal, or symbolic as chmod(1) with a umask of 0.

use crate::plan::op::Mode;

/// The mode of a copied file whose mode was `old`.
pub(super) fn apply(mode: Option<&Mode>, old: u32, is_dir: bool) -> u32 {
    match mode {
        None => old,
        Some(Mode::Octal(bits)) => bits & 0o7777,
        Some(Mode::Symbolic(clauses)) => clauses.split(',').fold(old, |mode, c| clause(c, mode, is_dir)),
    }
}

/// The mode of directories that are made on the way to the destination: permissions alone, and only octal ones.
pub(super) fn of_parents(mode: Option<&Mode>) -> u32 {
    match mode {
        Some(Mode::Octal(bits)) => bits & 0o777,
        None | Some(Mode::Symbolic(_)) => 0o755,
    }
}

/// One clause: whom it is about, then operations one after the other. What isn't understood changes nothing: the
/// planner refused it.
fn clause(text: &str, mut mode: u32, is_dir: bool) -> u32 {
    let end = text.find(['+', '-', '=']).unwrap_or(text.len());
    let (who, mut rest) = text.split_at(end);
    let who = who.bytes().fold(0, |bits, b| bits | whom(b));
    let who = if who == 0 { 0o7777 } else { who };
    while let Some(op) = rest.chars().next() {
        let operands = rest.get(1..).unwrap_or_default();
        let end = operands.find(['+', '-', '=']).unwrap_or(operands.len());
        let (perms, next) = operands.split_at(end);
        let bits = perms.bytes().fold(0, |bits, b| bits | bits_of(b, mode, is_dir)) & who;
        mode = match op {
            '+' => mode | bits,
            '-' => mode & !bits,
            '=' => (mode & !(who & 0o6777)) | bits,
            _ => mode,
        };
        rest = next;
    }
    mode
}

/// All bits that belong to one of `ugoa`.
fn whom(who: u8) -> u32 {
    match who {
        b'u' => 0o4700,
        b'g' => 0o2070,
        b'o' => 0o1007,
        b'a' => 0o7777,
        _ => 0,
    }
}

/// What a permission letter stands for, for everybody.
fn bits_of(perm: u8, mode: u32, is_dir: bool) -> u32 {
    let spread = |bits: u32| (bits & 7) * 0o111;
    match perm {
        b'r' => 0o444,
        b'w' => 0o222,
        b'x' => 0o111,
        b'X' if is_dir || mode & 0o111 != 0 => 0o111,
        b's' => 0o6000,
        b't' => 0o1000,
        b'u' => spread(mode >> 6),
        b'g' => spread(mode >> 3),
        b'o' => spread(mode),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes() {
        for (clauses, old, is_dir, want) in [
            ("go=u", 0o755, false, 0o777),
            ("go=u", 0o644, false, 0o666),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("a-w", 0o644, false, 0o444),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("u-s", 0o4755, false, 0o755),
            ("o=", 0o755, false, 0o750),
            ("u=rwx,g=rx,o=", 0o000, false, 0o750),
            ("a=r", 0o777, false, 0o444),
            ("u+r-w", 0o200, false, 0o400),
            ("g=o", 0o705, false, 0o755),
            ("a+X", 0o644, false, 0o644),
        ] {
            assert_eq!(apply(Some(&Mode::Symbolic(clauses.into())), old, is_dir), want, "{clauses} on {old:o}");
        }
    }

    #[test]
    fn octal_modes_replace_all() {
        assert_eq!(apply(Some(&Mode::Octal(0o4711)), 0o644, true), 0o4711);
        assert_eq!(apply(None, 0o2644, false), 0o2644);
        assert_eq!(of_parents(Some(&Mode::Octal(0o4400))), 0o400);
        assert_eq!(of_parents(Some(&Mode::Symbolic("a=r".into()))), 0o755);
        assert_eq!(of_parents(None), 0o755);
    }
}
